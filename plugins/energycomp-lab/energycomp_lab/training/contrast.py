"""A denoising loss with rivals: compositions with one wrong component must explain the sample worse.

Notation: variable -> symbol
    residual    r = eps_hat - eps of the true composition, in the network's own prediction type
    change      d = what a rival adds to the prediction: the effect of its own row, less that of the row it replaces
    margin      J(rival) - J(true) = lambda (2 r.d + |d|^2)

A model that was trained to denoise alone has never seen a wrong condition beside a sample: where noise is low, it
reads the sample and not the condition, so that a wrong one costs little. The classifier softmax(-beta J) of thesis 5.2
is therefore trained with the prediction: -log sigmoid(beta margin) for each rival.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.components import Condition
from energycomp.denoisers import Denoiser, Trunk, rows
from energycomp.errors import InputError
from energycomp_lab.training.loss import error_weight, make_trunk


@attrs.frozen(eq=False)
class Rivals:
    """Wrong compositions, each the true one of a sample with one row replaced, left out or added.

    Args:
        condition: M rows to add; all rivals together need no more than these.
        owner: (M',) the sample of each rival.
        dropped: (M',) the index of the true row that it goes without; -1 for none.
        added: (M',) the index in `condition` of the row it has instead; -1 for none.

    >>> rivals = Rivals(Condition(torch.rand(1, 1, 2)), *torch.tensor([[0, 0], [0, -1], [-1, 0]]))
    >>> rivals.dropped, rivals.added  # one rival goes without the row 0, one has another row besides
    (tensor([ 0, -1]), tensor([-1,  0]))
    """

    condition: Condition
    owner: Tensor
    dropped: Tensor
    added: Tensor

    def rows(self, condition: Condition, owner: Tensor) -> tuple[Condition, Tensor]:
        """The true rows and those of all rivals, and their samples (R + M,)."""
        owners = owner.new_zeros(len(self.condition))
        has = self.added >= 0
        owners[self.added[has]] = self.owner[has]
        return Condition.cat([condition, self.condition]), torch.cat([owner, owners])


def contrastive_loss(
    denoiser: Denoiser,
    samples: Tensor,
    condition: Condition,
    owner: Tensor,
    rivals: Rivals,
    *,
    weight: float = 1.0,
    beta: float = 1.0,
    module: nn.Module | None = None,
    gamma: float = 4.0,
    floor: float = 0.02,
    timestep_power: float = 1.0,
    generator: int | torch.Generator | None = None,
) -> Tensor:
    """`denoising_loss` plus `weight` times -log sigmoid(beta margin) of the rivals, summed, per sample and number.

    Args:
        denoiser: of the rule product.
        weight: of the rivals; 1 takes J, the sum over numbers, and the logarithm as they are.
        beta: inverse temperature.
        samples, condition, owner, module, gamma, floor, timestep_power, generator: as of `denoising_loss`.

    Returns:
        A scalar, mean over samples and numbers. Costs R + M rows, and one for each sample.

    Raises:
        InputError: a denoiser of another rule.
    """
    if denoiser.rule != "product":
        raise InputError(f"got a denoiser of the rule {denoiser.rule!r}; expected 'product'; use denoising_loss")
    denoiser = denoiser if module is None else attrs.evolve(denoiser, network=module)
    noised = make_trunk(denoiser, samples, None, timestep_power, generator)
    return contrast(denoiser, noised, condition, owner, rivals, weight=weight, beta=beta, gamma=gamma, floor=floor)


def contrast(
    denoiser: Denoiser,
    noised: tuple[Trunk, Tensor, Tensor],
    condition: Condition,
    owner: Tensor,
    rivals: Rivals,
    *,
    weight: float = 1.0,
    beta: float = 1.0,
    gamma: float = 4.0,
    floor: float = 0.02,
) -> Tensor:
    """`contrastive_loss` on a trunk that other losses share: what `make_trunk` returns."""
    shared, goal, timestep = noised
    batch = len(shared)
    null = Condition.unconditional(*denoiser.token_shape, rows=batch, device=goal.device)
    given, owners = rivals.rows(condition, owner)
    everything = Condition.cat([given, null.to(dtype=condition.rows.dtype)])
    each = torch.cat([owners, torch.arange(batch, device=owner.device)])
    predictions = rows(denoiser, shared, everything, each).float().flatten(1)
    u = predictions[-batch:]
    effects = predictions[:-batch] - u[owners]
    true, others = effects[: len(owner)], effects[len(owner) :]

    residual = u.index_add(0, owner, true) - goal.flatten(1)
    scale = error_weight(denoiser, timestep, gamma).float()
    loss = (residual.square().mean(1) * scale.clamp(min=floor)).mean()

    zero = true.new_zeros(1, true.shape[1])
    change = torch.cat([others, zero])[rivals.added] - torch.cat([true, zero])[rivals.dropped]
    margin = scale[rivals.owner] * ((2 * residual[rivals.owner] + change) * change).sum(1)
    return loss + weight * F.softplus(-beta * margin).sum() / (batch * residual.shape[1])
