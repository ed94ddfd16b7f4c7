"""What the metrics ask of the tensors that they are updated with."""

from __future__ import annotations

from torch import Tensor


def require_vectors(**tensors: Tensor) -> None:
    """Raise a ValueError unless all the tensors named are vectors of one length."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if any(len(shape) != 1 for shape in shapes.values()) or len(set(shapes.values())) != 1:
        raise ValueError(f"{' and '.join(shapes)} must have one shape (batch,), got {shapes}")


def require_codes(z: Tensor, code: Tensor) -> None:
    """Raise a ValueError unless both are matrices of one shape."""
    if z.ndim != 2 or z.shape != code.shape:
        raise ValueError(f"z and code must have one shape (batch, m), got {tuple(z.shape)} and {tuple(code.shape)}")
