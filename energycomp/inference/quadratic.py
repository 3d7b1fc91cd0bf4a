"""The denoising error is a quadratic form in the weights of components: the one place with its formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import widen
from energycomp.errors import InputError
from energycomp.inference.prior import PriorOfAtoms
from energycomp.inference.products import inner_products, squared_norms


@attrs.frozen(eq=False)
class QuadraticForm:
    """J_s(w) = c_s - 2 b_s.w + w.G_s w: the error of every weighting of M atoms, for each of S draws.

    Under the product rule atoms and target are residuals (e_i - u, eps - u), so that w = 0 is the unconditional
    prediction and w in {0, 1}^M a subset of components. Under "sum" and "mean" they are e_i and eps; a mean over K is
    the weights 1/K. Everything but the atoms is float64.

    Args:
        b, c: (S, M) inner products of atoms and target, and (S,) squared norms of the target.
        gram: (S, M, M) inner products of the atoms. None computes columns from the atoms when they are asked for, and
            keeps them.
        atoms, target: (S, M, P) and (S, P), scaled so that squared norms are errors; None where not needed any more.
        prior: of the values that the atoms are the predictions of, for `with_prior`; None without a prior.
        weighting: the weight of each of K atoms, by K, where none is given; None for the weight 1. That of the rule of
            a denoiser, for a form of `Problem.quadratic`.

    Raises:
        InputError: when the shapes do not fit each other; from `atoms` and `target` of a form without atoms.

    >>> form = QuadraticForm.of(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[2.0, 1.0]]))
    >>> form.errors([0, 1]), form.errors([], 1.0), form.errors([0], 2.0)
    (tensor([1.], dtype=torch.float64), tensor([5.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """

    b: Tensor
    _gram: Tensor | None
    c: Tensor
    _atoms: Tensor | None = attrs.field(default=None, kw_only=True)
    _target: Tensor | None = attrs.field(default=None, kw_only=True)
    _columns: dict[int, Tensor] = attrs.field(kw_only=True, factory=dict, repr=False)
    prior: PriorOfAtoms | None = attrs.field(default=None, kw_only=True, repr=False)
    weighting: Callable[[int], float] | None = attrs.field(default=None, kw_only=True, repr=False)

    def __attrs_post_init__(self) -> None:
        # Either the Gram matrix is known, or atoms from which it is computed
        draws, atoms = self.b.shape
        known = self._gram if self._gram is not None else self._atoms
        fits = known is not None and known.shape[:2] == self.b.shape and self.c.shape == (draws,)
        if not fits or (self._gram is not None and self._gram.shape[2] != atoms):
            shapes = [None if part is None else tuple(part.shape) for part in (self.b, self.c, known)]
            expected = "(S, M), (S,) and (S, M, M) or (S, M, P)"
            raise InputError(f"got b, c and gram or atoms of {shapes}; expected {expected}; use `QuadraticForm.of`")

    @classmethod
    def of(cls, atoms: Tensor, target: Tensor) -> QuadraticForm:
        """The form over atoms (S, M, P) for a target (S, P); products are accumulated in float64.

        >>> form = QuadraticForm.of(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[2.0, 1.0]]))
        >>> form.draws, len(form), form.b, form.c
        (1, 1, tensor([[2.]], dtype=torch.float64), tensor([5.], dtype=torch.float64))
        """
        if atoms.ndim != 3 or atoms.shape[::2] != target.shape:
            got = f"got atoms {tuple(atoms.shape)} and target {tuple(target.shape)}"
            raise InputError(f"{got}; expected (S, M, P) and (S, P); flatten the samples")
        # b_s = <e_i, eps>: one pass over the atoms; G waits until columns are asked for
        b = torch.stack([inner_products(a, w[None])[:, 0] for a, w in zip(atoms, target, strict=True)])
        return cls(b, None, widen(target).square().sum(1), atoms=atoms, target=target)

    @classmethod
    def empty(cls, atoms: int) -> QuadraticForm:
        """The form over M atoms of no draw, to which others are added by `cat`.

        >>> form = QuadraticForm.of(torch.eye(2)[None], torch.tensor([[2.0, 1.0]]))
        >>> QuadraticForm.empty(2).cat(form).draws
        1
        """
        b = torch.zeros(0, atoms, dtype=torch.float64)
        gram = torch.zeros(0, atoms, atoms, dtype=torch.float64)
        return cls(b, gram, torch.zeros(0, dtype=torch.float64))

    def __len__(self) -> int:
        return self.b.shape[1]

    @property
    def atoms(self) -> Tensor:
        """(S, M, P)."""
        return _held(self._atoms)

    @property
    def target(self) -> Tensor:
        """(S, P)."""
        return _held(self._target)

    @property
    def draws(self) -> int:
        """S."""
        return self.b.shape[0]

    @cached_property
    def diagonal(self) -> Tensor:
        """Squared norms of the atoms, (S, M)."""
        if self._gram is not None:
            return self._gram.diagonal(dim1=1, dim2=2)
        return torch.stack([squared_norms(a) for a in self.atoms])

    def weight(self, count: int) -> float:
        """The weight of each of `count` atoms.

        >>> QuadraticForm.empty(2).weight(3)
        1.0
        """
        return 1.0 if self.weighting is None else self.weighting(count)

    def errors(self, subset: Sequence[int], weight: float | None = None) -> Tensor:
        """Errors (S,) of some atoms, each with the same weight; of none, the error of the unconditional prediction.

        >>> form = QuadraticForm.of(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[2.0, 1.0]]))
        >>> form.errors([0]).item()  # (2 - 1)^2 + 1^2
        2.0
        """
        # J = c - 2 w sum_i b_i + w^2 sum_ij G_ij
        chosen = list(subset)
        if not chosen:
            return self.c
        weight = self.weight(len(chosen)) if weight is None else weight
        return self.c - 2 * weight * self.b[:, chosen].sum(1) + weight**2 * self.gram(chosen).sum((1, 2))

    def objective(self, subset: Sequence[int]) -> Tensor:
        """What a search minimises, (S,): the errors of some atoms, with the prior."""
        return self.with_prior(self.errors(subset), [list(subset)])

    def mean_objective(self, subset: Sequence[int]) -> float:
        """The mean `objective` over all draws.

        >>> QuadraticForm.of(torch.eye(2)[None], torch.tensor([[2.0, 1.0]])).mean_objective([0, 1])
        1.0
        """
        return float(self.objective(subset).mean())

    def objective_with_each(self, subset: Sequence[int]) -> Tensor:
        """The mean `objective` (M,) of some atoms and one more, for each atom; infinite for those among them.

        >>> QuadraticForm.of(torch.eye(2)[None], torch.tensor([[2.0, 1.0]])).objective_with_each([0])
        tensor([inf, 1.], dtype=torch.float64)
        """
        mean = self.with_prior(self.errors_with_each(subset).mean(0), with_each(subset, len(self)))
        mean[list(subset)] = torch.inf
        return mean

    def with_prior(self, errors: Tensor, subsets: Tensor | Sequence[Sequence[int]]) -> Tensor:
        """Errors (..., N) of N subsets of K atoms, (N, K) indices, with the prior, see `Problem.with_prior`."""
        if self.prior is None:
            return errors
        return self.prior.added(errors, torch.as_tensor(subsets, dtype=torch.long).view(len(subsets), -1))

    def errors_of_each(self, subsets: Tensor, weight: float | None = None) -> Tensor:
        """Errors (S, N) of N subsets of K atoms, (N, K) indices, each atom with the same weight.

        >>> form = QuadraticForm.of(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[2.0, 1.0]]))
        >>> form.errors_of_each(torch.tensor([[0], [1]])).tolist()
        [[2.0, 4.0]]
        """
        weight = self.weight(subsets.shape[1]) if weight is None else weight
        # J of every subset: c - 2 b.w, then w.G w pair by pair, where G is symmetric
        errors = self.c[:, None] - 2 * weight * self.b[:, subsets].sum(2)
        gram = self.gram()
        count = subsets.shape[1]
        for i in range(count):
            for j in range(i, count):
                errors += (1 if i == j else 2) * weight**2 * gram[:, subsets[:, i], subsets[:, j]]
        return errors

    def errors_with_each(self, subset: Sequence[int], weight: float | None = None) -> Tensor:
        """Errors (S, M) of some atoms and one more, for each atom as the one more; all have the same weight.

        >>> form = QuadraticForm.of(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[2.0, 1.0]]))
        >>> form.errors_with_each([0]).tolist()  # the first atom twice, and both atoms
        [[1.0, 1.0]]
        """
        weight = self.weight(len(subset) + 1) if weight is None else weight
        # sum over the subset of G_im, for each atom m
        inner = torch.zeros_like(self.b)
        if len(subset):
            inner = torch.stack([self.column(i) for i in subset]).sum(0)
        # J of the subset, and what one atom more changes: -2 b_m, G_mm and twice its products with the subset
        return self.errors(subset, weight)[:, None] - 2 * weight * self.b + weight**2 * (self.diagonal + 2 * inner)

    def weighted_errors(self, weights: Tensor) -> Tensor:
        """Errors (N, S) of weightings (N, M), differentiable in the weights.

        >>> form = QuadraticForm.of(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[2.0, 1.0]]))
        >>> form.weighted_errors(torch.tensor([[2.0, 1.0]])).tolist()  # the target itself
        [[0.0]]
        """
        w = weights.to(self.b)
        if self._gram is not None or w.requires_grad:
            b = self.b
            gram = self.gram()
        else:
            # Columns of weight 0 need not be computed, where no gradient asks for them
            used = w.ne(0).any(0).nonzero()[:, 0].tolist()
            w = w[:, used]
            b = self.b[:, used]
            gram = self.gram(used)
        # J = c - 2 b.w + w.G w
        return self.c - 2 * w @ b.T + torch.einsum("nm,smk,nk->ns", w, gram, w)

    def mean_objectives(self, subsets: Sequence[Sequence[int]]) -> Tensor:
        """The mean `objective` (N,) of N subsets of K atoms each.

        >>> form = QuadraticForm.of(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[2.0, 1.0]]))
        >>> form.mean_objectives([[0], [1]]).tolist()
        [2.0, 4.0]
        """
        weights = torch.zeros(len(subsets), len(self), dtype=torch.float64)
        for row, members in zip(weights, subsets, strict=True):
            row[list(members)] = self.weight(len(members))
        return self.with_prior(self.weighted_errors(weights).mean(1), subsets)

    def mean(self) -> QuadraticForm:
        """The form of the mean error over all draws, as one draw and without atoms.

        >>> form = QuadraticForm.of(torch.eye(2)[None].repeat(3, 1, 1), torch.tensor([[2.0, 1.0]] * 3))
        >>> form.draws, form.mean().draws, form.mean().errors([0]).item()
        (3, 1, 2.0)
        """
        b, gram, c = (part.mean(0, keepdim=True) for part in (self.b, self.gram(), self.c))
        return QuadraticForm(b, gram, c, prior=self.prior, weighting=self.weighting)

    def cat(self, other: QuadraticForm) -> QuadraticForm:
        """The draws of both forms over the same atoms; atoms are kept if both have them.

        >>> form = QuadraticForm.of(torch.eye(2)[None], torch.tensor([[2.0, 1.0]]))
        >>> form.cat(form).draws
        2
        """
        b = torch.cat([self.b, other.b])
        c = torch.cat([self.c, other.c])
        kept: dict[str, Any] = {"prior": self.prior or other.prior, "weighting": self.weighting or other.weighting}
        # Without the atoms of both, the Gram matrices are computed now; with them, when they are asked for
        if self._atoms is None or other._atoms is None:
            return QuadraticForm(b, torch.cat([self.gram(), other.gram()]), c, **kept)
        atoms = torch.cat([self.atoms, other.atoms])
        target = torch.cat([self.target, other.target])
        return QuadraticForm(b, None, c, atoms=atoms, target=target, **kept)

    def explained(self) -> tuple[Tensor, Tensor | None]:
        """What `Problem.explained` gives under the rule product of all atoms, (S, P) and (M, P).

        >>> QuadraticForm.of(torch.eye(2)[None], torch.tensor([[2.0, 1.0]])).explained()
        (tensor([[1., 0.]]), tensor([[3., 0.],
                [0., 1.]]))
        """
        # r = target - sum of the atoms
        left = self.target - self.atoms.sum(1)
        if not len(self):
            return left, None
        # R_k = mean of (r + e_k)^2 - r^2
        return left, ((left[:, None] + self.atoms).square() - left.square()[:, None]).mean(0)

    def on(self, draws: slice) -> QuadraticForm:
        """The form on some of its draws.

        >>> form = QuadraticForm.of(torch.eye(2)[None].repeat(3, 1, 1), torch.tensor([[2.0, 1.0]] * 3))
        >>> form.on(slice(1, 3)).draws
        2
        """
        atoms = self.atoms[draws]
        target = self.target[draws]
        kept: dict[str, Any] = {"prior": self.prior, "weighting": self.weighting}
        return QuadraticForm(self.b[draws], None, self.c[draws], atoms=atoms, target=target, **kept)

    def append(self, other: QuadraticForm) -> QuadraticForm:
        """The form over both sets of atoms, on the same draws; known columns are completed when asked for.

        >>> first, second = (QuadraticForm.of(atom[None, None], torch.tensor([[2.0, 1.0]])) for atom in torch.eye(2))
        >>> first.append(second).errors([0, 1]).item()  # (2 - 1)^2 + (1 - 1)^2
        1.0
        """
        if self.target.shape != other.target.shape:
            raise InputError("got forms of different draws; expected one noise bank for both")
        # Columns that are known lack the rows of the new atoms, which `_complete` computes
        atoms = torch.cat([self.atoms, other.atoms], dim=1)
        b = torch.cat([self.b, other.b], dim=1)
        known = dict(self._columns)
        prior = None
        if self.prior is not None and other.prior is not None:
            prior = self.prior.of(torch.cat([self.prior.atoms, other.prior.atoms]))
        kept: dict[str, Any] = {"prior": prior, "weighting": self.weighting}
        return QuadraticForm(b, None, self.c, atoms=atoms, target=self.target, columns=known, **kept)

    def take(self, indices: Sequence[int] | Tensor) -> QuadraticForm:
        """The form over some of the atoms.

        >>> form = QuadraticForm.of(torch.eye(2)[None], torch.tensor([[2.0, 1.0]]))
        >>> len(form.take([1])), form.take([1]).errors([0]).item()
        (1, 4.0)
        """
        b = self.b[:, indices]
        prior = None if self.prior is None else self.prior.of(self.prior.atoms[indices])
        kept: dict[str, Any] = {"prior": prior, "weighting": self.weighting}
        if self._atoms is None:
            return QuadraticForm(b, self.gram()[:, indices][:, :, indices], self.c, **kept)
        return QuadraticForm(b, None, self.c, atoms=self.atoms[:, indices], target=self.target, **kept)

    def without_atoms(self) -> QuadraticForm:
        """The form with its full Gram matrix and without atoms, on the CPU."""
        kept: dict[str, Any] = {"prior": self.prior, "weighting": self.weighting}
        return QuadraticForm(self.b.cpu(), self.gram().cpu(), self.c.cpu(), **kept)

    def column(self, index: int) -> Tensor:
        """G[:, :, index], (S, M).

        >>> QuadraticForm.of(torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]), torch.zeros(1, 2)).column(1).tolist()
        [[1.0, 2.0]]
        """
        if self._gram is not None:
            return self._gram[:, :, index]
        self._complete([index])
        return self._columns[index]

    def gram(self, indices: Sequence[int] | None = None) -> Tensor:
        """G over some atoms (all when left out), (S, m, m).

        >>> QuadraticForm.of(torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]), torch.zeros(1, 2)).gram().tolist()
        [[[1.0, 1.0], [1.0, 2.0]]]
        """
        if self._gram is not None:
            return self._gram if indices is None else self._gram[:, list(indices)][:, :, list(indices)]
        chosen = list(range(len(self))) if indices is None else list(indices)
        if not chosen:
            return self.b.new_zeros(self.draws, 0, 0)
        self._complete(chosen)
        return torch.stack([self._columns[i][:, chosen] for i in chosen], dim=2)

    def _complete(self, indices: Sequence[int]) -> None:
        """Computes what is missing of some columns, in one pass over the atoms for all that lack the same rows."""
        # Which columns lack how many rows: those that lack the same rows share a pass
        missing: dict[int, list[int]] = {}
        for index in dict.fromkeys(indices):
            known = self._columns[index].shape[1] if index in self._columns else 0
            if known < len(self):
                missing.setdefault(known, []).append(index)
        # The rows that are missing, appended to those that are known
        for start, group in missing.items():
            part = torch.stack([inner_products(a[start:], a[group]) for a in self.atoms])  # (S, M - start, m)
            for place, index in enumerate(group):
                head = self._columns[index] if start else part[:, :0, place]
                self._columns[index] = torch.cat([head, part[:, :, place]], dim=1)


def with_each(subset: Sequence[int], atoms: int) -> Tensor:
    """Some of M atoms and each one more, (M, K + 1).

    >>> with_each([1], 2).tolist()
    [[1, 0], [1, 1]]
    """
    return torch.cat([torch.tensor(list(subset)).long().expand(atoms, -1), torch.arange(atoms)[:, None]], dim=1)


def _held(part: Tensor | None) -> Tensor:
    if part is None:
        raise InputError("got a form without atoms; expected one that holds them; make it with `QuadraticForm.of`")
    return part
