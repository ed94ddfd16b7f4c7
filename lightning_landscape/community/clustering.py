"""From points to communities."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor


def cluster_rows(points: np.ndarray, num_communities: int, seed: int) -> Tensor:
    """Labels (n,) int64 of the best of ten k-means clusterings of the rows of ``points`` (n, d).

    Example:
        >>> first, second, third = cluster_rows(np.array([[0.0], [0.1], [9.0]]), num_communities=2, seed=0).tolist()
        >>> first == second != third
        True
    """
    labels = KMeans(num_communities, n_init=10, random_state=seed).fit_predict(points)
    return torch.from_numpy(labels).long()
