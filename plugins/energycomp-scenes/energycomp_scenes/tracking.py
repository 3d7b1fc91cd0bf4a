"""Videos read by composition: the last reading, moved, is the prior of the next frame.

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

An object with less than `SEEN` nats of evidence is hidden: it keeps its identity and moves on. It is seen again once it
has evidence where it should be, or where its words explain what the composition leaves; so are objects that are new.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import torch
from PIL import Image
from torch import Tensor

from energycomp.components import MixedSupport, mixed_of
from energycomp.errors import InputError
from energycomp.images import as_text, overlay, rich_table, table_cells
from energycomp.inference import NoiseBank, Problem, QuadraticForm, infer, make_problem, paired, view_of
from energycomp.models import Model
from energycomp.progress import progress as shown_progress
from energycomp.seeds import derived_seed

DRAWS, SIDE, STEP, STEPS = 4, 8, 0.01, 2  # of each of two banks; points of a lattice a side; differences; of Newton
TEMPER, JERK = 6.0, 0.003  # of places; how much a velocity changes in a frame, std
START = (0.005, 0.03)  # std of the place and of the velocity of an object that was just found
SEEN, NEW, SETTLED = 7.0, 10.0, 2.0  # nats: of what is seen, against what is new, and of a step that another follows
LOCAL, NEAR = (-2.0, -1.0, 0.0, 1.0, 2.0), 0.02  # where a hidden object is sought, in std, and the least std of these
APART, P_VALUE = 0.04, 0.05  # of what is new: from other objects, in shares of the image, and of the paired test
PATIENCE, FORGET = 30, 0.9  # frames; share of the evidence of words that is left after a frame


@attrs.frozen(eq=False)
class Tracked:
    """An object in one frame, which the prior of the next frame is made of.

    Args:
        identity: from 1, the same in all frames.
        place, velocity, spread: of the posterior, or of the prior where the object is hidden.
        words: log posterior (n,) of the words of each attribute, of all frames.
        evidence, usual: in nats, of this frame, and a mean of those in which it was visible.
        visible: whether it was found in this frame.
        seen, unseen: frames in which it was visible, and those since then.
    """

    identity: int
    place: Tensor
    velocity: Tensor
    spread: Tensor
    words: tuple[Tensor, ...]
    evidence: float
    usual: float
    visible: bool = True
    seen: int = 1
    unseen: int = 0

    @classmethod
    def new(cls, identity: int, place: Tensor, words: Iterable[Tensor], evidence: float) -> Tracked:
        """An object that was just found."""
        spread = torch.tensor([START[0] ** 2, 0.0, START[1] ** 2]).repeat(2, 1)
        return cls(identity, place, torch.zeros(2), spread, tuple(words), evidence, evidence)

    @property
    def codes(self) -> Tensor:
        """The most likely word of each attribute, (A,) from 1."""
        return torch.tensor([float(each.argmax()) + 1 for each in self.words])

    @property
    def certainty(self) -> list[float]:
        """The posterior of these words."""
        return [float(each.softmax(0).max()) for each in self.words]

    @property
    def gone(self) -> bool:
        """Whether it left the image while it was hidden, or was hidden for too long."""
        outside = bool(((self.place < 0) | (self.place > 1)).any())
        return not self.visible and (outside or self.unseen > min(PATIENCE, 4 * self.seen))

    def moved(self) -> Tracked:
        """The prior of the next frame."""
        xx, xv, vv = self.spread.unbind(1)
        grown = torch.stack([xx + 2 * xv + vv, xv + vv, vv], dim=1)
        return attrs.evolve(
            self, place=self.place + self.velocity, spread=grown + JERK**2 * torch.tensor([0.25, 0.5, 1.0])
        )

    def found(self, place: Tensor, precision: Tensor, evidence: float) -> Tracked:
        """The posterior after the prior, at a place and with what the image adds to its precision, both (2,)."""
        xx, xv, vv = self.spread.unbind(1)
        share = max(min(1.0, evidence / self.usual), 0.0) ** 2
        whole, part = (xx * factor * precision for factor in (1.0, share))
        left = 1 / (1 + part)  # of the variance of the place
        move = (place - self.place) * (share * (1 + whole) * left)
        spread = torch.stack([xx * left, xv * left, vv - xv.square() / xx * (1 - left)], dim=1)
        usual = self.usual + (evidence - self.usual) / min(self.seen + 1, 5) * (0.2 if share < 1 else 1.0)
        return attrs.evolve(
            self, place=self.place + move, velocity=self.velocity + xv / xx * move, spread=spread, evidence=evidence,
            usual=usual, visible=True, seen=self.seen + 1, unseen=0,
        )  # fmt: skip

    def hidden(self, evidence: float) -> Tracked:
        """The prior as it is: nothing is seen of the object."""
        return attrs.evolve(self, evidence=evidence, visible=False, unseen=self.unseen + 1)

    def reading(self, errors: Tensor, attribute: int, beta: float) -> Tracked:
        """With the errors (n,) of the words of an attribute added to what is known of them."""
        words = list(self.words)
        words[attribute] = torch.log_softmax(words[attribute] - beta * errors.to(words[attribute]), 0)
        return attrs.evolve(self, words=tuple(words))

    def forgetting(self) -> Tracked:
        """With a part of what is known of the words, so that each is looked at again."""
        return attrs.evolve(self, words=tuple(torch.log_softmax(FORGET * each, 0) for each in self.words))

    def state(self) -> dict[str, Any]:
        """JSON data, which `of` takes back."""
        return attrs.asdict(
            self, recurse=False, value_serializer=lambda _, field, value: (
                [each.tolist() for each in value] if field and field.name == "words"
                else value.tolist() if isinstance(value, Tensor) else value
            ),
        )  # fmt: skip

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Tracked:
        """The object of a state."""
        tensors = {name: torch.tensor(state[name]) for name in ("place", "velocity", "spread")}
        return cls(**{**state, **tensors, "words": tuple(map(torch.tensor, state["words"]))})


@attrs.frozen(eq=False)
class _Frame:
    """A frame and the objects as they are expected: one bank of draws moves and finds them, the other one judges."""

    problem: Problem
    expected: Sequence[Tracked]
    first: NoiseBank
    second: NoiseBank

    @property
    def beta(self) -> float:
        return self.problem.beta or 1.0

    @property
    def words(self) -> tuple[int, ...]:
        """How many words each attribute has."""
        return () if self.problem.mixed is None else self.problem.mixed.words

    @cached_property
    def places(self) -> Tensor:
        return torch.stack([torch.zeros(2), *(each.place.clamp(0, 1) for each in self.expected)])[1:]

    @cached_property
    def codes(self) -> Tensor:
        return torch.stack([torch.zeros(len(self.words)), *(each.codes for each in self.expected)])[1:]

    @cached_property
    def spread(self) -> Tensor:
        """Variances of the places (K, 2)."""
        return torch.stack([torch.ones(2), *(each.spread[:, 0] for each in self.expected)])[1:]

    def form(self, places: Tensor, codes: Tensor, bank: NoiseBank) -> QuadraticForm:
        """Of places (N, 2) and codes (N, A), or (A,) for all."""
        mixed, codes = self.problem.mixed, codes.expand(len(places), -1)
        return self.problem.quadratic(places if mixed is None else mixed.joined(places, codes), bank)

    def move(self) -> tuple[Tensor, Tensor, list[int], QuadraticForm]:
        """Places (K, 2), what the image adds to the precision of each, the objects that take part, and the form."""
        places, prior, beta = self.places, self.places, self.beta / TEMPER
        form, precision, pull = self.form(places, self.codes, self.first), 0 * places, 0.5 / beta / self.spread.double()
        part = [k for k, each in enumerate(self.expected) if each.visible]
        helps = form.errors_with_each(part).mean(0) < form.errors(part).mean()
        part = sorted({*part, *_indices(helps)})
        for _ in range(STEPS if part else 0):
            sizes, codes = _inward(places[part]), self.codes[part].repeat_interleave(2, 0)
            near = places[part][:, None] + torch.diag_embed(sizes)  # (k, 2, 2)
            both = form.append(self.form(near.flatten(0, 1), codes, self.first))
            gradient, hessian = _slopes(both, part, part, sizes)
            away = pull * (places - prior)
            total = hessian + torch.diag(pull[part].flatten())
            step = torch.linalg.solve(total, gradient - away[part].flatten()).view(-1, 2).to(places)
            reach = 3 * self.spread[part].sqrt()
            precision = precision.index_put((torch.tensor(part),), (2 * beta * hessian.diagonal()).view(-1, 2).to(places))
            moved = places.index_put((torch.tensor(part),), (places[part] + step.clamp(-reach, reach)).clamp(0, 1))
            after = self.form(moved, self.codes, self.first)
            gained = float(form.errors(part).mean() - after.errors(part).mean())
            gained += float((pull * ((places - prior).square() - (moved - prior).square())).sum())
            if gained > 0:
                places, form = moved, after
            if gained * self.beta < SETTLED:
                break
        return places, precision, part, form

    def judge(self, places: Tensor, part: Sequence[int]) -> tuple[QuadraticForm, list[float], list[int]]:
        """The form on the second bank, evidence, and the objects that are seen: others are dropped one by one."""
        form, evidence, seen = self.form(places, self.codes, self.second), [0.0] * len(places), list(part)
        while seen:
            whole = form.errors(seen).mean()
            for k in seen:
                evidence[k] = self.beta * float(form.errors([j for j in seen if j != k]).mean() - whole)
            least = min(seen, key=evidence.__getitem__)
            if evidence[least] >= SEEN:
                break
            seen.remove(least)
        return form, evidence, seen

    def find(
        self, form: QuadraticForm, judged: QuadraticForm, seen: Sequence[int], corner: Sequence[float]
    ) -> tuple[Tensor, float, int | None] | None:
        """Where something is seen that is not explained, its evidence, and which hidden object it is; None for nothing.

        One draw screens a lattice with all attributes open, and places about those of hidden objects with their words.

        Args:
            corner: offset of the lattice, in shares of the distance of its points.
        """
        lost = [k for k in range(len(self.expected)) if k not in seen]
        ticks, near = torch.arange(SIDE), torch.cartesian_prod(*[torch.tensor(LOCAL)] * 2)
        places = [(torch.cartesian_prod(ticks, ticks) + torch.tensor(corner)) / SIDE]
        places += [self.places[k] + near * self.spread[k].sqrt().clamp(min=NEAR) for k in lost]
        owner = torch.tensor([-1] * SIDE**2 + [k for k in lost for _ in near])
        codes = torch.cat([self.codes, torch.zeros(1, len(self.words))])  # the last one for -1
        screened = torch.cat(places).clamp(0, 1)
        screen = form.first().append(self.form(screened, codes[owner], self.first[:1]))
        gains = self.beta * (screen.errors(seen)[:, None] - screen.errors_with_each(seen))[0, len(form) :]
        gains = gains - NEW * (owner < 0)
        best = int(gains.argmax())
        if gains[best] <= -NEW:
            return None
        place, own = screened[[best]], codes[owner[best]]
        sizes = _inward(place)
        both = form.append(self.form(torch.cat([place, place + torch.diag_embed(sizes)[0]]), own, self.first))
        gradient, hessian = _slopes(both, [*seen, len(form)], [len(form)], sizes)
        step = torch.linalg.solve(hessian + 1e-3 * hessian.diagonal().mean() * torch.eye(2), gradient).to(place)
        place = (place + step.clamp(-0.5 / SIDE, 0.5 / SIDE)).clamp(0, 1)
        options = torch.cat([codes[-1:], codes[lost]])
        found = judged.append(self.form(place.expand(len(options), -1), options, self.second))
        before, after = found.errors(seen), found.errors_with_each(seen)[:, len(judged) :]
        surprise = ((place - self.places[lost]).square() / self.spread[lost].clamp(min=NEAR**2)).sum(1) / 2
        which = int((self.beta * after.mean(0) + torch.cat([torch.tensor([NEW]), surprise.clamp(max=NEW)])).argmin())
        evidence = self.beta * float((before - after[:, which]).mean())
        crowded = bool((torch.cdist(place, self.places[seen]) < APART).any())
        if evidence < SEEN or paired(after[:, which], before)[2] > P_VALUE or (which == 0 and (evidence < SEEN + NEW or crowded)):
            return None
        return place[0], evidence, lost[which - 1] if which else None

    def read(self, judged: QuadraticForm, others: Sequence[int], place: Tensor, codes: Tensor, attribute: int) -> Tensor:
        """Mean errors (n,) of an object with each word of an attribute, beside others. Costs n rows a draw."""
        number = self.words[attribute]
        options = codes.repeat(number, 1)
        options[:, attribute] = torch.arange(number) + 1.0
        form = judged.append(self.form(place.expand(number, -1), options, self.second))
        return form.errors_with_each(others).mean(0)[len(judged) :]


def _indices(mask: Tensor) -> list[int]:
    return [int(k) for k in mask.nonzero()[:, 0]]


def _inward(places: Tensor) -> Tensor:
    """Small steps towards the middle."""
    return STEP * (1 - 2 * (places > 0.5).to(places))


def _slopes(form: QuadraticForm, chosen: Sequence[int], moved: Sequence[int], sizes: Tensor) -> tuple[Tensor, Tensor]:
    """D.r and D.D: the last 2 k atoms are those of `moved` with one of two numbers changed by its size (k, 2)."""
    number, start = torch.arange(sizes.numel()), len(form) - sizes.numel()
    mean, w = form.mean(), torch.zeros(len(form), dtype=torch.float64)
    w[list(chosen)] = 1.0
    difference = torch.zeros(len(number), len(form), dtype=torch.float64)
    difference[number, start + number] = 1 / sizes.flatten().double()
    difference[number, torch.tensor(moved).repeat_interleave(2)] = -1 / sizes.flatten().double()
    b, gram = mean.b[0].cpu(), mean.gram()[0].cpu()
    return difference @ (b - gram @ w), difference @ gram @ difference.T


@attrs.frozen(eq=False)
class TrackedFrame:
    """What was read of one frame.

    Args:
        index: of the frame, from 0.
        objects: hidden ones included.
        rows: network evaluations.
        known: the greatest identity so far.
    """

    index: int
    objects: tuple[Tracked, ...]
    rows: int
    known: int


def track_frame(image: Any, model: Model, before: TrackedFrame | None = None, *, seed: int = 0) -> TrackedFrame:
    """Reads a frame of a video, from what was read of the one before; the first one as `infer` does."""
    if before is None:
        return _first(image, model, seed)
    generator = torch.Generator().manual_seed(derived_seed(seed, before.index + 1))
    problem = make_problem(model.encode(model.given(image)), model)
    low = [problem.draw(3 * DRAWS, generator)[:DRAWS] for _ in range(2)]
    expected = [each for each in (one.moved() for one in before.objects) if not each.gone]
    frame, index, known = _Frame(problem, expected, *low), before.index + 1, before.known
    places, precision, part, form = frame.move()
    judged, evidence, seen = frame.judge(places, part)
    objects = [
        each.found(places[k], precision[k], evidence[k]) if k in seen else each.hidden(evidence[k])
        for k, each in enumerate(expected)
    ]
    found = frame.find(form, judged, seen, (0.25 + index % 2 / 2, 0.25 + index // 2 % 2 / 2))
    if found is not None and found[2] is not None:
        k = found[2]
        objects[k] = expected[k].found(found[0], torch.full((2,), START[0] ** -2), max(found[1], expected[k].usual))
    elif found is not None:
        known += 1
        one = Tracked.new(known, found[0], [torch.zeros(n) for n in frame.words], found[1])
        codes = torch.zeros(len(frame.words))
        for attribute in range(len(frame.words)):
            one = one.reading(frame.read(judged, seen, one.place, codes, attribute), attribute, frame.beta)
            codes[attribute] = one.codes[attribute]
        objects.append(one)
    elif seen and frame.words:
        clear = [k for k in seen if evidence[k] > objects[k].usual / 2] or seen
        k, attribute = min(((k, a) for k in clear for a in range(len(frame.words))), key=lambda at: objects[at[0]].certainty[at[1]])
        others = [j for j in seen if j != k]
        errors = frame.read(judged, others, places[k], frame.codes[k], attribute)
        objects[k] = objects[k].reading(errors, attribute, frame.beta)
    return TrackedFrame(index, tuple(one.forgetting() for one in objects), problem.rows, known)


def _first(image: Any, model: Model, seed: int) -> TrackedFrame:
    solution, mixed, objects = infer(image, model, generator=seed, progress=False), mixed_of(model.conditioner), []
    for k, value in enumerate(solution.conditions.cpu()):
        words = []
        for attribute, number in enumerate(() if mixed is None else mixed.support.words):
            sure = 0.9 if solution.certainty is None else min(float(solution.certainty[k, attribute].nan_to_num(0.9)), 1 - 1e-4)
            log = torch.full((number,), math.log((1 - sure) / (number - 1)))
            log[int(value[2 + attribute]) - 1] = math.log(sure)
            words.append(log)
        gain = float(solution.component_gain[k]) if solution.component_gain is not None else math.inf
        objects.append(Tracked.new(k + 1, value[:2], words, (model.defaults.beta or 1.0) * gain))
    return TrackedFrame(0, tuple(objects), solution.rows, len(objects))
