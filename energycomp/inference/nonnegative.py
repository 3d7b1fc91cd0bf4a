"""Least squares with weights that are not negative."""

from __future__ import annotations

import torch
from torch import Tensor


def nonnegative(b: Tensor, gram: Tensor) -> Tensor:
    """The weights w >= 0 that minimise w.G w - 2 b.w, (M,), float64 (Lawson and Hanson, 1974).

    >>> nonnegative(torch.tensor([1.0, -1.0]), torch.eye(2)).tolist()
    [1.0, 0.0]
    """
    from scipy.optimize import nnls

    if not len(b):
        return torch.zeros(0, dtype=torch.float64)
    # Least squares |left w - right|^2: G = left.T left and b = left.T right, by the eigenvalues of G
    values, vectors = torch.linalg.eigh(gram.double().cpu())
    root = values.clamp(min=max(float(values.max()) * 1e-12, 1e-30)).sqrt()
    left = (vectors * root).T  # G = left.T left
    right = (vectors / root).T @ b.double().cpu()
    # The active-set method
    solved, _ = nnls(left.numpy(), right.numpy())
    return torch.from_numpy(solved)
