"""S = A C A' + R of an observation, factored once: S^-1 v and log |S| are cheap then."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch
from torch import Tensor


@attrs.frozen(eq=False)
class ClosedForm:
    """S^-1 v of what is seen (n, *seen), and log |S|, where S has a closed form."""

    solve: Callable[[Tensor], Tensor]
    log_determinant: float


@attrs.frozen(eq=False)
class Cholesky:
    """S = L L' of a matrix (M, M), or (n, M, M) of each sample, in float64."""

    root: Tensor

    @classmethod
    def of(cls, total: Tensor) -> Cholesky:
        return cls(torch.linalg.cholesky_ex(total)[0])

    def solve(self, v: Tensor) -> Tensor:
        """S^-1 v of what is seen (n, *seen)."""
        flat = v.flatten(1).to(self.root)
        if self.root.ndim == 2:
            solved = torch.cholesky_solve(flat.T, self.root).T
        else:
            solved = torch.cholesky_solve(flat[..., None], self.root)
        return solved.to(v.dtype).reshape(v.shape)

    def whiten(self, v: Tensor) -> Tensor:
        """L^-1 v of each sample, (n, M): its square is v' S^-1 v."""
        return torch.linalg.solve_triangular(self.root, v[..., None], upper=False)[..., 0]

    @property
    def log_determinant(self) -> Tensor:
        """log |S|, () or (n,)."""
        return 2.0 * self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
