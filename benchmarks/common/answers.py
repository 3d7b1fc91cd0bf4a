"""Answers to the question which attributes an image has, and their errors by complete passes of the network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from benchmarks.common.measure import looped_row
from energycomp import Model
from energycomp.inference import NoiseBank, Problem, residual_errors
from energycomp_solvers.shared import configurations, dictionary

ATTRIBUTES = ("black_hair", "eyeglasses", "smiling")  # those of the thesis
PART = 8  # draws of one call of a whole network: what the caches hold


def candidates_of(model: Model, attributes: Sequence[str]) -> Tensor:
    """Both values of each of some yes/no attributes, (2 A,)."""
    parse = model.conditioner.parse
    return torch.cat([parse(**{name: value}) for name in attributes for value in (False, True)])


def fingerprint(model: Model) -> str:
    """A digest of the weights of a model's network: stored results of other weights are not reused."""
    digest = hashlib.sha256()
    for tensor in model.denoiser.network.state_dict().values():
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def answers_of(problem: Problem) -> Tensor:
    """All M^K answers of a problem (N, K)."""
    atoms, slots = dictionary(problem)
    return torch.stack([atoms[list(chosen)] for chosen in configurations(problem, slots, len(slots))])


@attrs.frozen(eq=False)
class Looped:
    """Errors of answers, each component of each a pass of the whole network; u is run once a draw."""

    model: Model

    def __call__(self, problem: Problem, answers: Tensor, bank: NoiseBank) -> Tensor:
        """(N, S) of answers (N, K)."""
        denoiser, network, parts = self.model.denoiser, self.model.denoiser.network, []
        for start in range(0, len(bank), PART):
            part = bank[start : start + PART]
            sample = part.noised(problem.observation, denoiser.alphas_cumprod)
            base = looped_row(network, sample, part.timestep, denoiser.unconditional.condition)
            composed = []
            for answer in answers:
                total = (1 - len(answer)) * base
                for value in answer:
                    total = total + looped_row(network, sample, part.timestep, self.model.conditioner(value[None]))
                composed.append(total)
            parts.append(residual_errors(denoiser, problem.observation, part, torch.stack(composed)))
        return torch.cat(parts, 1)
