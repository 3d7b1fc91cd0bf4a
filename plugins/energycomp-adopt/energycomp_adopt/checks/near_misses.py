"""What a network may be instead of what it was adopted as: one option of `adopt`, a few, or the samples."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from operator import add, mul
from typing import Any, get_args

import attrs
import torch
from torch import Tensor

from energycomp.components import Classes
from energycomp.errors import InputError
from energycomp.models import Model, NumberProcessor
from energycomp_adopt.adapter import Call, Predicts, network_of, prediction_in
from energycomp_adopt.adopting import adopt, usual_clock
from energycomp_adopt.checks.case import Case
from energycomp_adopt.process import BETAS, CLOCKS, FLOWS, shortly

SIGMAS = (0.002, 80.0)
PAIRS: tuple[tuple[str, Any], ...] = (
    ("flow", "flow"),
    ("flow", "flow to data"),
    ("edm", SIGMAS),
    *itertools.product(("eps", "x0", "v"), BETAS),
)
Told = Callable[[Tensor], Tensor]
OTHERS: dict[str, dict[str, tuple[Told, str]]] = {  # what else a network may be told, by its clock, and the code
    "timestep": {
        "999 - t": (lambda t: 999 - t, "999 - t"),
        "t / 1000": (lambda t: t / 1000, "t / 1000"),
        "1000 t": (lambda t: 1000 * t, "1000 * t"),
    },
    "index": {"999 - t": (lambda t: 999 - t, "999 - t")},
    "unit": {
        "1000 t": (lambda t: 1000 * t, "1000 * t"),
        "t / 1000": (lambda t: t / 1000, "t / 1000"),
        "1 - t": (lambda t: 1 - t, "1 - t"),
    },
    "sigma": {"log sigma": (torch.log, "t.log()")},
    "log sigma / 4": {"log sigma": (lambda t: 4 * t, "4 * t"), "log sigma / 16": (lambda t: t / 4, "t / 4")},
}
NEAR, FAR = (0.9, 1.1), (0.5, 0.7, 0.8, 1.25, 1.4, 2.0)  # times the input, the output and the time
SLOWED = (0.25, 4.0)  # times the time
MOVED, FAR_MOVED = (-50.0, 50.0), (-150.0, 150.0)  # timesteps
PROCESSORS = {"NumberProcessor.fit(data)": 0, "NumberProcessor.fit(data, quantiles=100)": 100}  # and their quantiles
OTHER = 0.1  # of the variance of numbers, by how much a processor changes them: less is which samples these are
SEEN: dict[str, Callable[[Tensor], Tensor]] = {  # images (N, C, H, W)
    "inverted, max - x": lambda x: -x,
    "transposed": lambda x: x.mT,
    "mirrored": lambda x: x.flip(3),
    "upside down": lambda x: x.flip(2),
    "their channels in reverse": lambda x: x.flip(1),
}


@attrs.frozen(eq=False)
class NearMiss:
    """A model with another option, or for other samples.

    Args:
        option, got, instead: what `adopt` was given, and what it would be given.
        change: what to give to `adopt` in place of it, or what is to be changed beside.
        labels: the network's label of each class, (C,), if it is these that differ.
        changed: samples as they should be, if it is these that differ.

    >>> from energycomp.testing import tiny_model
    >>> print(NearMiss("prediction_type", "'epsilon'", "prediction_type='v_prediction'", tiny_model()))
    prediction_type: got 'epsilon', prediction_type='v_prediction' explains the samples better
    """

    option: str
    got: str
    instead: str
    model: Model
    labels: Tensor | None = None
    changed: Callable[[Tensor], Tensor] | None = None
    change: str = ""

    @property
    def by_call(self) -> bool:
        """Whether it needs a `call=`, and no other option of `adopt` does it."""
        return "by call=" in self.instead

    def __str__(self) -> str:
        return f"{self.option}: got {self.got}, {self.instead} explains the samples better"


def names_of(model: Model) -> tuple[str, ...]:
    """The names of the classes of a model that was adopted with some."""
    return model.conditioner.names if isinstance(model.conditioner, Classes) else ()


def readopt(model: Model, **changed: Any) -> Model:
    """An adopted model with other keywords of `adopt`."""
    network = network_of(model)
    options = network.options
    keywords: dict[str, Any] = {
        "shape": model.denoiser.sample_shape,
        "null": options.null,
        "predicts": options.predicts,
        "process": options.process,
        # Another process or prediction has another usual clock
        "clock": None if options.clock == usual_clock(options.predicts, network.process) else options.clock,
        "data_range": options.data_range,
        "sigma_data": options.sigma_data,
        "call": network.call,
        "registered": options.registered,
        "name": model.name,
        "processor": model.processor,
    }
    if options.kind == "classes":
        keywords["classes"] = names_of(model)
    elif options.kind != "none":
        keywords["conditioner"] = model.conditioner
    with warnings.catch_warnings():  # of a process that does not reach noise
        warnings.simplefilter("ignore")
        return adopt(network.network, **keywords | changed)


def near_misses(case: Case, *, far: bool) -> Iterator[NearMiss]:
    """All that differ from the adopted model in one thing; with `far` also in much, in two things, or in the samples."""
    yield from _change(case, _options(case))
    yield from _change(case, _calls(case, far))
    yield from _processors(case)
    if far:
        yield from _change(case, _pairs(case))
        yield from _images(case)


def moves(case: Case) -> Iterator[NearMiss]:
    """Those whose network is told a time that is moved by a few timesteps."""
    return _change(case, _moved(case, MOVED))


def _change(case: Case, changes: Iterator[_Change]) -> Iterator[NearMiss]:
    for option, got, instead, changed, change in changes:
        with suppress(InputError):  # options that contradict each other
            yield NearMiss(option, got, instead, readopt(case.model, **changed), change=change)


# The option, what it is, what it could be, the keywords of `adopt`, and their code
_Change = tuple[str, str, str, dict[str, Any], str]


def _options(case: Case) -> Iterator[_Change]:
    """Other values of one option."""
    samples = case.samples
    own = attrs.asdict(case.options, recurse=False)
    own["data_range"] = tuple(case.options.data_range or (-1.0, 1.0))
    low, high = ((end - float(samples.mean())) / max(float(samples.std()), 1e-6) for end in (-1, 1))
    alike = () if samples.ndim == 2 else ((round(low, 3), round(high, 3)),)  # of mean 0, std 1; rows have a processor
    others: dict[str, tuple[Any, ...]] = {
        "predicts": get_args(Predicts),
        "process": (*BETAS, *FLOWS, SIGMAS),
        "clock": tuple(name for name in CLOCKS if name != "index"),  # which is the timestep
        "data_range": ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), *alike),
        "sigma_data": (0.5, 1.0) if case.options.predicts == "edm" else (),
        "null": (0, case.label_count - 1) if case.values is None and case.classes is not None else (),
    }
    for option, known in others.items():
        for other in known:
            if other != own[option]:
                yield option, shortly(own[option]), repr(other), {option: other}, f"{option}={other!r}"


def _pairs(case: Case) -> Iterator[_Change]:
    """Another prediction of another process, also of a network that is told t in [0, 1], or in [0, 1000], instead."""
    own = case.options
    got = f"{own.predicts!r} and {shortly(own.process)}"
    both = "predicts and process"
    for predicts, process in PAIRS:
        if predicts == own.predicts or process == own.process:
            continue
        given = {"predicts": predicts, "process": process}
        instead = f"{predicts!r} and {process!r}"
        change = f"predicts={predicts!r}, process={process!r}"
        yield both, got, instead, given, change
        if predicts == "flow":
            told = {"call": _told(case.network.call, partial(mul, 1000))}
            code = f", call={_code(case, t='1000 * t')}"
            yield both, got, f"{instead}, 1000 t, by call=,", given | told, change + code
        elif process in BETAS:
            yield both, got, f"{instead}, 'unit'", given | {"clock": "unit"}, f"{change}, clock='unit'"


def _code(case: Case, *, x: str = "x", t: str = "t", of: str = "") -> str:
    """The code of a `call=` with another input, time or output."""
    arguments = f"{x}, {t}" if case.options.kind == "none" else f"{x}, {t}, c"
    return f"lambda net, x, t, c: {of}net({arguments})"


def _calls(case: Case, far: bool) -> Iterator[_Change]:
    """Another input, output or time of the network, by `call`."""
    call = case.network.call
    clock = case.options.clock
    changed = partial(_change_call, case)
    for name, (told, code) in OTHERS.get(clock, {}).items():
        yield changed("clock", repr(clock), name, _told(call, told), t=code)
    yield changed("sign", "the output", "minus the output", _scaled(call, output=-1.0), of="-")
    for times in NEAR + (FAR if far else ()):
        number = f"{times:g}"
        scaled = _scaled(call, output=times)
        yield changed("output", "the output", f"{number} times the output", scaled, of=f"{number} * ")
        scaled = _scaled(call, given=times)
        yield changed("input", "the input", f"{number} times the input", scaled, x=f"{number} * x")
    for times in NEAR + (FAR + SLOWED if far else ()) if clock in ("timestep", "unit", "sigma") else ():
        yield changed("clock", repr(clock), f"{times:g} t", _told(call, partial(mul, times)), t=f"{times:g} * t")
    yield from _moved(case, MOVED + (FAR_MOVED if far else ()))


def _moved(case: Case, steps: tuple[float, ...]) -> Iterator[_Change]:
    """Another time by a number of timesteps."""
    for step in steps if case.options.clock == "timestep" else ():
        told = _told(case.network.call, partial(add, step))
        code = f"t {'-' if step < 0 else '+'} {abs(step):g}"
        yield _change_call(case, "clock", "'timestep'", f"t {step:+g}", told, t=code)


def _change_call(
    case: Case, option: str, got: str, instead: str, other: Any, *, x: str = "x", t: str = "t", of: str = ""
) -> _Change:
    """The change of a `call=`, with the code of it."""
    return option, got, f"{instead}, by call=,", {"call": other}, f"call={_code(case, x=x, t=t, of=of)}"


def _images(case: Case) -> Iterator[NearMiss]:
    """The same model for images that are seen otherwise."""
    samples = case.samples
    if samples.ndim == 4:
        for name, changed in SEEN.items():
            if changed(samples).shape == samples.shape and not torch.equal(changed(samples), samples):
                change = f"the images: {name}"
                yield NearMiss("samples", "images as they are", f"{name},", case.model, changed=changed, change=change)


def _processors(case: Case) -> Iterator[NearMiss]:
    """The same model for rows of numbers on another scale."""
    samples = case.samples
    if samples.ndim == 2:
        std = samples.std(0)
        got = f"numbers of standard deviations {float(std.min()):.3g} to {float(std.max()):.3g}"
        for instead, quantiles in PROCESSORS.items():
            with suppress(InputError):  # numbers that cannot be standardised
                changed = NumberProcessor.fit(samples, quantiles=quantiles).encode
                if float((changed(samples) - samples).square().mean() / samples.var()) > OTHER:
                    change = f"processor={instead}"
                    yield NearMiss("processor", got, instead, case.model, changed=changed, change=change)


def _told(call: Call, told: Told) -> Call:
    return lambda net, x, t, c: call(net, x, told(t), c)


def _scaled(call: Call, *, given: float = 1.0, output: float = 1.0) -> Call:
    return lambda net, x, t, c: output * prediction_in(call(net, given * x, t, c))
