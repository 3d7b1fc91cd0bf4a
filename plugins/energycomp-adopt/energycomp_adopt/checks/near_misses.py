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
from torch import Tensor, nn

from energycomp.components import Classes
from energycomp.errors import InputError
from energycomp.models import Model, NumberProcessor, VAECodec
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
Time = Callable[[Tensor], Tensor]
OTHERS: dict[str, dict[str, tuple[Time, str]]] = {  # what else a network may be told, by its clock, and the code
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
SCALINGS = (  # factor and shift of latents
    (1.0, 0.0),
    (0.18215, 0.0),  # Stable Diffusion 1 and 2
    (0.13025, 0.0),  # XL, PixArt-Sigma
    (1.5305, 0.0609),  # 3
    (0.3611, 0.1159),  # FLUX, Z-Image
    (0.41407, 0.0),  # Sana
)
APART = 0.1  # share by which a factor differs from all known ones
OTHER = 0.1  # of the variance of numbers, by how much a processor changes them: less is which samples these are
SEEN: dict[str, Callable[[Tensor], Tensor]] = {  # images (N, C, H, W)
    "inverted, max - x": lambda x: -x,
    "transposed": lambda x: x.mT,
    "mirrored": lambda x: x.flip(3),
    "upside down": lambda x: x.flip(2),
    "their channels in reverse": lambda x: x.flip(1),
}
OF_COLOURS = ("inverted, max - x", "their channels in reverse")  # which latents do not show as images do


@attrs.frozen(eq=False)
class NearMiss:
    """A model with another option, or for other samples.

    Args:
        option, got, instead: what `adopt` was given, and what it would be given.
        change: what to give to `adopt` in place of it, or what is to be changed beside.
        labels: the network's label of each class, (C,), if it is these that differ.
        samples: (N, ...) as they should be, if it is these that differ.
    """

    option: str
    got: str
    instead: str
    model: Model
    labels: Tensor | None = None
    samples: Tensor | None = None
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
        "codec": model.denoiser.codec if isinstance(model.denoiser.codec, VAECodec) else None,
    }
    if options.kind == "classes":
        keywords["classes"] = names_of(model)
    elif options.kind != "none":
        keywords["conditioner"] = model.conditioner
    with warnings.catch_warnings():  # of a process that does not reach noise
        warnings.simplefilter("ignore")
        return adopt(network.network, **keywords | changed)


def near_misses(case: Case, *, far: bool) -> Iterator[NearMiss]:
    """All that differ from the model in one thing; with `far` in much, in two things, or in the samples."""
    yield from _options(case)
    yield from _calls(case, far)
    yield from _processors(case)
    if far:
        yield from _pairs(case)
        yield from _scalings(case)
        yield from _images(case)


def _change(case: Case, option: str, got: str, instead: str, code: str, **changed: Any) -> Iterator[NearMiss]:
    """Yields the near miss of other keywords of `adopt`, with their code; none where these contradict each other."""
    with suppress(InputError):
        yield NearMiss(option, got, instead, readopt(case.model, **changed), change=code)


def _options(case: Case) -> Iterator[NearMiss]:
    samples = case.samples
    own = attrs.asdict(case.options, recurse=False)
    own["data_range"] = tuple(case.options.data_range or (-1.0, 1.0))
    low, high = ((end - float(samples.mean())) / max(float(samples.std()), 1e-6) for end in (-1, 1))
    alike = () if samples.ndim == 2 else ((round(low, 3), round(high, 3)),)  # of mean 0, std 1; rows have a processor
    ranges = () if scaling_of(case.model) else ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), *alike)
    others: dict[str, tuple[Any, ...]] = {
        "predicts": get_args(Predicts),
        "process": (*BETAS, *FLOWS, SIGMAS),
        "clock": tuple(name for name in CLOCKS if name != "index"),  # which is the timestep
        "data_range": ranges,
        "sigma_data": (0.5, 1.0) if case.options.predicts == "edm" else (),
        "null": (0, case.label_count - 1) if case.values is None and case.classes is not None else (),
    }
    for option, known in others.items():
        for other in known:
            if other != own[option]:
                got = shortly(own[option])
                yield from _change(case, option, got, repr(other), f"{option}={other!r}", **{option: other})


def _pairs(case: Case) -> Iterator[NearMiss]:
    """Yields another prediction of another process, also of a network that is told t in [0, 1], or in [0, 1000]."""
    own = case.options
    got = f"{own.predicts!r} and {shortly(own.process)}"
    change = partial(_change, case, "predicts and process", got)
    for predicts, process in PAIRS:
        if predicts == own.predicts or process == own.process:
            continue
        both = {"predicts": predicts, "process": process}
        instead = f"{predicts!r} and {process!r}"
        code = f"predicts={predicts!r}, process={process!r}"
        yield from change(instead, code, **both)
        if predicts == "flow":
            call, call_code = _call(case, time=lambda t: 1000 * t, told="1000 * t")
            yield from change(f"{instead}, 1000 t, by call=,", f"{code}, {call_code}", **both, call=call)
        elif process in BETAS:
            yield from change(f"{instead}, 'unit'", f"{code}, clock='unit'", **both, clock="unit")


def _calls(case: Case, far: bool) -> Iterator[NearMiss]:
    """Yields another input, output or time of the network, by `call`."""
    clock = case.options.clock
    change = partial(_change_call, case)
    for name, (time, told) in OTHERS.get(clock, {}).items():
        yield from change("clock", repr(clock), name, time=time, told=told)
    yield from change("sign", "the output", "minus the output", output=-1.0)
    for times in NEAR + (FAR if far else ()):
        yield from change("output", "the output", f"{times:g} times the output", output=times)
        yield from change("input", "the input", f"{times:g} times the input", given=times)
    for times in NEAR + (FAR + SLOWED if far else ()) if clock in ("timestep", "unit", "sigma") else ():
        yield from change("clock", repr(clock), f"{times:g} t", time=partial(mul, times), told=f"{times:g} * t")
    yield from moves(case, MOVED + (FAR_MOVED if far else ()))


def moves(case: Case, steps: tuple[float, ...] = MOVED) -> Iterator[NearMiss]:
    """Those whose network is told a time that is moved by a number of timesteps."""
    for step in steps if case.options.clock == "timestep" else ():
        told = f"t {'-' if step < 0 else '+'} {abs(step):g}"
        yield from _change_call(case, "clock", "'timestep'", f"t {step:+g}", time=partial(add, step), told=told)


def _change_call(case: Case, option: str, got: str, instead: str, **changed: Any) -> Iterator[NearMiss]:
    call, code = _call(case, **changed)
    return _change(case, option, got, f"{instead}, by call=,", code, call=call)


def _call(
    case: Case, *, given: float = 1.0, output: float = 1.0, time: Time = lambda t: t, told: str = "t"
) -> tuple[Call, str]:
    """Makes a `call=` with another input, output or time, and its code; `told` is the code of the time."""
    own = case.network.call
    factor = {1.0: "", -1.0: "-"}.get(output, f"{output:g} * ")
    x = "x" if given == 1.0 else f"{given:g} * x"
    condition = "" if case.options.kind == "none" else ", c"

    def call(net: nn.Module, x: Tensor, t: Tensor, c: Tensor | None) -> Tensor:
        prediction: Tensor = prediction_in(own(net, given * x, time(t), c))
        return output * prediction

    return call, f"call=lambda net, x, t, c: {factor}net({x}, {told}{condition})"


def scaling_of(model: Model) -> tuple[float, float] | None:
    """The factor and the shift of the latents of a model; None for samples that are no latents."""
    codec = model.denoiser.codec
    return (codec.scaling_factor, codec.shift_factor) if isinstance(codec, VAECodec) else None


def _scalings(case: Case) -> Iterator[NearMiss]:
    """Yields other scales of latents: those of known autoencoders, and that which makes their deviation 1."""
    own = scaling_of(case.model)
    if own is None:
        return
    factor, shift = own
    alike = factor / max(float(case.samples.std()), 1e-6)
    known = [one for one in SCALINGS if one != own]
    if all(abs(alike / one[0] - 1) > APART for one in [own, *known]):
        known.append((float(f"{alike:.3g}"), shift))
    for other in known:
        # y = (z - m') s' of latents x = (z - m) s, whose range is the reach about the middle
        reach = other[0] / factor
        middle = (shift - other[1]) * other[0]
        code = f"scaling_factor={other[0]:g}" + (f", shift_factor={other[1]:g}" if shift or other[1] else "")
        bounds = (middle - reach, middle + reach)
        yield from _change(case, "scaling of latents", _scale(own), _scale(other), code, data_range=bounds)


def _scale(scaling: tuple[float, float]) -> str:
    factor, shift = scaling
    return f"{factor:g} with shift {shift:g}" if shift else f"{factor:g}"


def _images(case: Case) -> Iterator[NearMiss]:
    for name in SEEN if case.samples.ndim == 4 else ():
        seen = _seen(case, name)
        if seen.shape == case.samples.shape and not torch.equal(seen, case.samples):
            code = f"the images: {name}"
            yield NearMiss("samples", "images as they are", f"{name},", case.model, samples=seen, change=code)


def _seen(case: Case, name: str) -> Tensor:
    """The samples of images that are seen in another way, made once; for other colours, latents are decoded."""
    if name not in case.seen:
        codec = case.model.denoiser.codec
        if isinstance(codec, VAECodec) and name in OF_COLOURS:
            case.seen[name] = codec.encode(SEEN[name](codec.decode(case.samples)))
        else:
            case.seen[name] = SEEN[name](case.samples)
    return case.seen[name]


def _processors(case: Case) -> Iterator[NearMiss]:
    samples = case.samples
    if samples.ndim != 2:
        return
    std = samples.std(0)
    got = f"numbers of standard deviations {float(std.min()):.3g} to {float(std.max()):.3g}"
    for code, quantiles in PROCESSORS.items():
        with suppress(InputError):  # numbers that cannot be standardised
            changed = NumberProcessor.fit(samples, quantiles=quantiles).encode(samples)
            if float((changed - samples).square().mean() / samples.var()) > OTHER:
                yield NearMiss("processor", got, code, case.model, samples=changed, change=f"processor={code}")
