"""Stand-ins for parts of a model and for a solver, in a few lines each."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.inference import Problem, Solution
from energycomp.testing.conditioners import UnitSquare


class Halved:
    """A codec of images 32x32 whose latents are half as large, in numbers and in size.

    >>> Halved().encode(torch.ones(1, 3, 32, 32)).shape
    torch.Size([1, 3, 16, 16])
    """

    identity = "halved"
    latent_shape = (3, 16, 16)

    def encode(self, images: Tensor) -> Tensor:
        return images[:, :, ::2, ::2] / 2

    def decode(self, latents: Tensor) -> Tensor:
        return latents.repeat_interleave(2, 2).repeat_interleave(2, 3) * 2

    def config(self) -> dict[str, Any]:
        return {}


class Places(UnitSquare):
    """`UnitSquare`, whose descriptions say which number is which.

    >>> Places().describe(torch.tensor([0.25, 0.5]))
    {'x': 0.25, 'y': 0.5}
    """

    def describe(self, value: Tensor) -> Any:
        return {"x": float(value[0]), "y": float(value[1])}


@attrs.frozen
class Fixed:
    """A solver that answers `answer` (K, *V), with further fields of `Solution` in `said`.

    >>> from energycomp import infer
    >>> from energycomp.testing import bumps_model
    >>> infer(torch.zeros(3, 16, 16), bumps_model(), solver=Fixed(torch.rand(2, 2))).count
    2
    """

    answer: Tensor
    needs: Any = None
    said: dict[str, Any] = attrs.field(factory=dict)

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        del generator
        said = {"error": 0.0, "stderr": 0.0, "rows": problem.rows} | self.said
        return Solution(self.answer, len(self.answer), **said)
