"""Videos read by composition: the last reading, moved, is the prior of the next frame.

An object with less than `tracked.SEEN` nats of evidence is hidden: it keeps its identity and moves on. It is seen
again once it has evidence where it should be, or where its sure words explain what is left; so are objects that are
new. The words of objects are read on: one attribute a frame, the least certain one, adds to what is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from PIL import Image
from torch import Tensor

from energycomp.components import mixed_of
from energycomp.errors import InputError
from energycomp.images import as_picture, as_text, overlay, rich_table, save_frames, table_cells
from energycomp.inference import infer, make_problem
from energycomp.models import Model, model_of
from energycomp.progress import progress as shown
from energycomp.seeds import as_seed, derived_seed
from energycomp_scenes.sighting import DRAWS, Explained, Sighting
from energycomp_scenes.tracked import START, Tracked

GUESS = 0.9  # the posterior of a word, of a model without an inverse temperature


@attrs.frozen(eq=False)
class TrackedFrame:
    """What was read of one frame.

    Args:
        objects: hidden ones included, as rows of a table, JSON data.
        known: the greatest identity so far.
        state: of each object, for the next frame.
    """

    frame: int
    objects: tuple[dict[str, Any], ...]
    rows: int
    known: int
    state: tuple[Tracked, ...]

    def record(self) -> dict[str, Any]:
        """JSON data, which `of` takes back."""
        return attrs.asdict(self, value_serializer=lambda _, __, v: v.tolist() if isinstance(v, Tensor) else v)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> TrackedFrame:
        """The frame of a record."""
        known = {name: record[name] for name in attrs.fields_dict(cls)}
        state = [dict(one, words=tuple(map(torch.tensor, one["words"]))) for one in record["state"]]
        tensors = [{name: torch.tensor(one[name]) for name in ("place", "velocity", "spread")} for one in state]
        known["state"] = tuple(Tracked(**one | more) for one, more in zip(state, tensors, strict=True))
        return cls(**known | {"objects": tuple(record["objects"])})


@attrs.frozen(eq=False, repr=False)
class Track:
    """The objects of a video, with the same identity in all frames; it holds no model.

    >>> row = {"identity": 1, "x": 0.3, "y": 0.5, "visible": True}
    >>> frames = tuple(TrackedFrame(k, (row,), 100, 1, ()) for k in range(2))
    >>> found = Track(frames, (Image.new("RGB", (48, 32)),) * 2)
    >>> found.rows, found.table()[1]["frame"], found.picture(0, side=32).size
    ([100, 100], 1, (48, 32))
    """

    frames: tuple[TrackedFrame, ...]
    images: tuple[Image.Image, ...]

    @property
    def rows(self) -> list[int]:
        """Network evaluations of each frame."""
        return [frame.rows for frame in self.frames]

    def table(self) -> list[dict[str, Any]]:
        """A row per frame and object, JSON data: identity, place, words and their certainty, visibility and evidence.

        The place of a hidden object is where it is expected. The evidence is in nats.
        """
        return [{"frame": frame.frame, **row} for frame in self.frames for row in frame.objects]

    def picture(self, frame: int, *, side: int = 320) -> Image.Image:
        """A frame with the identity of each object; that of a hidden one in brackets, where it is expected."""
        rows = self.frames[frame].objects
        labels = [f"{row['identity']}" if row["visible"] else f"({row['identity']})" for row in rows]
        return overlay(self.images[frame], [(row["x"], row["y"]) for row in rows], labels, side=side)

    def save(self, path: str | Path, *, fps: float = 4.0) -> None:
        """Writes all pictures as a GIF or MP4 file, see `energycomp.images.save_frames`."""
        save_frames([self.picture(k) for k in range(len(self.frames))], path, fps=fps)

    def __repr__(self) -> str:
        return f"Track({self._summary()})"

    def _summary(self) -> str:
        number = max(frame.known for frame in self.frames)
        later = self.rows[1:]
        nfe = sum(later) / max(len(later), 1)
        return f"{len(self.frames)} frames, {number} objects, {nfe:.0f} network evaluations per later frame"

    def __str__(self) -> str:
        """A row per object: as it was when it was visible last, and the frames in which it was visible."""
        last: dict[int, dict[str, Any]] = {}
        for row in self.table():
            before = last.get(row["identity"], {"frames": []})
            frames = [*before["frames"], *([row["frame"]] if row["visible"] else [])]
            kept = {name: row[name] for name in row if name not in ("frame", "visible", "evidence")}
            last[row["identity"]] = {**(kept if row["visible"] else before), "frames": frames}
        rows = [{**row, "frames": _ranges(row["frames"])} for row in last.values()]
        return f"{as_text(rich_table(*table_cells(rows)))}\n{self._summary()}"


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in short."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def track(frames: Iterable[Any], model: Model | str | Path, *, generator: int = 0, progress: bool = True) -> Track:
    """Reads the frames of a video, each from what was read of the one before.

    The first frame costs what `infer` costs; a later one about 90 network evaluations, and 32 for each object, or 61
    while its velocity is not known. Each lost object that is found after another one in a frame costs about 115 more.

    Raises:
        InputError: fewer than two frames, frames of several sizes or that cannot be read, or a model without objects.

    >>> from energycomp.testing import planted, tinted_model
    >>> model = tinted_model(solver="pursuit", counts=(1, 2), beta=100.0)
    >>> red = [model.conditioner.parse(0.3 + 0.02 * k, 0.5, tint="red", width="wide") for k in range(3)]
    >>> found = track([planted(model, one)[0] / 2 + 0.5 for one in red], model)
    >>> [(row["identity"], row["tint"], round(row["x"], 2)) for row in found.table()]
    [(1, 'red', 0.3), (1, 'red', 0.32), (1, 'red', 0.34)]
    """
    model = check_model(model_of(model))
    seed = as_seed(generator)
    given = list(frames)
    pictures = [as_picture(image) for image in given]
    if len(given) < 2 or len({picture.size for picture in pictures}) > 1:
        sizes = sorted({f"{picture.width}x{picture.height}" for picture in pictures})
        got = f"got {len(given)} frames of {' and '.join(sizes) or 'no'} pixels"
        raise InputError(f"{got}; expected at least two of one size; use infer for one image")
    read: list[TrackedFrame] = []
    for image in shown(given, "tracking", unit="frame", show=progress):
        read.append(track_frame(image, model, read[-1] if read else None, seed=seed))
    return Track(tuple(read), tuple(model.shown(picture) for picture in pictures))


def check_model(model: Model) -> Model:
    """The model; raises `InputError` unless its components are places in an image, and their sum is a product.

    Its posteriors must be of errors, not of their logarithms.
    """
    mixed = mixed_of(model.conditioner)
    denoiser = model.denoiser
    support = model.conditioner.support if mixed is None else mixed.support.continuous
    length = tuple(model.conditioner.value_shape) if mixed is None else (mixed.support.length,)
    ends = torch.tensor([[0.0, 1.0], [2.0, 2.0], [-1.0, -1.0]])
    fits = length == (2,) and not support.is_discrete and support.check(ends).tolist() == [True, False, False]
    if not fits or not denoiser.null_trained or denoiser.rule != "product" or model.encoder is not None:
        expected = "expected one of objects at places, such as clevr or clevr-places"
        raise InputError(f"got the model {model.name}, which has no objects to track; {expected}; name another model")
    if model.defaults.log_errors:  # evidence is a difference of errors times beta
        got = f"got the model {model.name}, whose posteriors are of log errors"
        raise InputError(f"{got}; expected posteriors of errors; fit Defaults.beta without log_errors")
    return model


def track_frame(image: Any, model: Model, before: TrackedFrame | None = None, *, seed: int = 0) -> TrackedFrame:
    """Reads a frame of a video, from what was read of the one before; the first one as `infer` does."""
    if before is None:
        return _first(image, model, seed)
    index = before.frame + 1
    known = before.known
    # Move the objects to where they are expected, and to where the image has them; judge on other draws
    generator = torch.Generator().manual_seed(derived_seed(seed, index))
    problem = make_problem(model.encode(model.given(image)), model)
    low = [problem.draw(3 * DRAWS, generator)[:DRAWS] for _ in range(2)]  # small timesteps see places best
    predicted = [one.predict() for one in before.state]
    expected = [one for one in predicted if not one.gone]
    frame = Sighting(problem, expected, *low)
    places, precision, part, form = frame.move()
    judged, evidence, seen = frame.judge(places, part)
    objects = [
        each.update(places[k], precision[k], evidence[k]) if k in seen else each.hide(evidence[k])
        for k, each in enumerate(expected)
    ]
    # Find what is not explained: one object in a search, so that others follow where several are lost
    view = Explained(form, judged, places, list(seen))
    lost = [k for k in range(len(expected)) if k not in seen]
    corner = (0.25 + index % 2 / 2, 0.25 + index // 2 % 2 / 2)
    found = again = frame.find(view, lost, corner)
    while again is not None and again.which is not None:
        which = again.which
        sharp = torch.full((2,), START[0] ** -2)
        objects[which] = expected[which].update(again.place, sharp, max(again.evidence, expected[which].usual))
        lost.remove(which)
        if not lost:
            break
        view = frame.with_found(view, again)
        again = frame.find(view, lost, corner)
    if again is not None and again.which is None:
        known += 1
        new = Tracked.new(known, again.place, map(torch.zeros, frame.words), again.evidence)
        objects.append(_read_anew(frame, view, new))
    # Where nothing was found, read the least certain word of what is seen clearly once more
    if found is None and seen and frame.words:
        clear = [k for k in seen if evidence[k] > objects[k].usual / 2] or seen
        options = [(sure, k, attribute) for k in clear for attribute, sure in enumerate(objects[k].certainty)]
        _, k, attribute = min(options)
        errors = frame.read(judged, [j for j in seen if j != k], places[k], frame.codes[k], attribute)
        objects[k] = objects[k].read(errors, attribute, frame.beta)
    return _describe(index, objects, problem.rows, known, model)


def _read_anew(frame: Sighting, view: Explained, one: Tracked) -> Tracked:
    """A new object with its words, one attribute after another."""
    codes = torch.zeros(len(frame.words))
    for attribute in range(len(frame.words)):
        errors = frame.read(view.judged, view.seen, one.place, codes, attribute)
        one = one.read(errors, attribute, frame.beta)
        codes[attribute] = one.codes[attribute]
    return one


def _first(image: Any, model: Model, seed: int) -> TrackedFrame:
    solution = infer(image, model, generator=seed, progress=False)
    mixed = mixed_of(model.conditioner)
    objects = []
    numbers = () if mixed is None else mixed.support.words
    for k, value in enumerate(solution.conditions.cpu()):
        words = []
        for attribute, number in enumerate(numbers):
            sure = GUESS if solution.certainty is None else float(solution.certainty[k, attribute].nan_to_num(GUESS))
            sure = min(max(sure, 1 / number), 1 - 1e-4)  # a log of both follows
            words.append(torch.full((number,), math.log((1 - sure) / max(number - 1, 1))))  # of the other words
            words[-1][int(value[2 + attribute]) - 1] = math.log(sure)
        gain = 0.0 if solution.component_gain is None else float(solution.component_gain[k])
        objects.append(Tracked.new(k + 1, value[:2], words, (model.defaults.beta or 1.0) * gain))
    return _describe(0, objects, solution.rows, len(objects), model)


def _describe(index: int, objects: Sequence[Tracked], rows: int, known: int, model: Model) -> TrackedFrame:
    mixed = mixed_of(model.conditioner)
    described = []
    names = () if mixed is None else tuple(mixed.attributes)
    for one in objects:
        row: dict[str, Any] = {"identity": one.identity}
        row |= {name: round(float(number), 4) for name, number in zip("xy", one.place, strict=True)}
        if names:
            words = model.conditioner.describe(torch.cat([one.place.clamp(0, 1), one.codes]))
            row |= {name: words[name] for name in names}
            row["certainty"] = {name: round(sure, 4) for name, sure in zip(names, one.certainty, strict=True)}
        described.append({**row, "visible": one.visible, "evidence": round(one.evidence, 2)})
    return TrackedFrame(index, tuple(described), rows, known, tuple(one.forget() for one in objects))
