"""The posterior over answers: what their errors say, in nats."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

RULED_OUT = 1e6  # energy of what a prior rules out: finite, so that a search may pass through fewer components


@attrs.frozen
class Posterior:
    """softmax(-beta E) over answers, with E = J or log J of their errors J.

    With log J the posterior is that of normal prediction errors whose variance is unknown and takes its most likely
    value, with beta = n / 2 for n independent numbers: only the ratio of errors counts.

    Args:
        beta: inverse temperature; None for a model that has none, whose nats are E itself.
        log_errors: whether E is log J.
        distrust: how much beta falls where an answer explains less than no component at all, see `temper`.

    >>> Posterior(beta=2.0).nats(torch.tensor([1.0, 4.0])), Posterior(beta=2.0).gap(2.0, 0.5)
    (tensor([2., 8.]), 1.0)
    """

    beta: float | None = None
    log_errors: bool = False
    distrust: float | None = None

    def energies(self, errors: Tensor) -> Tensor:
        """E of errors of any shape."""
        # An answer may be without any error
        return errors.clamp(min=torch.finfo(errors.dtype).tiny).log() if self.log_errors else errors

    def nats(self, errors: Tensor) -> Tensor:
        """beta E of errors of any shape: differences are log-odds."""
        return (self.beta or 1.0) * self.energies(errors)

    def gap(self, error: float, difference: float) -> float:
        """By how many nats an answer of this error is better than one whose error is greater by a difference."""
        here, there = self.nats(torch.tensor([error, error + difference], dtype=torch.float64)).tolist()
        return there - here

    def probabilities(self, errors: Tensor) -> Tensor:
        """The posterior of n answers each, (..., n), from their errors; NaN without beta."""
        if self.beta is None:
            return torch.full_like(errors, torch.nan).float()
        return torch.softmax(-self.nats(errors), dim=-1).float()

    def temper(self, error: float, baseline: float) -> float | None:
        """The beta of an image whose best answer leaves an error, and whose unconditional prediction leaves a baseline.

        beta exp(distrust fit) for a fit = 1 - error / baseline below 0, else beta. Where the composition explains less
        than no component at all, its errors are those of the image and not of the answer, and they are shared by all
        answers: its posteriors are tempered (Miller and Dunson, 2019). None where the model has no beta.

        >>> posterior = Posterior(beta=2.0, distrust=6.0)
        >>> posterior.temper(0.5, 1.0), round(posterior.temper(1.1, 1.0), 3)
        (2.0, 1.098)
        """
        if self.beta is None or self.distrust is None or error <= baseline or baseline <= 0:
            return self.beta
        return self.beta * math.exp(self.distrust * (1.0 - error / baseline))

    def add_prior(self, errors: Tensor, energies: Tensor) -> Tensor:
        """Errors with energies of a prior, of shapes that broadcast: J + E / beta, or J exp(E / beta) of log errors.

        In the place of J this gives the posterior with the prior. It is linear in J, so that means and differences of
        draws are those of the posterior.

        >>> Posterior(beta=2.0).add_prior(torch.tensor([1.0]), torch.tensor([3.0]))
        tensor([2.5000])
        """
        added = energies.to(errors).clamp(max=RULED_OUT) / (self.beta or 1.0)
        if not self.log_errors:
            return errors + added
        # As large as the type holds
        info = torch.finfo(errors.dtype)
        return errors.clamp(min=info.tiny) * added.clamp(max=math.log(info.max) / 2).exp()
