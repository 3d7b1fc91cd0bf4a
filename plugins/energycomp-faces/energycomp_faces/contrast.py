"""The contrastive loss of labels: denoising error, and likelihood of each label given the others."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from energycomp.components import Condition, Conditioner, log_snr, rule_weights
from energycomp.denoisers import Denoiser, rows
from energycomp.errors import InputError
from energycomp_lab.training.loss import make_trunk


def contrast_loss(
    denoiser: Denoiser,
    conditioner: Conditioner,
    samples: Tensor,
    values: Tensor,
    owner: Tensor,
    *,
    weight: float,
    beta: float = 0.25,
    timestep_power: float = 0.5,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The denoising error of compositions of yes/no labels, plus `weight` times -log p(label | image, other labels).

    p = softmax(-beta J) over the two values of a label, with J the error of one draw. By Jensen's inequality this is a
    lower bound on the likelihood under the mean over draws. The denoising error alone never sees a wrong label, so
    small features are learned slowly. The difference of the errors follows from the quadratic form: with d the change
    of the prediction when a label is flipped, J' - J = |d|^2 - 2 d.(x0 - x0_hat).

    Args:
        denoiser: a denoiser that predicts x0 under the rule product.
        conditioner: a conditioner with values 2k (no) and 2k + 1 (yes).
        samples: x0, (B, C, H, W).
        values: (R,) the given true labels.
        owner: (R,) the sample of each label.
        weight: loss weight of the second term.
        beta: inverse temperature of one draw.
        timestep_power: of the timesteps, T U^power.
        generator: draws timesteps and noise.

    Returns:
        A scalar. Costs 2 R + B network evaluations.
    """
    if denoiser.prediction_type != "sample" or denoiser.rule != "product":
        raise InputError(
            f"got a denoiser that predicts {denoiser.prediction_type!r} under the rule {denoiser.rule!r}; expected "
            "'sample' and 'product'; train it with contrast=0"
        )
    shared, _, timestep = make_trunk(denoiser, samples, None, timestep_power, generator)
    batch = len(samples)
    device = samples.device
    unconditional = Condition.unconditional(*denoiser.token_shape, rows=batch, device=device)
    condition = Condition.cat([conditioner(values), conditioner(values ^ 1), unconditional])
    owners = torch.cat([owner, owner, torch.arange(batch, device=device)])
    predicted = rows(denoiser, shared, condition, owners)
    true, flipped, free = predicted.split([len(values), len(values), batch])
    count = torch.bincount(owner, minlength=batch).to(true)
    row, null = (weight[:, None, None, None] for weight in rule_weights(denoiser.rule, count))
    error = samples - (null * free).index_add(0, owner, row[owner] * true)
    return label_loss(error, flipped - true, owner, snr_of(denoiser, timestep), weight=weight, beta=beta)


def snr_of(denoiser: Denoiser, timestep: Tensor) -> Tensor:
    """The ratios of signal to noise (B,) at timesteps (B,)."""
    return torch.exp(log_snr(denoiser.alphas_cumprod.to(timestep.device), timestep)).float()


def label_loss(error: Tensor, change: Tensor, owner: Tensor, snr: Tensor, *, weight: float, beta: float) -> Tensor:
    """The denoising error, weighted by min(SNR, 1) and at least 1/2, plus the loss of flipped labels: a scalar.

    Args:
        error: x0 - x0_hat under the true labels, (B, C, H, W).
        change: change of x0_hat when one label is flipped, (R, C, H, W).
        owner: (R,) the sample of each flipped label.

    >>> none, moved = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2.0)
    >>> first = torch.tensor([0])
    >>> label_loss(none, moved, first, torch.tensor([1.0]), weight=1.0, beta=1.0)  # log(1 + exp(-2^2))
    tensor(0.0181)
    """
    error, change = error.float(), change.float()
    denoising = (error.square().flatten(1).mean(1) * snr.clamp(0.5, 1.0)).mean()
    if not len(owner):
        return denoising
    margin = (change * (change - 2 * error[owner])).flatten(1).sum(1) * snr.clamp(max=4.0)[owner]
    return denoising + weight * functional.softplus(-beta * margin).mean()
