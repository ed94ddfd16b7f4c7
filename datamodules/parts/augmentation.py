"""Random flips and crops of whole batches, for training alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader


def flip_and_crop(images: Tensor, padding: int = 4) -> Tensor:
    """Each image at a random place inside a border of zeros, and mirrored left to right with probability 1/2.

    The offset is uniform over ``(2 padding + 1)^2`` places, as in the CIFAR experiments of He et al. (2016, Sec. 4.2).
    Draws from the global random state.

    Args:
        images: tensor (N, C, H, W); standardised, so that a border of zeros has the mean colour.
        padding: width of the border in pixels.

    Returns:
        A new tensor of the same shape.

    Example:
        >>> flip_and_crop(torch.ones(2, 3, 8, 8), padding=0).shape
        torch.Size([2, 3, 8, 8])
    """
    count, channels, height, width = images.shape
    top, left = torch.randint(0, 2 * padding + 1, (2, count, 1), device=images.device)
    mirrored = torch.rand(count, 1, device=images.device) < 0.5
    rows = top + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = left + torch.where(mirrored, columns.flip(0), columns)
    padded = nn.functional.pad(images, (padding, padding, padding, padding))
    # All four axes are indexed, so that the result comes out in the usual order of memory.
    image = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


class AugmentingLoader(DataLoader[Any]):
    """A DataLoader that flips and crops the images of each batch ``[images, labels]`` that it hands out.

    The data set and the collate function stay without augmentation. Who reads them for itself, as the probe of
    :class:`~lightning_landscape.callbacks.LevelSetConnectivity` does, sees the images as they are, always the same.
    The draws are made in the main process from the global random state, whatever the number of workers, so that
    ``seed_everything`` reproduces them.
    """

    measured_by_dataset = True

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # DataLoader declares its own iterator class
        for images, labels in super().__iter__():
            yield [flip_and_crop(images), labels]
