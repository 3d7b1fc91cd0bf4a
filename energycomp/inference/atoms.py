"""Predictions of components on noised images, as the atoms of a quadratic form."""

from __future__ import annotations

import torch
from torch import Tensor

from energycomp.components import Condition, identifies_null
from energycomp.denoisers import Denoiser, Trunk, rows
from energycomp.inference.noise import NoiseBank, noised_trunk, wanted
from energycomp.inference.quadratic import QuadraticForm


def quadratic_form(
    denoiser: Denoiser,
    observation: Tensor,
    bank: NoiseBank,
    condition: Condition,
    shared: Trunk | None = None,
    null: Tensor | None = None,
) -> QuadraticForm:
    """The quadratic form of M atoms, condition rows, over the S draws of a bank, for an observation (1, C, H, W).

    Costs S rows per atom (and S for u under the product rule) and S trunk passes; none for what is given: `shared`, of
    `noised_trunk`, and `null`, the unconditional predictions (S, C, H, W) on it.
    """
    # Noised samples and trunks, once for all atoms
    shared = shared if shared is not None else noised_trunk(denoiser, observation, bank)
    draws = len(bank)
    atoms = len(condition)
    size = observation[0].numel()
    # The unconditional prediction u, where the rule has one
    residual = identifies_null(denoiser.rule)
    if residual and null is None:
        unconditional = Condition.unconditional(*denoiser.token_shape, rows=draws, device=condition.rows.device)
        null = rows(denoiser, shared, unconditional, torch.arange(draws, device=shared.sample.device))
    # Predictions of all atoms on all draws, atom by atom: rows of one condition share what depends on it alone
    owner = torch.arange(draws, device=shared.sample.device).repeat(atoms)
    index = torch.arange(atoms, device=condition.rows.device).repeat_interleave(draws)
    predictions = rows(denoiser, shared, condition[index], owner).reshape(atoms, draws, size).transpose(0, 1)
    # The target, and the scale by which squared norms are errors
    best, squared = wanted(denoiser, observation, bank)
    best = best.flatten(1)
    scale = squared.sqrt().to(predictions.dtype)
    # Product rule: residuals e - u and eps - u, so that no atoms leave the unconditional prediction
    if residual and null is not None:
        u = null.reshape(draws, size)
        return QuadraticForm.of((predictions - u[:, None]).mul_(scale[:, None, None]), (best - u) * scale[:, None])
    return QuadraticForm.of(predictions * scale[:, None, None], best * scale[:, None])
