"""The denoising error of an observation per draw, and its quadratic form in the weights of components."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from energycomp.components.conditioning import Condition
from energycomp.denoisers.denoiser import Denoiser, PredictionType, log_snr, signal_noise
from energycomp.denoisers.evaluator import Trunk, rows, trunk
from energycomp.errors import CompositionError, InputError
from energycomp.inference.noise import NoiseBank

__all__ = [
    "QuadraticForm",
    "compose_rows",
    "error_scale",
    "noised_trunk",
    "nonnegative",
    "quadratic_form",
    "residual_errors",
    "target",
]


def compose_rows(
    denoiser: Denoiser, shared: Trunk, condition: Condition, owner: Tensor, weight: Tensor | None = None
) -> Tensor:
    """The composed prediction of every sample, each of its own number of components, by the denoiser's rule.

    Args:
        shared: trunk of B samples.
        condition: R flat rows; nothing is padded.
        owner: (R,) the sample each row belongs to.
        weight: of each row (R,), which makes a component stronger or weaker; 1 when left out.

    Returns:
        (B, C, H, W) of the network's own prediction type. Costs R rows, and for the product rule one more for each
        sample whose weights do not sum to 1 (u has the weight 1 - K in thesis eq. 5.12).
    """
    batch = len(shared)
    owner = owner.to(shared.sample.device)
    weight = torch.ones(len(owner), device=owner.device) if weight is None else weight.to(owner.device)
    mass = weight.new_zeros(batch).index_add(0, owner, weight)
    if denoiser.rule == "mean":
        if bool((mass.abs() < 1e-6).any()):
            raise CompositionError(
                "got a sample without components under the rule 'mean', or with weights that sum to 0; expected at "
                "least one each, and another sum"
            )
        weight = weight / mass[owner]
    elif denoiser.rule == "product":
        free = ((mass - 1).abs() > 1e-6).nonzero()[:, 0]
        null = Condition.unconditional(*denoiser.token_shape, rows=len(free), device=condition.rows.device)
        condition = Condition.cat([condition, null.to(dtype=condition.rows.dtype)])
        weight = torch.cat([weight, 1 - mass[free]])
        owner = torch.cat([owner, free])
    predictions = rows(denoiser, shared, condition, owner) * weight[:, None, None, None]
    composed = predictions.new_zeros(batch, *predictions.shape[1:])
    return composed.index_add(0, owner, predictions)


def target(
    x0: Tensor, noise: Tensor, alphas_cumprod: Tensor, timestep: Tensor, prediction_type: PredictionType
) -> Tensor:
    """What a perfect prediction of the type is, for clean samples x0 and their noise, (B, C, H, W)."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return x0.expand_as(noise)
    a, s = signal_noise(alphas_cumprod, timestep, noise.dtype)
    return a * noise - s * x0


def error_scale(alphas_cumprod: Tensor, timestep: Tensor, prediction_type: PredictionType) -> Tensor:
    """The factor (S,) that turns a squared error of a prediction type into one of eps, at mass 1.

    |eps - eps_hat|^2 = SNR |x0 - x0_hat|^2 = |v - v_hat|^2 alpha_bar.
    """
    snr = log_snr(alphas_cumprod, timestep)
    if prediction_type == "epsilon":
        return torch.ones_like(snr)
    return torch.exp(snr) if prediction_type == "sample" else torch.sigmoid(snr)


def noised_trunk(denoiser: Denoiser, observation: Tensor, bank: NoiseBank) -> Trunk:
    """The trunk of one observation (1, C, H, W) under every draw of a bank. Costs S trunk passes."""
    return trunk(denoiser, bank.noised(observation, denoiser.alphas_cumprod), bank.timestep)


def residual_errors(denoiser: Denoiser, observation: Tensor, bank: NoiseBank, predictions: Tensor) -> Tensor:
    """lambda_s |eps_s - eps_hat_s|^2 of composed predictions (N, S, C, H, W) in the network's type: (N, S)."""
    kind = denoiser.prediction_type
    wanted = target(observation, bank.noise, denoiser.alphas_cumprod, bank.timestep, kind)
    scale = bank.weight * error_scale(denoiser.alphas_cumprod, bank.timestep, kind)
    return (predictions - wanted).flatten(2).square().sum(2) * scale.to(predictions.dtype)


SLICE = 2048  # numbers of an atom widened to float64 at a time: a slice of a dictionary stays in the cache


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Inner products (M, m) of the rows of (M, P) and (m, P), accumulated in float64."""
    slices = zip(left.split(SLICE, 1), right.split(SLICE, 1), strict=True)
    total = torch.zeros(len(left), len(right), dtype=torch.float64, device=left.device)
    for a, b in slices:
        total.addmm_(a.double(), b.double().T)
    return total


def _squares(rows: Tensor) -> Tensor:
    """Squared norms (M,) of rows (M, P), accumulated in float64."""
    return torch.stack([part.double().square().sum(1) for part in rows.split(SLICE, 1)]).sum(0)


@attrs.frozen(eq=False)
class QuadraticForm:
    """J_s(w) = c_s - 2 b_s.w + w.G_s w: the error of every weighting of M atoms, for each of S draws.

    Under the product rule atoms and target are residuals (e_i - u, eps - u), so that w = 0 is the unconditional
    prediction and w in {0, 1}^M a subset of components. Under "sum" and "mean" they are e_i and eps; a mean over K is
    the weights 1/K. Products are taken in float64; of G only the columns that are asked for are computed, and kept.

    Args:
        atoms: (S, M, P), scaled so that squared norms are errors.
        target: (S, P), scaled alike.
        b: (S, M) inner products with the target; computed when left out.
        c: (S,) squared norms of the target; computed when left out.
        diagonal: (S, M) squared norms of the atoms; computed when left out.

    Raises:
        InputError: when the shapes do not fit each other.

    >>> form = QuadraticForm(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[2.0, 1.0]]))
    >>> form.errors(torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 1.0]])).tolist()
    [[5.0], [1.0], [0.0]]
    """

    atoms: Tensor
    target: Tensor = attrs.field()
    b: Tensor = attrs.field(kw_only=True)
    c: Tensor = attrs.field(kw_only=True)
    diagonal: Tensor = attrs.field(kw_only=True)
    _columns: dict[int, Tensor] = attrs.field(kw_only=True, factory=dict, repr=False)

    @b.default
    def _products(self) -> Tensor:
        if self.atoms.ndim != 3 or self.atoms.shape[::2] != self.target.shape:
            raise InputError(
                f"got atoms {tuple(self.atoms.shape)} and target {tuple(self.target.shape)}; expected (S, M, P) and "
                "(S, P); flatten the samples"
            )
        return torch.stack([_inner(a, w[None])[:, 0] for a, w in zip(self.atoms, self.target, strict=True)])

    @c.default
    def _target_squared(self) -> Tensor:
        return self.target.double().square().sum(1)

    @diagonal.default
    def _atoms_squared(self) -> Tensor:
        return torch.stack([_squares(a) for a in self.atoms])

    def __len__(self) -> int:
        return self.atoms.shape[1]

    def append(self, other: QuadraticForm) -> QuadraticForm:
        """The form over both sets of atoms, on the same draws; known columns are completed when asked for."""
        if self.target.shape != other.target.shape:
            raise InputError(
                f"got forms over targets {tuple(self.target.shape)} and {tuple(other.target.shape)}; expected one "
                "noise bank; make both with it"
            )
        return QuadraticForm(
            torch.cat([self.atoms, other.atoms], dim=1),
            self.target,
            b=torch.cat([self.b, other.b], dim=1),
            c=self.c,
            diagonal=torch.cat([self.diagonal, other.diagonal], dim=1),
            columns=dict(self._columns),
        )

    @property
    def draws(self) -> int:
        """S."""
        return self.atoms.shape[0]

    def column(self, index: int) -> Tensor:
        """G[:, :, index], (S, M)."""
        self._complete([index])
        return self._columns[index]

    def gram(self, indices: Sequence[int] | None = None) -> Tensor:
        """G over some atoms (all when left out), (S, m, m)."""
        chosen = list(range(len(self))) if indices is None else list(indices)
        if not chosen:
            return self.b.new_zeros(self.draws, 0, 0)
        self._complete(chosen)
        return torch.stack([self._columns[i][:, chosen] for i in chosen], dim=2)

    def _complete(self, indices: Sequence[int]) -> None:
        """Computes what is missing of some columns, in one pass over the atoms for all that lack the same rows."""
        missing: dict[int, list[int]] = {}
        for index in dict.fromkeys(indices):
            known = self._columns[index].shape[1] if index in self._columns else 0
            if known < len(self):
                missing.setdefault(known, []).append(index)
        for start, group in missing.items():
            part = torch.stack([_inner(a[start:], a[group]) for a in self.atoms])  # (S, M - start, m)
            for place, index in enumerate(group):
                head = self._columns[index] if start else part[:, :0, place]
                self._columns[index] = torch.cat([head, part[:, :, place]], dim=1)

    def errors(self, weights: Tensor) -> Tensor:
        """Errors (N, S) of weightings (N, M), float64."""
        w = weights.to(self.b)
        used = w.ne(0).any(0).nonzero()[:, 0].tolist()
        w = w[:, used]
        quadratic = torch.einsum("nm,smk,nk->ns", w, self.gram(used), w)
        return self.c - 2 * w @ self.b[:, used].T + quadratic


def quadratic_form(
    denoiser: Denoiser, observation: Tensor, bank: NoiseBank, condition: Condition, shared: Trunk | None = None
) -> QuadraticForm:
    """The quadratic form of M atoms over the S draws of a bank.

    Costs S rows an atom (and S for u under the product rule) and S trunk passes (none where `shared` is given).

    Args:
        observation: (1, C, H, W).
        condition: M rows.
        shared: what `noised_trunk` gave for this observation and bank.
    """
    product = denoiser.rule == "product"
    if product:
        null = Condition.unconditional(*denoiser.token_shape, device=condition.rows.device)
        condition = Condition.cat([null.to(dtype=condition.rows.dtype), condition])
    shared = shared if shared is not None else noised_trunk(denoiser, observation, bank)
    draws, atoms = len(bank), len(condition)
    owner = torch.arange(draws, device=shared.sample.device).repeat_interleave(atoms)
    index = torch.arange(atoms, device=condition.rows.device).repeat(draws)
    predictions = rows(denoiser, shared, condition[index], owner)
    predictions = predictions.reshape(draws, atoms, observation[0].numel())
    kind, alphas_cumprod = denoiser.prediction_type, denoiser.alphas_cumprod
    wanted = target(observation, bank.noise, alphas_cumprod, bank.timestep, kind).flatten(1)
    scale = (bank.weight * error_scale(alphas_cumprod, bank.timestep, kind)).sqrt().to(predictions.dtype)
    if product:
        u = predictions[:, 0]
        residuals = (predictions[:, 1:] - u[:, None]).mul_(scale[:, None, None])
        return QuadraticForm(residuals, (wanted - u) * scale[:, None])
    return QuadraticForm(predictions * scale[:, None, None], wanted * scale[:, None])


def nonnegative(b: Tensor, gram: Tensor) -> Tensor:
    """The weights w >= 0 that minimise w.G w - 2 b.w, (M,), float64 (Lawson and Hanson, 1974).

    >>> nonnegative(torch.tensor([1.0, -1.0]), torch.eye(2)).tolist()
    [1.0, 0.0]
    """
    from scipy.optimize import nnls

    if not len(b):
        return torch.zeros(0, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(gram.double().cpu())
    root = values.clamp(min=max(float(values.max()) * 1e-12, 1e-30)).sqrt()
    left = (vectors * root).T  # G = left.T left
    right = (vectors / root).T @ b.double().cpu()
    solved, _ = nnls(left.numpy(), right.numpy())
    return torch.from_numpy(solved)
