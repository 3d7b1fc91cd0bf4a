"""Adopt small networks wrongly, and see whether `check_adoption` catches the mistake, names it, and what it proposes.

python benchmarks/adoption/mistakes.py [--models table] [--names ""] [--seed 0] [--runs runs/adoption]
    [--rows 64,256,1000] [--evaluations 1000] [--training 0]

The networks are trained at the first call. The thresholds of the check were fixed on those of `--models repaired`, and
once, on seeing the figures, on those of `table` and `development`; those of `blind` have other architectures and
data. A right adoption is checked on held-out samples and on several numbers of all. A mistake in the data, the weights
or the call that no option undoes is named by "none of them is right: data, weights or call="; another option that is
proposed and is not the right one is a wrong cure. "One of several" is a mistake that is named beside others which the
samples cannot tell from it; none of them is applied then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

import energycomp
from benchmarks.adoption.strangers import BLIND, DEVELOPMENT, LINEAR, REPAIRED, TABLE, Stranger
from benchmarks.common.options import parser
from energycomp_lab.checks import Adoption, check_adoption

BETAS = ("linear", "scaled linear", "stable diffusion", "cosine")
NONE = ("", "data, weights or call=", "or the data, which are others")  # no option is the reason


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
    told: Callable[[Tensor], Tensor] = lambda t: t, sign: float = 1.0, label: Any = lambda c: c, given: float = 1.0
) -> dict[str, Any]:
    """`call=` with another clock, scale of the output or the input, or label."""

    def call(net: nn.Module, x: Tensor, t: Tensor, c: Tensor | None) -> Tensor:
        x, t = given * x, told(t)
        return sign * (net(x, t) if c is None else net(x, t, label(c)))

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
        raw, standard = one.data(raw=True)[0][-one.held :], abs(float(one.data()[0].std(0).mean()) - 1) < 0.1
        said = ("processor", "NumberProcessor") if standard else NONE
        yield Mistake("not standardised", said, change=lambda x, y: (raw[: len(x)], y[: len(raw)]))
    yield from scales(one.options["process"])
    yield from data(one)
    yield Mistake("dropout in call", ("mode", "dropout"), {"call": dropped})
    if one.drops:
        yield Mistake("train mode", ("mode", "eval"), after=lambda model: model.denoiser.network.train())
    if one.options.get("classes"):
        yield from labels(one.options["classes"], one.null)


def scales(process: Any) -> Iterator[Mistake]:
    """The input, the output or the time of a network times a number."""
    for times, undone in ((0.9, "1.1"), (1.1, "0.9"), (1.25, "0.8"), (2.0, "0.5")):
        yield Mistake(f"{times} output", ("output", f" {undone} times"), calls(sign=times))
    for times, undone in ((0.7, "1.4"), (0.9, "1.1"), (1.1, "0.9")):
        yield Mistake(f"{times} input", ("input", f" {undone} times"), calls(given=times))
    if process in BETAS:
        for name, told, *undone in (
            ("0.8 t", lambda t: 0.8 * t, "1.25 t"),
            ("t / 4", lambda t: t / 4, " 4 t"),
            ("t / 1000", lambda t: t / 1000, " 1000 t"),
            ("1000 t", lambda t: 1000 * t, "t / 1000", "'unit'"),
            ("t + 50", lambda t: t + 50, "t -50"),
            ("t + 150", lambda t: t + 150, "t -150"),
        ):
            yield Mistake(f"call with {name}", ("clock", *undone), calls(told))


def data(one: Stranger) -> Iterator[Mistake]:
    """Other data, or none of the training."""
    if len(one.options["shape"]) == 3 and one.drawn:
        for name, change, said in (
            ("transposed", lambda x: x.mT, ("samples", "transposed")),
            ("mirrored", lambda x: x.flip(3), ("samples", "mirrored")),
            ("inverted", lambda x: 1 - x, ("samples", "inverted")),
            ("rolled by 3 pixels", lambda x: x.roll(3, 3), NONE),
        ):
            yield Mistake(f"images {name}", said, change=lambda x, y, change=change: (change(x), y))
    yield Mistake("weights are forgotten", NONE, after=forgotten)


def forgotten(model: energycomp.Model) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in model.denoiser.network.parameters():
            part.copy_(part.std().nan_to_num(0.02) * torch.randn(part.shape, generator=generator))


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
        pair = {"predicts": "flow", "process": "flow"}
        yield Mistake("a flow", ("predicts and process", f"{predicts!r} and {process!r}"), pair)
    if process == "linear":
        table = {"betas": torch.linspace(1e-4, 0.018, 1000)}
        yield Mistake("betas to 0.018", ("process", "'linear'"), {"process": table})
    if betas:
        yield Mistake("alphas for betas", ("process", repr(process)), {"process": {"alphas_cumprod": 1 - LINEAR}})
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


def _in_order(order: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x, order[y]


def labels(count: int, null: int | None) -> Iterator[Mistake]:
    same = torch.arange(count)
    swapped = torch.cat([torch.tensor([1, 0]), same[2:]])
    for name, order in (
        ("moved by one", same.roll(1)),
        ("swapped, two of them,", swapped),
        ("in reverse", same.flip(0)),
    ):
        given = partial(_in_order, order)
        yield Mistake(f"labels {name.rstrip(',')}", ("labels", ""), order=order.argsort(), change=given)
    yield Mistake("labels are not given", ("labels", "call="), calls(label=torch.zeros_like))
    yield Mistake("a class as null", ("null", f"null={null}"), {"null": 0})
    if null is None:
        for other in (-1, -7):
            unknown = calls(label=lambda c: c.clamp(min=0))
            yield Mistake(f"null={other} is digit 0", ("null", "null=None"), {"null": other, **unknown})


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


def is_among(found: Adoption, mistake: Mistake) -> bool:
    """Whether what is right is one of several options that cannot be told apart, so that none was taken."""
    option, *right = mistake.named
    said = [text for one in found.findings if one.what == "other options" for text in one.measured.split("; or ")]
    return any(text.startswith(option) and any(word in text for word in right) for text in said)


def read(model: energycomp.Model, x: Tensor, y: Tensor) -> float:
    """The share of samples whose label is found."""
    answers = [energycomp.infer(one, model, count=1, progress=False).conditions for one in x]
    return float((torch.cat(answers) == y).double().mean())


def checked(one: Stranger, model: energycomp.Model, x: Tensor, y: Tensor, **options: Any) -> Adoption:
    """With labels where the network has any."""
    return check_adoption(model, x, y if one.options.get("classes") else None, **options)


def outcome(found: Adoption, mistake: Mistake) -> str:
    """missed, named, "one of several" that are named, caught without a name, or with another option: a wrong cure."""
    if found.ok:
        return "missed"
    if is_named(found, mistake):
        return "named"
    if found.near_miss is not None:
        return "wrong cure"
    return "one of several" if is_among(found, mistake) else "caught"


def main() -> None:
    """Prints the table, then how many are caught, named, cured wrongly and accused."""
    known = {"table": TABLE, "development": DEVELOPMENT, "blind": BLIND, "repaired": REPAIRED}
    parsed = parser(
        __doc__, models=("table", f"one of {', '.join(known)}"), names=("", "only these, with commas between them"),
        seed=(0, "of the training"), mistakes=("", "only those that have one of these words, with commas between them"),
        runs=("runs/adoption", "folder of the networks"),
        rows=("64,256,1000", "of samples of right adoptions"), evaluations=(1000, "of each check"),
        training=(0, "samples of the training that are given instead of held-out ones for each mistake, if not 0"),
    )  # fmt: skip
    options = parsed.parse_args()
    torch.set_num_threads(1)
    folder, words = Path(options.runs), options.mistakes.split(",")
    some = options.names.split(",") if options.names else [one.name for one in known[options.models]]
    strangers = [attrs.evolve(one, seed=options.seed) for one in known[options.models] if one.name in some]
    table: dict[str, dict[str, str]] = {}
    spent, of_right, accused = [], [], 0
    for one in strangers:
        model = one.adopted(folder)
        for seed, of in enumerate([None, *(slice(0, int(n)) for n in options.rows.split(",") if n)]):
            found = checked(one, model, *one.samples(of), evaluations=options.evaluations, seed=seed)
            accused += not found.ok
            of_right.append(found.evaluations)
            if not found.ok:
                print(f"{one.name}, right, {of}, is accused:\n{found}", flush=True)
        for mistake in tqdm([m for m in mistakes(one) if any(word in m.name for word in words)], desc=one.name):
            model = one.adopted(folder, **mistake.options)
            mistake.after(model)
            given = one.samples(slice(0, options.training) if options.training else None)
            found = checked(one, model, *mistake.change(*given), evaluations=options.evaluations)
            spent.append(found.evaluations)
            cell = table.setdefault(mistake.name, {})[one.name] = outcome(found, mistake)
            if cell != "named":
                wrong = [f"{f.what}: {f.measured}; {f.change}" for f in found.findings if f.verdict == "wrong"]
                print(f"{one.name}, {mistake.name}, {cell}: {wrong}", flush=True)
    names = [one.name for one in strangers]
    print(f"| mistake | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}")
    for name, cells in table.items():
        print(f"| {name} | {' | '.join(cells.get(one, '') for one in names)} |")
    cells = [cell for row in table.values() for cell in row.values()]
    print(
        f"{len(cells)} adoptions with {len(table)} mistakes: {len(cells) - cells.count('missed')} caught, "
        f"{cells.count('named')} named, {cells.count('one of several')} named as one of several options, "
        f"{cells.count('wrong cure')} cured wrongly; {accused} of {len(of_right)} right "
        "ones accused"
    )
    print(f"network evaluations: {mean(of_right):,.0f} where right, {mean(spent or [0]):,.0f} where wrong, on average")


if __name__ == "__main__":
    main()
