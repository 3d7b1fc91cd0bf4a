"""Adopt small networks wrongly, and see whether `check_adoption` catches the mistake and names it.

python benchmarks/adoption/mistakes.py [--models table] [--names ""] [--seed 0] [--runs runs/adoption]
    [--seeds 2] [--evaluations 600]

The networks are trained at the first call. The thresholds of the check were fixed on those of `--models development`
and, once, on seeing the figures of `table`. Those of `blind`, of other architectures and data, were not seen before. A
right adoption is checked on held-out samples and, for further seeds, on those of its training. Then images that
neither the training nor the check saw are read, with the timesteps of `adopt` and with those that the check proposes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

import energycomp
from benchmarks.adoption.networks import BLIND, DEVELOPMENT, LINEAR, TABLE, Stranger
from benchmarks.common.options import parser
from energycomp_lab.checks import Adoption, check_adoption

BETAS = ("linear", "scaled linear", "stable diffusion", "cosine")


@attrs.frozen(eq=False)
class Mistake:
    """An adoption that is wrong in one thing.

    Args:
        name: what is wrong, for the table.
        named: what a finding that names it says: the option, and what is right, in any of several ways.
        order: the network's label of each class, which the better option must give, (C,).
        options: of `adopt` that are changed.
        change: of samples and labels.
        after: of the model.
    """

    name: str
    named: tuple[str, ...]
    order: Tensor | None = attrs.field(default=None, kw_only=True)
    options: dict[str, Any] = attrs.field(factory=dict)
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda x, labels: (x, labels)
    after: Callable[[energycomp.Model], object] = id


def calls(
    told: Callable[[Tensor], Tensor] = lambda t: t, sign: float = 1.0, label: Any = lambda c: c
) -> dict[str, Any]:
    """`call=` with another clock, sign or label."""

    def call(net: nn.Module, x: Tensor, t: Tensor, c: Tensor | None) -> Tensor:
        return sign * (net(x, told(t)) if c is None else net(x, told(t), label(c)))

    return {"call": call}


def dropped(net: nn.Module, x: Tensor, t: Tensor, c: Tensor | None) -> Tensor:
    out = net(x, t) if c is None else net(x, t, c)
    return functional.dropout(out, 0.1, training=True)


def mistakes(one: Stranger) -> Iterator[Mistake]:
    """All that can be wrong with a network."""
    bounds = one.options.get("data_range", (-1.0, 1.0))
    yield Mistake("sign of the output", ("sign", "minus"), calls(sign=-1.0))
    yield from predictions(one.options["predicts"], one.options["process"])
    yield from clocks(one.options["predicts"], one.options["process"])
    for other in ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)):
        if bounds is not None and other != bounds:
            yield Mistake(f"data range {other}", ("data_range", f"{bounds}"), {"data_range": other})
    if bounds is None:
        raw = one.data(raw=True)[0][-one.held :]
        yield Mistake("not standardised", ("processor", "NumberProcessor"), change=lambda x, y: (raw[: len(x)], y))
    yield Mistake("dropout in call", ("mode", "dropout"), {"call": dropped})
    if one.drops:
        yield Mistake("train mode", ("mode", "eval"), after=lambda model: model.denoiser.network.train())
    if one.options.get("classes"):
        yield from labels(one.options["classes"], one.null)


def predictions(predicts: str, process: Any) -> Iterator[Mistake]:
    betas = process in BETAS
    for kind in ("eps", "x0", "v", "score", "flow", "edm"):
        fits = {"v": betas, "flow": "flow" in process, "edm": not isinstance(process, str)}
        if kind != predicts and fits.get(kind, True):
            yield Mistake(f"predicts {kind}", ("predicts", repr(predicts)), {"predicts": kind})
    for other in ("linear", "scaled linear", "cosine") if betas else ():
        if other != process:
            yield Mistake(f"{other} betas", ("process", repr(process)), {"process": other})
    if betas:
        yield Mistake("alphas for betas", ("process", repr(process)), {"process": 1 - LINEAR})
    if "flow" in process:
        other = {"flow": "flow to data", "flow to data": "flow"}[process]
        yield Mistake("direction of a flow", ("process", repr(process)), {"process": other})


def clocks(predicts: str, process: Any) -> Iterator[Mistake]:
    if process in BETAS:
        yield Mistake("clock t / T", ("clock", "timestep"), {"clock": "unit"})
        yield Mistake("clock T - t", ("clock", "999 - t"), calls(lambda t: 999 - t))
    if "flow" in process:
        yield Mistake("clock 1000 t", ("clock", "unit", "t / 1000"), {"clock": "timestep"})
        yield Mistake("clock 1 - t", ("clock", "1 - t"), calls(lambda t: 1 - t))
    if predicts == "edm":
        yield Mistake("clock sigma", ("clock", "log sigma / 4"), {"clock": "sigma"})
        yield Mistake("clock log sigma", ("clock", "log sigma / 16"), calls(lambda t: 4 * t))
        yield Mistake("sigma_data 1", ("sigma_data", "0.5"), {"sigma_data": 1.0})


def labels(count: int, null: int | None) -> Iterator[Mistake]:
    same = torch.arange(count)
    swapped = torch.cat([torch.tensor([1, 0]), same[2:]])
    for name, order in (
        ("moved by one", same.roll(1)),
        ("swapped, two of them,", swapped),
        ("in reverse", same.flip(0)),
    ):
        given = lambda x, y, order=order: (x, order[y])  # noqa: E731 - of this order
        yield Mistake(f"labels {name.rstrip(',')}", ("labels", ""), order=order.argsort(), change=given)
    yield Mistake("labels are not given", ("labels", "call="), calls(label=torch.zeros_like))
    yield Mistake("a class as null", ("null", f"null={null}"), {"null": 0})


def is_named(found: Adoption, mistake: Mistake) -> bool:
    """Whether a wrong finding, or the better option, says what is wrong and what is right."""
    said = [f"{one.what}: {one.measured}; {one.change}" for one in found.findings if one.verdict == "wrong"]
    if found.near_miss is not None:
        said = [str(found.near_miss)]
    option, *right = mistake.named
    if mistake.order is not None:
        given = None if found.near_miss is None else found.near_miss.labels
        return given is not None and torch.equal(given, mistake.order)
    return any(text.startswith(option) and any(word in text for word in right) for text in said)


def read(model: energycomp.Model, x: Tensor, y: Tensor) -> float:
    """The share of samples whose label is found."""
    answers = [energycomp.infer(one, model, count=1, progress=False).conditions for one in x]
    return float((torch.cat(answers) == y).double().mean())


def main() -> None:
    """Prints the table, then how many are caught, named and accused, and what is read."""
    parsed = parser(
        __doc__, models=("table", "table, development or blind"), names=("", "only these, with commas between them"),
        seed=(0, "of the training"),
        runs=("runs/adoption", "folder of the networks"),
        seeds=(2, "checks of each right adoption"), evaluations=(600, "of each check"),
    )  # fmt: skip
    options = parsed.parse_args()
    torch.set_num_threads(1)
    folder, known = Path(options.runs), {"table": TABLE, "development": DEVELOPMENT, "blind": BLIND}
    some = options.names.split(",") if options.names else [one.name for one in known[options.models]]
    strangers = [attrs.evolve(one, seed=options.seed) for one in known[options.models] if one.name in some]
    rows: dict[str, dict[str, str]] = {}
    spent, of_right, accused, readings = [], [], 0, []

    def check(one: Stranger, model: energycomp.Model, x: Tensor, y: Tensor, seed: int = 0) -> Adoption:
        given = y if one.options.get("classes") else None
        found = check_adoption(model, x, given, evaluations=options.evaluations, seed=seed)
        spent.append(found.evaluations)
        return found

    for one in strangers:
        for seed in range(options.seeds):
            of = slice(64 * seed - 64, 64 * seed) if seed else None  # held out, or of the training
            found = check(one, one.adopted(folder), *one.samples(of), seed)
            accused += not found.ok
            of_right.append(spent[-1])
            if not found.ok:
                tqdm.write(f"{one.name}, right, is accused:\n{found}")
        for mistake in tqdm([*mistakes(one)], desc=one.name):
            model = one.adopted(folder, **mistake.options)
            mistake.after(model)
            found = check(one, model, *mistake.change(*one.samples()))
            good = not found.ok and is_named(found, mistake)
            rows.setdefault(mistake.name, {})[one.name] = "named" if good else "missed" if found.ok else "caught"
            if not good:
                wrong = [f"{f.what}: {f.measured}; {f.change}" for f in found.findings if f.verdict == "wrong"]
                tqdm.write(f"{one.name}, {mistake.name}: {wrong}")
        if one.options.get("classes"):
            model = one.adopted(folder)
            proposed = check(one, model, *one.samples(of=slice(0, 64))).model
            own, other = (read(each, *one.samples()) for each in (model, proposed))
            told = proposed.defaults
            readings.append(f"{one.name}: {own:.3f}, {other:.3f} of timesteps {told.timesteps} and {told.draws} draws")
    names = [one.name for one in strangers]
    print(f"| mistake | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells.get(one, '') for one in names)} |")
    cells = [cell for row in rows.values() for cell in row.values()]
    print(f"{len(cells)} adoptions with {len(rows)} mistakes: {len(cells) - cells.count('missed')} caught, ", end="")
    print(f"{cells.count('named')} named; {accused} of {len(strangers) * options.seeds} right ones accused")
    print(
        f"{sum(spent) / len(spent):,.0f} network evaluations for each, {sum(of_right) / len(of_right):,.0f} where right"
    )
    print("read right with the timesteps of adopt, and as proposed:", *readings, sep="\n")


if __name__ == "__main__":
    main()
