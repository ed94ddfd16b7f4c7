"""What is not trained has to be equal at both ends of a pair."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_landscape.storage.named_tensors import clean_name


def require_equal_frozen(module: nn.Module, partner: Mapping[str, Tensor]) -> None:
    """Refuses a partner whose frozen parameters differ: E varies trainable ones alone, and would not be its loss.

    Raises:
        ValueError: naming the parameters.
    """
    frozen = {
        clean_name(name): parameter for name, parameter in module.named_parameters() if not parameter.requires_grad
    }
    differing = [
        name
        for name, parameter in frozen.items()
        if name in partner and not torch.equal(partner[name].to(parameter), parameter)
    ]
    if differing:
        raise ValueError(
            f"{len(differing)} frozen parameters differ between the two models, among them {differing[:3]}: a pair "
            "must share what is not trained; unfreeze them, or compare with a model that has the same frozen weights"
        )
