"""Mistakes in folders of diffusers and in wrappers of included models: does `energycomp lint` catch and name them?

python benchmarks/adoption/lint.py [--runs runs/families] [--names ""] [--evaluations 1000] [-o FILE]

`families.py` trains the pipelines. A mistake is a line of their configs, the samples, the prompts, or how the network
is called; what is right is checked with held-out samples under several seeds. `mistakes.py` says what is counted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor
from tqdm import tqdm

import energycomp
from benchmarks.adoption.families import PIXELS, SCALES, pictures, prompts
from benchmarks.adoption.mistakes import key_of, outcome, said, summary
from benchmarks.adoption.wrong import NONE, Mistake, calls, forgotten
from benchmarks.common.options import parser
from energycomp.images import to_unit
from energycomp.models import Model
from energycomp_adopt import check_adoption
from energycomp_adopt.checks.near_misses import readopt
from energycomp_adopt.opened import open_model
from energycomp_adopt.wrapped import wrap
from energycomp_cli import append_line, read_lines
from energycomp_lab.evaluation import source_of, true_values
from energycomp_text.testing import OPTIONS

HELD = 64  # samples of a check
SEEDS = 5  # of right ones
# Included models that explain an image by one condition, their source, and images of one component
INCLUDED = {
    "clevr-places": ("clevr", "synthetic:1-1"), "clevr-places-flow": ("clevr", "synthetic:1-1"),
    "clevr-small": ("clevr", "synthetic:1-1"), "clevr": ("clevr", "synthetic:1-1"),
    "text": ("text", "synthetic:1"), "text-composed": ("text", "synthetic:1"),
}  # fmt: skip
COLOURED = ("clevr-small", "text", "text-composed")  # whose conditions say colours
KINDS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v", "flow": "flow"}
SCHEDULES: dict[str, dict[str, Any]] = {
    "linear betas": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "cosine betas": {"beta_schedule": "squaredcos_cap_v2"},
    "scaled linear betas": {"beta_schedule": "scaled_linear", "beta_start": 1e-4, "beta_end": 0.02},
    "betas of Stable Diffusion": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
}
OWN = {"sd": "betas of Stable Diffusion", "sdxl": "betas of Stable Diffusion", "pixart": "betas of Stable Diffusion",
       PIXELS: "cosine betas"}  # fmt: skip
Labelled = tuple[Tensor, Any]


@attrs.frozen
class Planted:
    """A mistake in a folder: lines of its configs, by file, and what a finding that names it says."""

    name: str
    named: tuple[str, ...]
    lines: dict[str, dict[str, Any]]


def planted(name: str) -> Iterator[Planted]:
    """Wrong lines of a family's folder."""
    file = "scheduler/scheduler_config.json"
    if name in OWN:
        right = "v" if name == PIXELS else "eps"
        for kind, short in KINDS.items():
            if short not in (right, "flow"):
                yield Planted(f"prediction_type {kind}", ("predicts", repr(right)), {file: {"prediction_type": kind}})
        for label, lines in SCHEDULES.items():
            if label != OWN[name]:
                yield Planted(label, ("process", "'stable diffusion'", "'cosine'"), {file: lines})
    for label, factor, shift in (
        ("left out", 1.0, 0.0),
        ("of Stable Diffusion 1", 0.18215, 0.0),
        ("of 3", 1.5305, 0.0609),
    ):
        if name in SCALES and SCALES[name] != (factor, shift):
            lines = {"scaling_factor": factor, "shift_factor": shift}
            right = (
                f" {SCALES[name][0]:g} explains" if not SCALES[name][1] else f"with shift {SCALES[name][1]:g} explains"
            )
            yield Planted(f"scaling {label}", ("scaling of latents", right), {"vae/config.json": lines})


def wrong_calls(predicts: str, process: str) -> Iterator[Mistake]:
    """Wrong ways to call a network, and what else no config says."""
    yield Mistake("sign of the output", ("sign", "minus"), calls(sign=-1.0))
    for times, undone in ((0.9, "1.1"), (1.25, "0.8"), (2.0, "0.5")):
        yield Mistake(f"{times} output", ("output", f" {undone} times"), calls(sign=times))
    for times, undone in ((0.7, "1.4"), (1.1, "0.9")):
        yield Mistake(f"{times} input", ("input", f" {undone} times"), calls(given=times))
    if process == "flow":
        yield Mistake("clock 1 - t", ("clock", "1 - t"), calls(lambda t: 1 - t))
        yield Mistake("clock t / 2", ("clock", " 2 t"), calls(lambda t: t / 2))
    else:
        yield Mistake("clock T - t", ("clock", "999 - t"), calls(lambda t: 999 - t))
        yield Mistake("call with t / 1000", ("clock", " 1000 t"), calls(lambda t: t / 1000))
        yield Mistake("call with t + 150", ("clock", "t -150"), calls(lambda t: t + 150))
    yield Mistake("weights are forgotten", NONE, after=forgotten)
    for kind in ("eps", "x0", "v") if process != "flow" else ():
        if kind != predicts:
            yield Mistake(f"predicts {kind}", ("predicts", repr(predicts)), {"predicts": kind})


def wrong_options(name: str, model: Model) -> Iterator[Mistake]:
    """Wrong options of `adopt` that a wrapper of an included model may say; folders say theirs in their configs."""
    own = model.denoiser.network.options  # type: ignore[union-attr] # it is the adapter
    if model.denoiser.codec is None:
        for other in ((0.0, 1.0), (0.0, 255.0)):
            yield Mistake(f"data range {other}", ("data_range", "(-1.0, 1.0)"), {"data_range": other})
    if name in INCLUDED and own.process != "flow":
        for process in ("linear", "stable diffusion"):
            yield Mistake(f"betas of {process}", ("process", repr(own.process)), {"process": process})


def wrong_data(*, mirrors: bool, inverts: bool, coloured: bool, labelled: bool, square: bool) -> Iterator[Mistake]:
    """Images and labels that are others. Reversed channels are a mistake only where a condition says the colour."""
    for name, change, word in (
        ("transposed", lambda x: x.mT, "transposed"),
        ("upside down", lambda x: x.flip(2), "upside down"),
        ("mirrored", lambda x: x.flip(3), "mirrored"),
        ("inverted", lambda x: 1 - x, "inverted"),
        ("with channels in reverse", lambda x: x.flip(1), "reverse"),
    ):
        wanted = {"inverted": inverts, "with channels in reverse": coloured}.get(name, mirrors)
        if wanted and (square or name != "transposed"):
            yield Mistake(f"images {name}", ("samples", word), change=lambda x, y, change=change: (change(x), y))
    if labelled:
        yield Mistake("conditions of the next image", ("labels", "order"), change=lambda x, y: (x, [*y[1:], y[0]]))


def families(options: argparse.Namespace, known: Collection[Any]) -> Iterator[dict[str, Any]]:
    """What the check says of the folders, as they are and with mistakes."""
    for folder in sorted(options.runs.iterdir()):
        if options.names and folder.name not in options.names.split(","):
            continue
        settings = OPTIONS.get(folder.name, {})
        read = partial(open_model, str(folder)) if not settings else partial(energycomp.load, str(folder), **settings)
        x, labels = pictures(HELD * (SEEDS + 1), 5)
        given: Any = None if folder.name == PIXELS else prompts(labels)
        for record, check in right_checks(folder.name, read, x, given, options):
            if key_of(record) not in known:
                yield record | check()
        held = x[:HELD], None if given is None else given[:HELD]
        for one in planted(folder.name):
            record = {**_of(folder.name, one.name, options), "training": 0}
            if key_of(record) in known:
                continue
            with tempfile.TemporaryDirectory() as place:
                copy = Path(place) / folder.name
                shutil.copytree(folder, copy)
                for file, lines in one.lines.items():
                    said_there = json.loads((copy / file).read_text())
                    (copy / file).write_text(json.dumps(said_there | lines))
                model = open_model(str(copy)) if not settings else energycomp.load(str(copy), **settings)
                found = check_adoption(model, *held, evaluations=options.evaluations)
            yield {**record, "outcome": outcome(found, Mistake(one.name, one.named)), **said(found)}
        yield from wrapped(
            folder.name, read, held, options, known, inverts=folder.name == PIXELS, coloured=False, mirrors=False
        )


def included(options: argparse.Namespace, known: Collection[Any]) -> Iterator[dict[str, Any]]:
    """The same of included models, as wrappers of them go wrong."""
    for name, (source, data) in INCLUDED.items():
        if options.names and name not in options.names.split(","):
            continue
        model = energycomp.load(name)
        examples = list(source_of(source, model).examples(data, count=HELD * (SEEDS + 1), seed=7))
        x = torch.stack([to_unit(example.image) for example in examples])
        values = torch.cat([true_values(example, model.conditioner) for example in examples])
        read = partial(energycomp.load, name)
        for record, check in right_checks(name, read, x, values, options):
            if key_of(record) not in known:
                yield record | check()
        held = x[:HELD], values[:HELD]
        yield from wrapped(
            name, read, held, options, known, inverts=name != "clevr", coloured=name in COLOURED, mirrors=True
        )


def right_checks(
    name: str, read: Callable[[], Model], x: Tensor, given: Any, options: argparse.Namespace
) -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """A check of the model as it is for each seed, with other samples."""
    for seed in range(SEEDS):
        some = slice(seed * HELD, (seed + 1) * HELD)

        def check(some: slice = some, seed: int = seed) -> dict[str, Any]:
            labels = None if given is None else given[some]
            found = check_adoption(read(), x[some], labels, evaluations=options.evaluations, seed=seed)
            return {"outcome": "ok" if found.ok else "accused", **said(found)}

        yield {**_of(name, f"right, samples {seed}", options), "training": 0}, check


def wrapped(
    name: str,
    read: Callable[[], Model],
    held: Labelled,
    options: argparse.Namespace,
    known: Collection[Any],
    **of: bool,
) -> Iterator[dict[str, Any]]:
    """What the check says of a model whose wrapper is wrong in one thing."""
    model = wrap(read())
    own = model.denoiser.network.options  # type: ignore[union-attr] # it is the adapter
    process = "flow" if own.process == "flow" else "table"
    labelled = held[1] is not None
    square = held[0].shape[2] == held[0].shape[3]
    changes = wrong_calls(own.predicts, process), wrong_options(name, model)
    for mistake in (*itertools.chain(*changes), *wrong_data(labelled=labelled, square=square, **of)):
        record = {**_of(name, mistake.name, options), "training": 0}
        if key_of(record) in known or (mistake.options.get("predicts") and name in (*OWN, *SCALES)):
            continue
        changed = readopt(wrap(read()), **mistake.options)
        mistake.after(changed)
        x, y = mistake.change(*held)
        if isinstance(y, list) and isinstance(y[0], Tensor):
            y = torch.stack(y)
        found = check_adoption(changed, x, y, evaluations=options.evaluations)
        yield {**record, "outcome": outcome(found, mistake), **said(found)}


def _of(name: str, adoption: str, options: argparse.Namespace) -> dict[str, Any]:
    return {"network": name, "adoption": adoption, "seed": 0, "evaluations": options.evaluations}


def main() -> None:
    """Prints what is not named, the table, and how many are caught, named, cured wrongly and accused."""
    parse = parser(
        __doc__, runs=(Path("runs/families"), "folder of the pipelines"), evaluations=(1000, "of each check"),
        names=("", "only these, with commas between them"),
        out=(None, "file of JSON lines, one for each check, where a run that was stopped goes on"),
    )  # fmt: skip
    options = parse.parse_args()
    torch.set_num_threads(1)
    records = [] if options.out is None else read_lines(options.out)
    known = set(map(key_of, records))
    for way in (families, included):
        for record in tqdm(way(options, known), desc=way.__name__):
            records.append(record)
            if options.out is not None:
                append_line(options.out, record)
    summary(records)


if __name__ == "__main__":
    main()
