"""One frame of a video: objects where they are expected are moved, judged, found again, and read.

Notation: variable -> symbol
    place, velocity     x, v: of an object, in shares of the image, and in these per frame
    spread              P (2, 3): for each axis the variance of x, the covariance of x and v, and the variance of v
    difference          D, the change of the composed prediction per unit of a number of a place
    hessian             H = D.D; J is nearly quadratic in a place, with the second derivative 2 H
    beta                inverse temperature of places, that of the model / `TEMPER`: draws of one frame share its errors
    evidence            beta_model (J without an object - J) in nats, on draws that did not move it
    share               s = min(1, evidence / its usual value)^2: what is covered in part seems to be elsewhere

    x <- x + v,  P <- F P F' + Q                              objects move at a constant speed, nearly
    x <- argmin J(x) + |x - x_prior|^2 / (2 beta P_xx)        Gauss-Newton steps, all objects at once
    v <- v + P_xv / P_xx (x - x_prior),  1 / P_xx <- 1 / P_xx + 2 s beta H      the Kalman filter
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import attrs
import torch
from torch import Tensor

from energycomp.inference import NoiseBank, Problem, QuadraticForm, paired
from energycomp_scenes.tracked import SEEN, Tracked

DRAWS = 4  # of each of the two banks
SIDE = 8  # points of the lattice along each side of the image
STEP = 0.01  # over which differences are taken, in shares of the image
STEPS = 2  # most Gauss-Newton steps
TEMPER = 6.0  # of places
SETTLED = 2.0  # nats that a step has to gain for another one to follow
NEW = 10.0  # nats against what is new
LOCAL = (-2.0, -1.0, 0.0, 1.0, 2.0)  # where an object is sought around the place where it is expected, in std
NEAR = 0.02  # std from which on it is sought, and the least one for hidden objects
APART = 0.04  # least distance of what is new from other objects, in shares of the image
P_VALUE = 0.05  # of the paired test of what is found


class Explained(NamedTuple):
    """What explains a frame: forms on both banks, the places (K, 2) of their atoms, and which of these take part."""

    form: QuadraticForm
    judged: QuadraticForm
    places: Tensor
    seen: list[int]


class Found(NamedTuple):
    """Where something is found (2,), its evidence in nats, and which hidden object it is; None for a new one."""

    place: Tensor
    evidence: float
    which: int | None


@attrs.frozen(eq=False)
class Sighting:
    """A frame and the objects as they are expected: one bank of draws moves and finds them, the other one judges."""

    problem: Problem
    expected: Sequence[Tracked]
    first: NoiseBank
    second: NoiseBank

    @property
    def beta(self) -> float:
        """Of the model; 1 where it has none."""
        return self.problem.posterior.beta or 1.0

    @property
    def words(self) -> tuple[int, ...]:
        """How many words each attribute has."""
        return () if self.problem.mixed is None else self.problem.mixed.words

    @property
    def places(self) -> Tensor:
        """(K, 2), inside of the image."""
        return _stack([each.place.clamp(0, 1) for each in self.expected], 2)

    @property
    def codes(self) -> Tensor:
        """(K, A)."""
        return _stack([each.codes for each in self.expected], len(self.words))

    @property
    def variances(self) -> Tensor:
        """Of the places, (K, 2)."""
        return _stack([each.spread[:, 0] for each in self.expected], 2)

    def form(self, places: Tensor, codes: Tensor, bank: NoiseBank) -> QuadraticForm:
        """Over places (N, 2) with codes (N, A), or (A,) for all. Costs N rows a draw."""
        mixed = self.problem.mixed
        codes = codes.expand(len(places), -1)
        return self.problem.quadratic(places if mixed is None else mixed.joined(places, codes), bank)

    def move(self) -> tuple[Tensor, Tensor, list[int], QuadraticForm]:
        """Places (K, 2), what the image adds to the precision of each, the objects that take part, and the form."""
        # Those that were seen take part, and those that lower the error where they are expected
        places = prior = self.places
        codes = self.codes
        form = self.form(places, codes, self.first)
        part = [k for k, each in enumerate(self.expected) if each.visible]
        helps = form.errors_with_each(part).mean(0) < form.errors(part).mean()
        part = sorted({*part, *helps.nonzero()[:, 0].tolist()})
        # Half the second derivative of the term of the prior, in the unit of errors
        variances = self.variances
        beta = self.beta / TEMPER
        pull = 0.5 / beta / variances.double()
        precision = 0 * places
        # Steps are short: objects that may have moved far start from the best place of a lattice
        places = self._start(form, part, pull)
        if not torch.equal(places, prior):
            form = self.form(places, codes, self.first)
        for _ in range(STEPS if part else 0):
            # A Gauss-Newton step of all that take part, of at most 3 standard deviations
            sizes = _inward(places[part])
            near = (places[part][:, None] + torch.diag_embed(sizes)).flatten(0, 1)
            both = form.append(self.form(near, codes[part].repeat_interleave(2, 0), self.first))
            gradient, hessian = _slopes(both, part, part, sizes)
            gradient = gradient - (pull * (places - prior))[part].flatten()
            step = torch.linalg.solve(hessian + torch.diag(pull[part].flatten()), gradient).view(-1, 2).to(places)
            reach = 3 * variances[part].sqrt()
            index = (torch.tensor(part),)
            precision = precision.index_put(index, (2 * beta * hessian.diagonal()).view(-1, 2).to(places))
            moved = places.index_put(index, (places[part] + step.clamp(-reach, reach)).clamp(0, 1))
            # Take it where it lowers error and prior together; another one follows a step that gains much
            after = self.form(moved, codes, self.first)
            gained = float(form.errors(part).mean() - after.errors(part).mean())
            gained += float((pull * ((places - prior).square() - (moved - prior).square())).sum())
            if gained > 0:
                places = moved
                form = after
            if gained * self.beta < SETTLED:
                break
        return places, precision, part, form

    def _start(self, form: QuadraticForm, part: Sequence[int], pull: Tensor) -> Tensor:
        """Places (K, 2): those that are expected, or, of an object that is not surely there, the best one around it."""
        places = self.places
        spreads = self.variances.sqrt()
        unsure = [k for k in part if spreads[k].max() > NEAR]
        if not unsure:
            return places
        around = torch.cartesian_prod(*[torch.tensor(LOCAL)] * 2)
        options = torch.stack([places[k] + around * spreads[k] for k in unsure]).clamp(0, 1)
        owner = torch.tensor(unsure).repeat_interleave(len(around))
        screen = form.on(slice(1)).append(self.form(options.flatten(0, 1), self.codes[owner], self.first[:1]))
        # One after another, those of which most is seen first, each beside the places chosen so far
        chosen = {k: k for k in part}
        for row in sorted(range(len(unsure)), key=lambda row: -self.expected[unsure[row]].evidence):
            k = unsure[row]
            start = len(form) + row * len(around)
            errors = screen.errors_with_each([chosen[j] for j in part if j != k])[0, start : start + len(around)]
            best = int((errors + (pull[k] * (options[row] - places[k]).square()).sum(1)).argmin())
            chosen[k] = start + best
        moved = places.clone()
        for row, k in enumerate(unsure):
            moved[k] = options[row, chosen[k] - len(form) - row * len(around)]
        return moved

    def judge(self, places: Tensor, part: Sequence[int]) -> tuple[QuadraticForm, list[float], list[int]]:
        """The form on the second bank, evidence, and the objects that are seen: others are dropped one by one."""
        form = self.form(places, self.codes, self.second)
        evidence = [0.0] * len(places)
        seen = list(part)
        while seen:
            whole = form.errors(seen).mean()
            for k in seen:
                evidence[k] = self.beta * float(form.errors([j for j in seen if j != k]).mean() - whole)
            least = min(seen, key=evidence.__getitem__)
            if evidence[least] >= SEEN:
                break
            seen.remove(least)
        return form, evidence, seen

    def find(self, view: Explained, lost: Sequence[int], corner: Sequence[float]) -> Found | None:
        """Something that is seen and not explained; None for nothing.

        One draw screens a lattice with all attributes open, and places about those of hidden objects with their words.
        The best one is moved by a Gauss-Newton step, and compared on the second bank as each of the hidden objects,
        with the surprise of its place, and as a new one. It is accepted by a paired test.
        """
        form, judged, _, seen = view
        found = self._screen(view, lost, corner)
        if found is None:
            return None
        place, own = found
        # Move it by a Gauss-Newton step, of at most half a distance of the lattice
        sizes = _inward(place)
        near = torch.cat([place, place + torch.diag_embed(sizes)[0]])
        both = form.append(self.form(near, own, self.first))
        gradient, hessian = _slopes(both, [*seen, len(form)], [len(form)], sizes)
        step = torch.linalg.solve(hessian + 1e-3 * hessian.diagonal().mean() * torch.eye(2), gradient).to(place)
        place = (place + step.clamp(-0.5 / SIDE, 0.5 / SIDE)).clamp(0, 1)
        # Compare it on the second bank: as a new object, and as each of the hidden ones
        known = _stack([self.expected[k].sure for k in lost], len(self.words))
        options = torch.cat([torch.zeros(1, len(self.words)), known])
        compared = judged.append(self.form(place.expand(len(options), -1), options, self.second))
        before = compared.errors(seen)
        after = compared.errors_with_each(seen)[:, len(judged) :]
        surprise = ((place - self.places[lost]).square() / self.variances[lost].clamp(min=NEAR**2)).sum(1) / 2
        cost = self.beta * after.mean(0) + torch.cat([torch.tensor([NEW]), surprise.clamp(max=NEW)])
        which = int(cost.argmin())
        # Accept it by its evidence, by a paired test, and, of a new one, by its distance from other objects
        evidence = self.beta * float((before - after[:, which]).mean())
        p_value = paired(after[:, which], before)[2]
        least = SEEN + (NEW if which == 0 else 0.0)
        crowded = which == 0 and bool((torch.cdist(place, view.places[seen]) < APART).any())
        if evidence < least or p_value > P_VALUE or crowded:
            return None
        return Found(place[0], evidence, lost[which - 1] if which else None)

    def _screen(self, view: Explained, lost: Sequence[int], corner: Sequence[float]) -> tuple[Tensor, Tensor] | None:
        """The place (1, 2) and the codes (A,) that explain most by one draw; None where nothing explains enough."""
        # A lattice, with all attributes open: the last row of the codes
        lattice = (torch.cartesian_prod(*[torch.arange(SIDE)] * 2) + torch.tensor(corner)) / SIDE
        codes = torch.cat([self.codes, torch.zeros(1, len(self.words))])
        # Around each hidden object, with its words
        around = torch.cartesian_prod(*[torch.tensor(LOCAL)] * 2)
        spreads = self.variances.sqrt().clamp(min=NEAR)
        places = torch.cat([lattice, *(self.places[k] + around * spreads[k] for k in lost)]).clamp(0, 1)
        owner = torch.tensor([-1] * len(lattice) + [k for k in lost for _ in around])
        # What each adds to the objects that are seen, in nats
        screen = view.form.on(slice(1)).append(self.form(places, codes[owner], self.first[:1]))
        gains = screen.errors(view.seen)[:, None] - screen.errors_with_each(view.seen)
        gains = self.beta * gains[0, len(view.form) :] - NEW * (owner < 0)
        best = int(gains.argmax())
        return None if gains[best] <= -NEW else (places[[best]], codes[owner[best]])

    def with_found(self, view: Explained, found: Found) -> Explained:
        """What explains the frame, and a hidden object where it was found. Costs a row a draw of both banks."""
        place = found.place[None]
        codes = self.codes[[found.which]]
        form, judged = (
            each.append(self.form(place, codes, bank))
            for each, bank in ((view.form, self.first), (view.judged, self.second))
        )
        return Explained(form, judged, torch.cat([view.places, place]), [*view.seen, len(view.form)])

    def read(
        self, judged: QuadraticForm, others: Sequence[int], place: Tensor, codes: Tensor, attribute: int
    ) -> Tensor:
        """Mean errors (n,) of an object with each word of an attribute, beside others. Costs n rows a draw."""
        number = self.words[attribute]
        options = codes.repeat(number, 1)
        options[:, attribute] = torch.arange(number) + 1.0
        form = judged.append(self.form(place.expand(number, -1), options, self.second))
        return form.errors_with_each(others).mean(0)[len(judged) :]


def _stack(rows: list[Tensor], width: int) -> Tensor:
    """Rows (width,) of K objects as (K, width), also where there are none."""
    return torch.stack(rows) if rows else torch.zeros(0, width)


def _inward(places: Tensor) -> Tensor:
    """Small steps towards the middle of the image."""
    return STEP * (1 - 2 * (places > 0.5).to(places))


def _slopes(form: QuadraticForm, chosen: Sequence[int], moved: Sequence[int], sizes: Tensor) -> tuple[Tensor, Tensor]:
    """D.r and D.D: the last 2 k atoms are those of `moved`, with one of two numbers changed by its size (k, 2)."""
    number = torch.arange(sizes.numel())
    size = sizes.flatten().double()
    mean = form.mean()
    w = torch.zeros(len(form), dtype=torch.float64)
    w[list(chosen)] = 1.0
    difference = torch.zeros(len(number), len(form), dtype=torch.float64)
    difference[number, len(form) - len(number) + number] = 1 / size
    difference[number, torch.tensor(moved).repeat_interleave(2)] = -1 / size
    b = mean.b[0].cpu()
    gram = mean.gram()[0].cpu()
    return difference @ (b - gram @ w), difference @ gram @ difference.T
