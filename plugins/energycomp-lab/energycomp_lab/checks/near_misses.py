"""What a network may be instead of what it was adopted as: models that differ in one option of `energycomp.adopt`."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from energycomp import adopt
from energycomp.components import Condition, by_sample, convert, signal_noise, timestep_of
from energycomp.denoisers import rows, trunk
from energycomp.errors import InputError
from energycomp.models import Model

SIGMAS = (0.002, 80.0)
PAIRS: tuple[tuple[str, Any], ...] = (("flow", "flow"), ("flow", "flow to data"), ("edm", SIGMAS))
CLOCKS: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {  # what else a network may be told, by `call`
    "timestep": {"999 - t": lambda t: 999 - t, "t / 1000": lambda t: t / 1000},
    "unit": {"1000 t": lambda t: 1000 * t, "1 - t": lambda t: 1 - t},
    "sigma": {"log sigma": torch.log},
    "log sigma / 4": {"log sigma": lambda t: 4 * t, "log sigma / 16": lambda t: t / 4},
}


@attrs.define
class Calls:
    """The evaluations of a network, in rows, and what it gave for what, once it is known to repeat."""

    evaluations: int = 0
    known: dict[Any, Any] | None = None


@contextmanager
def counted(network: nn.Module) -> Iterator[Calls]:
    """Within it, a network is counted, and evaluated once for equal inputs: options that read one output share it.

    Inputs that are no tensors or numbers, such as a dict of tensors, are not compared.
    """
    own, forward, calls = vars(network).get("forward"), network.forward, Calls()

    @functools.wraps(forward)
    def called(*args: Any, **kwargs: Any) -> Any:
        given = (*args, *kwargs.values())
        plain = all(one is None or isinstance(one, Tensor | int | float | str) for one in given)
        known = calls.known if plain else None
        key = tuple(_digest(one) if isinstance(one, Tensor) else one for one in given) if plain else ()
        if known is not None and key in known:
            return known[key]
        calls.evaluations += max((len(one) for one in given if isinstance(one, Tensor) and one.ndim), default=1)
        out = forward(*args, **kwargs)
        if known is not None:
            known[key] = out
        return out

    network.forward = called
    try:
        yield calls
    finally:
        del network.forward
        if own is not None:
            network.forward = own


def _digest(tensor: Tensor) -> bytes:
    return hashlib.sha256(tensor.detach().cpu().double().numpy().tobytes()).digest()


@attrs.frozen
class Finding:
    """A line of a table: what was measured, what is expected, and the verdict: "ok", "wrong", "unsure" or "note"."""

    what: str
    measured: str
    expected: str
    verdict: str
    change: str = ""


@attrs.frozen(eq=False)
class Noised:
    """Clean samples (R, ...), and the noise that is added at signal-to-noise ratios (R,).

    Args:
        index: of each among the samples that were given, (R,).
    """

    index: Tensor
    clean: Tensor
    noise: Tensor
    snr: Tensor

    def __getitem__(self, rows: Any) -> Noised:
        return Noised(self.index[rows], self.clean[rows], self.noise[rows], self.snr[rows])

    @property
    def levels(self) -> tuple[Tensor, Tensor]:
        """The amplitudes of signal and noise, each (R, 1, .., 1)."""
        snr = by_sample(self.snr.double(), self.clean.ndim)
        return (snr / (1 + snr)).sqrt().float(), (1 / (1 + snr)).sqrt().float()

    @property
    def sample(self) -> Tensor:
        """The variance-preserving x_t."""
        signal, noise = self.levels
        return signal * self.clean + noise * self.noise


def predicted(model: Model, noised: Noised, condition: Condition) -> Tensor:
    """The eps (R, ...) that a model predicts, on the CPU. Costs R network evaluations."""
    denoiser, sample = model.denoiser, noised.sample.to(model.denoiser.device)
    alphas = denoiser.alphas_cumprod
    timestep = timestep_of(alphas, noised.snr.log().to(sample.device)).to(sample.dtype)
    with torch.no_grad():
        out = rows(denoiser, trunk(denoiser, sample, timestep), condition, torch.arange(len(sample)).to(sample.device))
        levels = signal_noise(alphas, timestep, sample.dtype, sample.ndim)
        return convert(out, sample, *levels, source=denoiser.prediction_type, target="epsilon").cpu()


def errors(model: Model, noised: Noised, condition: Condition) -> Tensor:
    """The errors |eps - e|^2 (R,) of predictions e, in float64; 1e9 where they are not finite."""
    off = (predicted(model, noised, condition).double() - noised.noise).flatten(1).square().sum(1)
    return off.nan_to_num(1e9, 1e9).clamp(max=1e9)


@attrs.frozen(eq=False)
class NearMiss:
    """A model with another option.

    Args:
        option, got, instead: what `adopt` was given, and what it would be given.
        labels: the network's label of each class, (C,), if it is these that differ.
        rescaled: samples that are standardised, if it is these that differ.
    """

    option: str
    got: str
    instead: str
    model: Model
    labels: Tensor | None = None
    rescaled: Callable[[Tensor], Tensor] | None = None

    def __str__(self) -> str:
        return f"{self.option}: got {self.got}, {self.instead} explains the samples better"


def said_of(model: Model) -> dict[str, Any]:
    """The keywords with which `adopt` made an adopted model; `clock` where it does not follow from the others."""
    adapter: Any = model.denoiser.network
    options = adapter.options
    said = {name: options[name] for name in ("null", "predicts", "process", "data_range", "sigma_data")}
    said |= {
        "name": model.name,
        "registered": options["registered"],
        "call": adapter.call,
        "shape": model.denoiser.sample_shape,
        "processor": model.processor,
    }
    if options["kind"] == "classes":
        said["classes"] = getattr(model.conditioner, "names", None)
    elif options["kind"] != "none":
        said["conditioner"] = model.conditioner
    usual: Any = adopt(adapter.network, **said)
    own = usual.denoiser.network.options["clock"] != options["clock"]
    return said | ({"clock": options["clock"]} if own else {})


def remade(model: Model, **changed: Any) -> Model:
    """An adopted model with other keywords of `adopt`."""
    adapter: Any = model.denoiser.network
    return adopt(adapter.network, **{**said_of(model), **changed})


def labels_of(model: Model) -> int:
    """How many labels the network of a model of classes takes, by its classes, the null and its embeddings."""
    adapter: Any = model.denoiser.network
    classes, null = model.denoiser.token_shape[1], adapter.options["null"]
    sizes = {m.num_embeddings for m in adapter.network.modules() if isinstance(m, nn.Embedding)}
    return max(classes, 0 if null is None else int(null) + 1, classes + 1 if classes + 1 in sizes else 0)


def near_misses(model: Model, samples: Tensor, *, null: bool) -> Iterator[NearMiss]:
    """All that differ from an adopted model in one thing; `null` for those that differ in the null, too."""
    adapter: Any = model.denoiser.network
    said = said_of(model)
    for option, got, instead, changed in _changes(model, samples, null):
        with suppress(InputError):  # options that contradict each other
            yield NearMiss(option, got, instead, adopt(adapter.network, **{**said, **changed}))
    if len(model.denoiser.sample_shape) == 1 and len(samples) > 1:
        mean, std = samples.mean(0), samples.std(0).clamp(min=1e-6)
        if float(std.max() / std.min()) > 2:
            instead = "NumberProcessor.fit(data)"
            yield NearMiss("processor", "numbers as they are", instead, model, rescaled=lambda x: (x - mean) / std)


def _changes(model: Model, samples: Tensor, null: bool) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """The option, what it is, what it could be, and the keywords of `adopt` that say so."""
    adapter: Any = model.denoiser.network
    options, call = adapter.options | {"data_range": tuple(adapter.options["data_range"] or (-1.0, 1.0))}, adapter.call
    low, high = ((end - float(samples.mean())) / max(float(samples.std()), 1e-6) for end in (-1, 1))
    others: dict[str, tuple[Any, ...]] = {
        "predicts": ("eps", "x0", "v", "flow", "score", "edm"),
        "process": ("linear", "scaled linear", "stable diffusion", "cosine", "flow", "flow to data", SIGMAS),
        "clock": tuple(CLOCKS),
        "data_range": ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (round(low, 3), round(high, 3))),  # or of mean 0, std 1
        "sigma_data": (0.5, 1.0) if options["predicts"] == "edm" else (),
        "null": (0, labels_of(model) - 1) if null and options["kind"] == "classes" else (),
    }
    for option, known in others.items():
        for other in known:
            if other != options[option]:
                yield option, f"{options[option]!r:.30}", repr(other), {option: other}
    for kind, process in PAIRS:
        if kind != options["predicts"] and process != options["process"]:
            got = f"{options['predicts']!r} and {options['process']!r:.30}"
            yield "predicts and process", got, f"{kind!r} and {process!r}", {"predicts": kind, "process": process}
    for name, told in CLOCKS[options["clock"]].items():
        yield "clock", repr(options["clock"]), f"{name}, by call=,", {"call": _told(call, told)}
    yield "sign", "the output", "minus the output, by call=,", {"call": _turned(call)}


def _told(call: Any, told: Callable[[Tensor], Tensor]) -> Any:
    return lambda net, x, t, c: call(net, x, told(t), c)


def _turned(call: Any) -> Any:
    def turned(net: Any, x: Tensor, t: Tensor, c: Tensor | None) -> Tensor:
        out = call(net, x, t, c)
        out = getattr(out, "sample", out)
        return -(out[0] if isinstance(out, tuple) else out)

    return turned


def score(errors: Tensor, base: Tensor) -> tuple[float, float]:
    """log of the ratio of mean errors (L, M), averaged over L levels, and how many standard errors they are lower."""
    level = base.mean(1, keepdim=True)
    gap = ((base - errors) / level).flatten()
    spread = max(float(gap.std()), 1e-9)
    return float((errors.mean(1) / level[:, 0]).log().mean()), float(gap.mean()) / spread * math.sqrt(len(gap))
