"""The adapter around a network that was trained elsewhere: it predicts of the library's samples.

Notation: variable -> symbol
    sample      x = s x0 + n eps, the library's variance-preserving sample of clean data x0
    middle, reach   y = middle + reach x0, the data of the network
    sigma       reach n / s, the noise on y
    scale       c(sigma), of what the network is given: c y + c sigma eps
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import attrs
import torch
from torch import Tensor, nn

from energycomp.components import (
    LEAST_ALPHA,
    LEAST_NOISE,
    AnyPrediction,
    Condition,
    PredictionType,
    by_sample,
    convert,
    is_noise,
    log_snr,
    norm_at,
)
from energycomp.errors import EnergycompError, InputError
from energycomp.models import Model, on_meta
from energycomp.plugins import find
from energycomp_adopt.process import CLOCKS, Clock, Process, shortly

Predicts = Literal["eps", "x0", "v", "flow", "score", "edm"]  # what `adopt` is told
PREDICTIONS: dict[Predicts, AnyPrediction] = {
    "eps": "epsilon", "x0": "sample", "v": "v_prediction", "flow": "flow", "score": "score", "edm": "edm",
}  # fmt: skip
Kind = Literal["classes", "values", "rows", "conditions", "none"]
Call = Callable[[nn.Module, Tensor, Tensor, Any], Any]


@attrs.frozen
class Options:
    """What a network is, as `adopt` was told and a `config.json` has it.

    `kind` is that of its conditions: labels of "classes", numbers that are "values" or "rows", whole "conditions" of
    the library, with their null rows, or "none".
    """

    process: Any
    predicts: Predicts
    clock: Clock
    data_range: tuple[float, float] | None
    sigma_data: float
    kind: Kind
    null: Any
    registered: tuple[str, Mapping[str, Any]] | None

    def check(self, process: Process) -> None:
        """Raises `InputError` for names that there are not, and for a prediction that its process does not have."""
        for what, got, known in (("predicts", self.predicts, get_args(Predicts)), ("clock", self.clock, CLOCKS)):
            if got not in known:
                raise InputError(f"got {what}={got!r}; expected one of {', '.join(map(repr, known))}")
        by_sigma = process.name == "sigmas"
        fits = {"v": not (process.is_flow or by_sigma), "flow": process.is_flow, "edm": by_sigma}
        if not fits.get(self.predicts, True):
            raise InputError(
                f"got predicts={self.predicts!r} with process={shortly(self.process)}; expected betas for v, a flow "
                "for flow, and (least, greatest) sigma for edm; change one"
            )


class Adopted(nn.Module):
    """The network behind an adapter: it is given its own noised data, time and conditions. See `adopt`.

    All but the network computes in float32, or in float64 for a network in float64. A network with `own` is called, or
    given conditions, in a way that no `config.json` can say.
    """

    casts_samples = True

    def __init__(self, network: nn.Module, options: Options, call: Call | None = None, *, own: bool = False) -> None:
        super().__init__()
        self.network = network
        self.options = options
        self.process = Process.of(options.process)
        self.call = call or _usual_call(network)
        self.own = own
        low, high = options.data_range or (-1.0, 1.0)
        self.middle = (low + high) / 2
        self.reach = (high - low) / 2
        to_data = options.predicts == "flow" and self.process.name == "flow to data"
        self.prediction: AnyPrediction = "flow_to_data" if to_data else PREDICTIONS[options.predicts]
        self.target: PredictionType = "epsilon" if is_noise(self.prediction) else "sample"
        alphas_cumprod = 1 / (1 + (self.process.sigmas / self.reach).square())
        self.alphas_cumprod = alphas_cumprod.clamp(LEAST_ALPHA, 1 - LEAST_NOISE)

    @property
    def config(self) -> dict[str, Any]:
        """What it is made of, as JSON; networks are found by their registered names."""
        if self.options.registered is None or self.own:
            raise InputError(
                f"got the network {type(self.network).__name__} to save, which is not registered, or is called or "
                "given conditions in a way of your own; expected a network with a name and forward(x, t, condition): "
                "plugins.register('networks', name, Class), then adopt(..., registered=(name, arguments)), and the "
                "name of a conditioner"
            )
        self._check_registered()
        return attrs.asdict(self.options, recurse=False)

    def _check_registered(self) -> None:
        """Raises `InputError` where `registered` makes another network, so that a saved model could not be loaded."""
        name, arguments = self.options.registered or ("", {})
        with on_meta():
            made = find("networks", name)(**arguments)
        own, other = ({key: tuple(one.shape) for key, one in net.state_dict().items()} for net in (self.network, made))
        same = type(made) is type(self.network)
        if not same or own != other:
            got = f"a {type(made).__name__}" + (" with weights of other shapes" if same else "")
            raise InputError(
                f"got registered={(name, arguments)!r:.80}, which makes {got}; expected what makes this "
                f"{type(self.network).__name__}; correct the name or the arguments"
            )

    def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """As `Network`, of the type `target`."""
        own = condition.rows.dtype  # of the weights
        sample = sample.to(torch.promote_types(sample.dtype, torch.promote_types(own, torch.float32)))
        axes = sample.ndim
        # The noise on the network's own data, in float64
        snr = log_snr(self.alphas_cumprod.to(timestep.device), timestep)
        level = self.reach * (-snr / 2).exp()
        sigma_data = self.options.sigma_data
        norm = norm_at(self.prediction, 1.0, level, sigma_data)
        factor = self.process.scale(level) if norm is None else 1 / norm
        sigma = by_sample(level, axes).to(sample.dtype)
        scale = by_sample(factor, axes).to(sample.dtype)
        signal = by_sample(torch.sigmoid(snr).sqrt(), axes).to(sample.dtype)
        # What it is given, and told
        given = scale * (self.middle + self.reach * sample / signal)
        time = CLOCKS[self.options.clock](self.process, timestep, level)
        time = time.to(sample.dtype) if time.is_floating_point() else time
        out = self._call(given.to(own), time, self._condition(condition), sample)
        # What the library takes: eps is the same for all data, x0 is moved back
        target = convert(
            out, given, scale, scale * sigma, source=self.prediction, target=self.target, sigma_data=sigma_data
        )
        return target if self.target == "epsilon" else (target - self.middle) / self.reach

    def _condition(self, condition: Condition) -> Tensor | Condition | None:
        """Makes what the network is given: labels (R,), rows (R, D) or (R, L, D), or None without conditions."""
        if self.options.kind == "none":
            return None
        if self.options.kind == "conditions":
            return condition
        null = self.options.null
        rows = condition.rows
        if self.options.kind == "classes":
            if rows.requires_grad:
                raise InputError(
                    "got a gradient for the classes of an adopted network, which takes labels; expected a solver that "
                    "lists values; use enumerate or beam"
                )
            rows = rows[:, 0].argmax(1)
        elif rows.shape[1] == 1:
            rows = rows[:, 0]
        if null is None:
            return rows
        return torch.where(by_sample(condition.null, rows.ndim), torch.as_tensor(null).to(rows), rows)

    def _call(self, given: Tensor, time: Tensor, condition: Tensor | Condition | None, sample: Tensor) -> Tensor:
        """Predicts for a sample; raises `InputError`, with what the network was given, for any other output."""
        try:
            out = prediction_in(self.call(self.network, given, time, condition))
        except (EnergycompError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            got = [f"x {tuple(given.shape)}, t {time.dtype}".replace("torch.", "")]
            if self.options.kind == "classes" and isinstance(condition, Tensor):
                got.append(f"labels {int(condition.min())} to {int(condition.max())}")
            message = f"{error}".strip() or type(error).__name__
            raise InputError(
                f"got an error of {type(self.network).__name__} for {', '.join(got)}: "
                f"{message.splitlines()[0]:.160}; expected a prediction; {self._advice(error, given, time)}"
            ) from error
        if not isinstance(out, Tensor) or out.shape[0] != len(sample) or out.shape[2:] != sample.shape[2:]:
            got_shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise InputError(
                f"got {got_shape} from the network for samples {tuple(sample.shape)}; expected the same shape"
            )
        return out[:, : sample.shape[1]].to(sample.dtype)  # without a variance that is predicted, too

    def _advice(self, error: Exception, given: Tensor, time: Tensor) -> str:
        """What to change where the network raises an error."""
        message = f"{error}".strip()
        embeddings = sorted(embedding_sizes(self.network))
        if embeddings and isinstance(error, IndexError) and message.startswith("index"):  # no "Dimension out of range"
            return f"correct classes= or null=: its embeddings have {' and '.join(map(str, embeddings))} rows"
        if "indices" in message and time.is_floating_point():
            return (
                "correct shape=, or how it is called, by call=; clock='index' gives whole timesteps to an nn.Embedding "
                "over t"
            )
        if given.dtype in (torch.bfloat16, torch.float16) and "dtype" in message:
            return "cast t, or what it is embedded to, by call=, such as lambda net, x, t, c: net(x, t.to(x), c)"
        if isinstance(error, TypeError) and "argument" in message:
            return "correct how it is called, by call=, such as lambda net, x, t, c: net(x, timesteps=t, y=c)"
        return "correct shape=, or how it is called, by call="


def network_of(model: Model) -> Adopted:
    """The adapter of an adopted model; raises `InputError` for another model."""
    network = model.denoiser.network
    if not isinstance(network, Adopted):
        raise InputError(f"got {model.name}, which was not adopted; expected a model of `adopt`; use check_model")
    return network


def embedding_sizes(network: nn.Module) -> set[int]:
    """How many rows each embedding of a network has."""
    return {part.num_embeddings for part in network.modules() if isinstance(part, nn.Embedding)}


def prediction_in(out: Any) -> Any:
    """The prediction in what a network gives: an output of diffusers, a tuple that begins with it, or it alone."""
    if isinstance(out, Mapping):
        return out["sample"]
    return out[0] if isinstance(out, tuple) else out


def load_adopted(**config: Any) -> Adopted:
    """The adapter that a saved model names, with a network without its weights."""
    options = Options(**config)
    name, arguments = options.registered or ("", {})
    return Adopted(find("networks", name)(**arguments), options)


def _usual_call(network: nn.Module) -> Call:
    """Calls net(x, t, condition), or net(x, t) of a network that takes no more."""
    parameters = inspect.signature(network.forward).parameters.values()
    by_place = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if len(by_place) > 2 or any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return lambda net, x, t, c: net(x, t) if c is None else net(x, t, c)
    return lambda net, x, t, _: net(x, t)
