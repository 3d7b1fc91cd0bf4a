"""A network that was trained elsewhere as a model: what it predicts, its process, its data and its conditions.

Notation: variable -> symbol
    sample      x = s x0 + n eps, the library's variance-preserving sample of clean data x0
    middle, reach   y = middle + reach x0, the data of the network
    sigma       reach n / s, the noise on y
    noisy       z = y + sigma eps
    scale       c(sigma), what the network is given of z: c z
    vp          a z with a^2 (1 + sigma^2) = 1, of which the predictions of the library are
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import attrs
import torch
from torch import Tensor, nn

from energycomp.components import Classes, Condition, Conditioner, Latents, log_snr
from energycomp.components.prediction import PredictionType, convert
from energycomp.components.space import LEAST_ALPHA, LEAST_NOISE, by_sample
from energycomp.denoisers import Denoiser
from energycomp.errors import EnergycompError, InputError
from energycomp.images import ImageProcessor, is_picture
from energycomp.models.defaults import Defaults
from energycomp.models.model import Model
from energycomp.models.numbers import NumberProcessor
from energycomp.models.process import FLOWS, Clock, Process, shortly
from energycomp.models.weights import load_weights, on_meta, read_weights
from energycomp.plugins import find

Predicts = Literal["eps", "x0", "v", "flow", "score", "edm"]
KINDS: dict[str, PredictionType] = {"x0": "sample", "v": "v_prediction", "flow": "flow"}
READ = (5.0, 0.05)  # SNR between which images are read: more noise hides the data, less hides the condition
STEPS = 200  # of sampling: 50 make data of a deviation of 0.25 narrower by 6 to 19 %
REACHED = 0.05  # share of the variance from the data at the last timestep, below which it is noise
Call = Callable[[nn.Module, Tensor, Tensor, Tensor | None], Any]


class Adopted(nn.Module):
    """The network behind an adapter: it is given its own noised data, time and conditions. See `adopt`."""

    def __init__(self, network: nn.Module, process: Process, options: Mapping[str, Any], call: Call | None) -> None:
        super().__init__()
        self.network, self.process, self.options = network, process, dict(options)
        self.call = call or _as_usual(network)
        low, high = options["data_range"] or (-1.0, 1.0)
        self.middle, self.reach = (low + high) / 2, (high - low) / 2
        self.alphas_cumprod = (1 / (1 + (process.sigmas / self.reach).square())).clamp(LEAST_ALPHA, 1 - LEAST_NOISE)

    @property
    def config(self) -> dict[str, Any]:
        """What it is made of, as JSON; networks are found by their registered names."""
        if self.options["registered"] is None or self.options["own"]:
            raise InputError(
                f"got the network {type(self.network).__name__} to save, which is not registered, or is called or "
                "given conditions in a way of your own; expected a network with a name and forward(x, t, condition): "
                "plugins.register('networks', name, Class), then adopt(..., registered=(name, arguments)), and the "
                "name of a conditioner"
            )
        self._check_registered()
        return {key: value for key, value in self.options.items() if key != "own"}

    def _check_registered(self) -> None:
        """Raises `InputError` where `registered` makes another network, so that a saved model could not be loaded."""
        name, arguments = self.options["registered"]
        with on_meta():
            made = find("networks", name)(**arguments)
        own, other = ({key: tuple(one.shape) for key, one in net.state_dict().items()} for net in (self.network, made))
        if type(made) is not type(self.network) or own != other:
            same = type(made) is type(self.network)
            got = f"a {type(made).__name__}" + (" with weights of other shapes" if same else "")
            raise InputError(
                f"got registered={(name, arguments)!r:.80}, which makes {got}; expected what makes this "
                f"{type(self.network).__name__}; correct the name or the arguments"
            )

    def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """As `Network`: eps where the network predicts eps or a score, else x0."""
        predicts, clock, axes = self.options["predicts"], self.options["clock"], sample.ndim
        snr = log_snr(self.alphas_cumprod.to(timestep.device), timestep)
        level, signal = self.reach * (-snr / 2).exp(), torch.sigmoid(snr).sqrt()  # (R,), float64
        sigma, scale = (by_sample(one, axes).to(sample.dtype) for one in (level, self.process.scale(level)))
        noisy = self.middle + self.reach * sample / by_sample(signal, axes).to(sample.dtype)
        data = self.options["sigma_data"]
        total = (sigma.square() + data**2).sqrt()
        given = noisy / total if predicts == "edm" else scale * noisy
        time = self.process.time(clock, timestep, level)
        time = time if clock == "index" else time.to(sample.dtype)
        out = self._out(self._called(given, time, self._condition(condition)), sample)
        if predicts in ("eps", "score"):
            return out if predicts == "eps" else -out * sigma * scale
        if predicts == "edm":
            clean = noisy * (data / total).square() + out * sigma * data / total
        else:
            out = -out if predicts == "flow" and self.process.name == "flow to data" else out
            one = 1 / (1 + sigma.square()).sqrt()
            clean = convert(out, one * noisy, one, one * sigma, source=KINDS[predicts], target="sample")
        return (clean - self.middle) / self.reach

    def _condition(self, condition: Condition) -> Tensor | None:
        """What the network is given: labels (R,) of classes, rows (R, D) or (R, L, D), None without conditions."""
        null, rows = self.options["null"], condition.rows
        if self.options["kind"] == "none":
            return None
        if self.options["kind"] == "classes":
            if rows.requires_grad:
                raise InputError(
                    "got a gradient for the classes of an adopted network, which takes labels; expected a solver that "
                    "lists values; use enumerate or beam"
                )
            labels = rows[:, 0].argmax(1)
            return labels if null is None else torch.where(condition.null, torch.full_like(labels, null), labels)
        rows = rows[:, 0] if rows.shape[1] == 1 else rows
        if null is None:
            return rows
        return torch.where(by_sample(condition.null, rows.ndim), torch.as_tensor(null).to(rows), rows)

    def _called(self, given: Tensor, time: Tensor, condition: Tensor | None) -> Any:
        """What the network gives; its errors in one line, with what it was given."""
        try:
            return self.call(self.network, given, time, condition)
        except (EnergycompError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            got = [f"x {tuple(given.shape)}, t {time.dtype}".replace("torch.", "")]
            change = "correct shape=, or how it is called, by call="
            embeddings = sorted({m.num_embeddings for m in self.network.modules() if isinstance(m, nn.Embedding)})
            if self.options["kind"] == "classes" and condition is not None:
                got.append(f"labels {int(condition.min())} to {int(condition.max())}")
            if embeddings and isinstance(error, IndexError):
                change = f"correct classes= or null=: its embeddings have {' and '.join(map(str, embeddings))} rows"
            elif embeddings and time.is_floating_point():
                change = f"{change}; clock='index' gives whole timesteps to an nn.Embedding over t"
            reason = next(iter(f"{error}".strip().splitlines()), type(error).__name__)
            raise InputError(
                f"got an error of {type(self.network).__name__} for {', '.join(got)}: {reason:.160}; expected a "
                f"prediction; {change}"
            ) from error

    def _out(self, out: Any, sample: Tensor) -> Tensor:
        """The prediction, without what diffusers and networks that predict a variance give with it."""
        out = getattr(out, "sample", out)
        out = out[0] if isinstance(out, tuple) else out
        if not isinstance(out, Tensor) or out.shape[0] != len(sample) or out.shape[2:] != sample.shape[2:]:
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise InputError(f"got {got} from the network for samples {tuple(sample.shape)}; expected the same shape")
        return out[:, : sample.shape[1]].to(sample.dtype)


def adopted(*, registered: Sequence[Any], process: Any, **options: Any) -> Adopted:
    """The adapter that a saved model names."""
    name, arguments = registered
    options |= {"registered": registered, "process": process, "own": False}
    return Adopted(find("networks", name)(**arguments), Process.of(process), options, None)


def adopt(
    network: nn.Module,
    *,
    shape: Sequence[int],
    classes: int | Sequence[str] | None = None,
    values: int | None = None,
    conditioner: Conditioner | str | None = None,
    null: Any = None,
    predicts: Predicts = "eps",
    process: Any = "linear",
    clock: Clock | None = None,
    data_range: tuple[float, float] | None = (-1.0, 1.0),
    sigma_data: float = 0.5,
    call: Call | None = None,
    registered: tuple[str, Mapping[str, Any]] | None = None,
    name: str = "adopted",
    processor: Any = None,
    weights: str | Path | None = None,
    **defaults: Any,
) -> Model:
    """A network that was trained elsewhere, as a model.

    Whatever its schedule, its samples are those of the library, so that it composes with other models, by `match_snr`
    where their noise differs. Whether what is said of the network is true, `check_adoption` of energycomp-lab finds out
    from samples; nothing else does.

    Args:
        network: in any mode; it is set to eval mode.
        shape: of a sample, (C, H, W) of images.
        classes: their number or names, for a network of labels (R,).
        values: D, for a network of numbers (R, D).
        conditioner: of your own, or the name of a registered one, whose rows (R, L, D) the network is given; without
            any of the three it has no condition, and one component.
        null: the label, or row of numbers, that was trained as unconditional; None where there is none: `&`, `~` and
            guidance are then refused, and components are averaged; `sampler="mixture"` samples `a | b`. No u is made
            of the labels: it is the mean of their predictions by the posterior of the labels at each noised sample,
            which predictions of noise alone do not give.
        predicts: eps, x0, v, the velocity of a flow, a score, or the raw output of a network under the preconditioning
            of EDM (Karras et al., 2022).
        process: "linear", "scaled linear", "stable diffusion" or "cosine" betas of 1000 timesteps, an array of betas or
            alphas_cumprod (T,); "flow", with noise at t = 1, or "flow to data", with data there; (least, greatest)
            sigma of y + sigma eps.
        clock: what the network is told: the timestep, its "index" as a whole number, which an nn.Embedding needs, t in
            [0, 1], sigma, or log sigma / 4. By default what is usual.
        data_range: least and greatest number of the network's data; None for data without bounds.
        sigma_data: of EDM.
        call: how the network is called: `lambda net, x, t, c: net(x, t, c)`; c is None without conditions.
        registered: the name and the arguments by which `plugins.register("networks", ...)` makes the network, to save
            the model.
        name: of the model.
        processor: for data that are no images, such as a `NumberProcessor`.
        weights: of the network, a safetensors file or a folder of them; it keeps its own when left out.
        defaults: of `Defaults`, such as `counts=(0, 2)`. The scheduler is DDPM, which clips to the data range, and that
            of Euler without bounds, from which DDIM lets predictions of noise stray. It takes 200 steps: fewer make
            samples narrower than the data.

    Raises:
        InputError: options that contradict each other, or weights that need pickle, with how to convert them.
        CheckpointError: weights that are absent or damaged, or do not fit.

    Warns:
        UserWarning: a process whose last timestep still shows data of this range.

    >>> from energycomp import Composer
    >>> class Digits(nn.Module):
    ...     def forward(self, x, t, label):
    ...         return 0.1 * x + label[:, None, None, None]
    >>> model = adopt(Digits(), shape=(1, 8, 8), classes=10, null=10, predicts="x0", process="cosine")
    >>> model(3) & model(4)
    -u + adopted(3) + adopted(4)
    """
    shape, made = _checked(network, shape, null, data_range, sigma_data, defaults), Process.of(process)
    if weights is not None:
        load_weights(network, read_weights(weights), str(weights))
    conditions, kind, named = _conditioner(classes, values, conditioner, name)
    clock = clock or _usual_clock(predicts, made)
    for what, got, known in (("predicts", predicts, get_args(Predicts)), ("clock", clock, get_args(Clock))):
        if got not in known:
            raise InputError(f"got {what}={got!r}; expected one of {', '.join(map(repr, known))}")
    fits = {"v": made.name not in (*FLOWS, "sigmas"), "flow": made.name in FLOWS, "edm": made.name == "sigmas"}
    if not fits.get(predicts, True):
        raise InputError(
            f"got predicts={predicts!r} with process={shortly(process)}; expected betas for v, a flow for flow, and "
            "(least, greatest) sigma for edm; change one"
        )
    row = null.tolist() if isinstance(null, Tensor) else null
    said = process.tolist() if isinstance(process, Tensor) else process
    options = {
        "registered": registered, "process": said, "predicts": predicts, "clock": clock, "data_range": data_range,
        "sigma_data": sigma_data, "kind": kind, "null": row, "own": call is not None or not named,
    }  # fmt: skip
    own = Adopted(network, made, options, call).eval()
    if float(own.alphas_cumprod[-1]) > REACHED:
        warnings.warn(
            f"got process={shortly(process)} with data_range={data_range}, whose last timestep still has "
            f"{float(own.alphas_cumprod[-1]):.2f} of the variance from the data; expected below {REACHED}; most "
            "networks are trained on data in (-1, 1) or (0, 1): correct data_range=",
            stacklevel=2,
        )
    image = is_picture(shape)
    if processor is None and image:
        processor = ImageProcessor(size=shape[1:], channels=shape[0])
    elif processor is None:  # numbers as they are
        processor = NumberProcessor.fit(torch.stack([-torch.ones(shape), torch.ones(shape)]))
    denoiser = Denoiser(
        network=own,
        alphas_cumprod=own.alphas_cumprod.float(),
        prediction_type="epsilon" if predicts in ("eps", "score") else "sample",
        rule="mean" if null is None else "product",
        sample_shape=shape,
        token_shape=conditions.token_shape,
        null_trained=null is not None,
        codec=None if image else processor,
        value_range=None if data_range is None else (-1.0, 1.0),
    )
    snr = log_snr(denoiser.alphas_cumprod, torch.arange(float(len(made.sigmas)))).exp()
    low, high = (float((snr > bound).sum()) for bound in READ)
    window = (min(low, len(snr) - 1.0), max(high, low + 1, 1.0))
    counts = (1, 1) if null is None else (0, 2)
    solver = "enumerate" if kind in ("classes", "none") else "sgd"
    scheduler = "EulerDiscreteScheduler" if denoiser.noised_space.value_range is None else "DDPMScheduler"
    settings: dict[str, Any] = {"timesteps": window, "counts": counts, "solver": solver, "scheduler": scheduler}
    settings["num_inference_steps"] = STEPS
    return Model(
        name=name,
        denoiser=denoiser,
        conditioner=conditions,
        processor=processor,
        network_name="adopted",
        conditioner_name=named or "of your own",
        defaults=Defaults(**{**settings, **defaults}),
    )


def _checked(
    network: Any, shape: Any, null: Any, data_range: Any, sigma_data: Any, defaults: Mapping[str, Any]
) -> tuple[int, ...]:
    """The shape of a sample; raises `InputError` for what no network has."""
    shape = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    bounds = (-1.0, 1.0) if data_range is None else data_range
    known = {field.name for field in attrs.fields(Defaults)}
    numbers = [null] if isinstance(null, int | float) else null
    for what, legal, got, expected in (
        ("network", isinstance(network, nn.Module), type(network).__name__, "a torch.nn.Module"),
        ("shape", all(type(n) is int and n > 0 for n in shape), shape, "positive integers, (C, H, W) of images"),
        ("null", null is None or _finite(numbers), null, "a label from 0, or the numbers of a row"),
        ("data_range", _finite(bounds, 2) and bounds[0] < bounds[1], data_range, "(least, greatest) number, or None"),
        ("sigma_data", _finite([sigma_data]) and sigma_data > 0, sigma_data, "a number above 0"),
        ("defaults", defaults.keys() <= known, sorted(defaults.keys() - known), "such as counts= or draws="),
    ):
        if not legal:
            raise InputError(f"got {what}={got!r:.80}; expected {expected}; change it")
    return shape


def _finite(numbers: Any, count: int | None = None) -> bool:
    try:
        found = torch.as_tensor(numbers).double().flatten()
    except (TypeError, ValueError, RuntimeError):
        return False
    return len(found) > 0 and count in (None, len(found)) and bool(found.isfinite().all())


def _conditioner(
    classes: int | Sequence[str] | None, values: int | None, conditioner: Conditioner | str | None, name: str
) -> tuple[Conditioner, str, str]:
    """What makes the condition rows, of which kind they are, and its registered name, if it has one."""
    given = [what for what in (classes, values, conditioner) if what is not None]
    if len(given) > 1:
        raise InputError(f"got {len(given)} of classes, values and conditioner; expected one of them, or none")
    if isinstance(conditioner, str):
        return find("conditioners", conditioner)(), "rows", conditioner
    if conditioner is not None:
        return conditioner, "rows", ""
    if values is not None:
        return Latents(values), "values", "latents"
    if classes is not None:
        return Classes(range(classes) if isinstance(classes, int) else classes), "classes", "classes"
    return Classes([name]), "none", "classes"


def _usual_clock(predicts: Predicts, process: Process) -> Clock:
    if predicts == "edm":
        return "log sigma / 4"
    return "unit" if process.name in FLOWS else "sigma" if process.name == "sigmas" else "timestep"


def _as_usual(network: nn.Module) -> Call:
    """net(x, t, condition), or net(x, t) of a network that takes no more."""
    taken = [
        one
        for one in inspect.signature(network.forward).parameters.values()
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.VAR_POSITIONAL)
    ]
    if len(taken) > 2 or any(one.kind is one.VAR_POSITIONAL for one in taken):
        return lambda net, x, t, c: net(x, t) if c is None else net(x, t, c)
    return lambda net, x, t, _: net(x, t)
