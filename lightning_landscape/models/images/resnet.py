"""The residual network of 20 layers for small images (He et al. 2016)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Normalization = Literal["batch", "group"]

_GROUPS = 4  # of the group norm, and with it the granularity of the width
_BLOCKS = 3  # a stage, of two convolutions each


def resnet20(
    in_channels: int, image_size: int, num_classes: int, normalization: Normalization = "batch", width: float = 1.0
) -> nn.Sequential:
    """ResNet-20 of He et al. (2016, Sec. 4.2): 3x3 convolution, three stages of three blocks, mean over pixels, dense.

    The stages have 16, 32 and 64 channels times ``width``; the second and third halve the image. Where they do, the
    shortcut is a 1x1 convolution with stride 2 (option B), so that each stage has its own channels; the paper's own
    CIFAR nets pad them with zeros (option A), which ties the order of the channels of one stage to the next.
    Convolutions have no bias and He's normal initialisation. On 3 channels, 10 classes: 272,474 parameters.

    Args:
        in_channels: channels of an image.
        image_size: height and width of an image; the network takes any.
        num_classes: number of outputs.
        normalization: after each convolution: ``"batch"`` norm, or ``"group"`` norm with 4 groups (Wu & He 2018),
            which keeps no statistics and treats each example by itself.
        width: factor of the channels, a positive multiple of 1/4.

    Raises:
        ValueError: if ``normalization`` or ``width`` is out of its range.

    Example:
        >>> import torch
        >>> resnet20(3, 32, 10, "group", width=0.25)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    if normalization not in ("batch", "group"):
        raise ValueError(f"normalization must be 'batch' or 'group', got {normalization!r}")
    channels = 16 * width
    if not channels > 0 or channels % _GROUPS:
        raise ValueError(f"width must be a positive multiple of 1/4, got {width!r}")
    base = inputs = int(channels)
    layers: list[nn.Module] = [*_normalised(in_channels, base, 3, 1, normalization), nn.ReLU()]
    for outputs in (base, 2 * base, 4 * base):
        for _ in range(_BLOCKS):
            layers.append(_Residual(inputs, outputs, normalization))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * base, num_classes))


class _Residual(nn.Module):
    """``relu(body(x) + shortcut(x))``, at half the resolution where the channels change."""

    def __init__(self, inputs: int, outputs: int, normalization: Normalization) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.body = nn.Sequential(
            *_normalised(inputs, outputs, 3, stride, normalization),
            nn.ReLU(),
            *_normalised(outputs, outputs, 3, 1, normalization),
        )
        projection = [] if inputs == outputs else _normalised(inputs, outputs, 1, stride, normalization)
        self.shortcut = nn.Sequential(*projection)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return output


def _normalised(inputs: int, outputs: int, kernel: int, stride: int, normalization: Normalization) -> list[nn.Module]:
    norm = nn.BatchNorm2d(outputs) if normalization == "batch" else nn.GroupNorm(_GROUPS, outputs)
    return [_Convolution(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False), norm]


class _Convolution(nn.Conv2d):
    """A convolution that starts with He's normal initialisation, whoever resets it."""

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
