"""What can be wrong with the adoption of a network: an option, the call, the data, the weights or the labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

import energycomp
from benchmarks.adoption.strangers import LINEAR, Stranger
from energycomp_adopt.adapter import prediction_in

BETAS = ("linear", "scaled linear", "stable diffusion", "cosine")
NONE = ("", "data, weights or call=", "or the data, which are others")  # no option alone is the reason


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
        return sign * prediction_in(net(x, t) if c is None else net(x, t, label(c)))

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
        if standard:
            yield Mistake("rows times 10", ("processor", "NumberProcessor"), change=lambda x, y: (10 * x, y))
        if one.quantiles:
            alike = energycomp.models.NumberProcessor.fit(one.data(raw=True)[0]).encode(raw)
            left_out = ("processor", "quantiles")
            yield Mistake("quantiles left out", left_out, change=lambda x, y: (alike[: len(x)], y[: len(alike)]))
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
        betas_of = {"predicts": "v", "process": "linear"}
        said = f"'flow' and {process!r}"
        yield Mistake("v of betas", ("predicts and process", f"{said} explains"), betas_of)
        told = calls(lambda t: t / 1000)
        yield Mistake("v of betas, told 1000 t", ("predicts and process", f"{said}, 1000 t"), betas_of | told)


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
    last = torch.cat([same[:-2], same[-2:].flip(0)])
    for name, order in (
        ("moved by one", same.roll(1)),
        ("swapped, two of them,", swapped),
        *([("swapped, the last two,", last)] if count > 2 else []),
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
