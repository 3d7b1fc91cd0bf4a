"""What a denoiser predicts of one sample under noise, and what that costs."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import attrs
import torch
from torch import Tensor

from energycomp.components import Condition, rule_weights
from energycomp.components.ledger import RowCount, count_rows
from energycomp.denoisers import Denoiser, Trunk, rows
from energycomp.errors import InputError
from energycomp.inference.noise import NoiseBank, noised_trunk, residual_errors, residuals

MAX_NUMBERS = 2**30  # of predictions, or of noise, at a time: 4 GiB of float32


@attrs.frozen(eq=False)
class Predicted:
    """Predictions of the components of a sample, composed by the rule of the denoiser, and the errors that they leave.

    The trunk of a noise bank and its unconditional prediction are kept as long as the bank itself.
    """

    denoiser: Denoiser
    observation: Tensor
    spent: RowCount = attrs.field(factory=RowCount)
    trunks: WeakKeyDictionary[NoiseBank, Trunk] = attrs.field(factory=WeakKeyDictionary)
    nulls: WeakKeyDictionary[NoiseBank, Tensor] = attrs.field(factory=WeakKeyDictionary)

    def errors(self, terms: Tensor, bank: NoiseBank) -> Tensor:
        """Denoising errors (N, S) of compositions of predictions (S, N, K, P)."""
        return residual_errors(self.denoiser, self.observation, bank, self._composed(terms, bank))

    def residuals(self, terms: Tensor, bank: NoiseBank) -> Tensor:
        """What the composition of predictions (S, 1, K, P) does not explain of each draw, (S, C, H, W)."""
        return residuals(self.denoiser, self.observation, bank, self._composed(terms, bank)[0])

    def residuals_of_null(self, bank: NoiseBank) -> Tensor:
        """What the unconditional prediction does not explain of each draw, (S, C, H, W)."""
        return residuals(self.denoiser, self.observation, bank, self.null(bank))

    def errors_of_null(self, bank: NoiseBank) -> Tensor:
        """Denoising errors (S,) of the unconditional prediction."""
        return residual_errors(self.denoiser, self.observation, bank, self.null(bank)[None])[0]

    def terms(self, condition: Condition, candidates: int, count: int, bank: NoiseBank) -> Tensor:
        """Predictions (S, N, K, P) of N K conditions."""
        self.check_size(candidates * count, len(bank))
        shared = self.trunk(bank)
        draws = len(bank)
        # Each condition on each draw: heads of one trunk
        index = torch.arange(candidates * count, device=condition.rows.device).repeat(draws)
        owner = torch.arange(draws, device=self.denoiser.device).repeat_interleave(candidates * count)
        with count_rows(self.spent):
            terms = rows(self.denoiser, shared, condition[index], owner)
        return terms.reshape(draws, candidates, count, self.observation[0].numel())

    def null(self, bank: NoiseBank) -> Tensor:
        """The unconditional predictions (S, C, H, W)."""
        if bank not in self.nulls:
            shared = self.trunk(bank)
            condition = self.denoiser.unconditional.condition.expand(len(shared))
            with count_rows(self.spent), torch.no_grad():
                owner = torch.arange(len(shared), device=self.denoiser.device)
                self.nulls[bank] = rows(self.denoiser, shared, condition, owner)
        return self.nulls[bank]

    def trunk(self, bank: NoiseBank) -> Trunk:
        """What all predictions of a bank share."""
        if bank not in self.trunks:
            with count_rows(self.spent), torch.no_grad():
                self.trunks[bank] = noised_trunk(self.denoiser, self.observation, bank)
        return self.trunks[bank]

    def check_size(self, values: int, draws: int) -> None:
        """Raises `InputError` where predictions of `values` under `draws` would take too much memory."""
        size = self.observation[0].numel()
        if values * draws * size > MAX_NUMBERS:
            raise InputError(
                f"got {values:,} values x {draws:,} draws x {size:,} numbers of a sample; expected at most "
                f"{MAX_NUMBERS:,} numbers (4 GiB); lower draws, candidates= of infer, or side= or inits= of the solver"
            )

    def _composed(self, terms: Tensor, bank: NoiseBank) -> Tensor:
        """Compositions (N, S, C, H, W) of predictions (S, N, K, P)."""
        draws, candidates, count, _ = terms.shape
        # The rule: eps = row sum_k e_k + share u
        row, share = rule_weights(self.denoiser.rule, float(count))
        composed = row * terms.sum(2)
        if share:
            composed = composed + share * self.null(bank).reshape(draws, 1, -1)
        return composed.transpose(0, 1).reshape(candidates, draws, *self.denoiser.sample_shape)
