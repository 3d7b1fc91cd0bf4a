"""The adapter around a network that was trained elsewhere: it predicts of the library's samples.

Notation: variable -> symbol
    sample      x = s x0 + n eps, the library's variance-preserving sample of clean data x0
    middle, reach   y = middle + reach x0, the data of the network
    sigma       reach n / s, the noise on y
    scale       c(sigma), of what the network is given: c y + c sigma eps
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from energycomp.components import Condition, log_snr
from energycomp.components.prediction import AnyPrediction, PredictionType, convert, is_noise, norm_at
from energycomp.components.space import LEAST_ALPHA, LEAST_NOISE, by_sample
from energycomp.errors import EnergycompError, InputError
from energycomp.models.process import Process
from energycomp.models.weights import on_meta
from energycomp.plugins import find

Predicts = Literal["eps", "x0", "v", "flow", "score", "edm"]  # what `adopt` is told
KINDS: dict[Predicts, AnyPrediction] = {
    "eps": "epsilon", "x0": "sample", "v": "v_prediction", "flow": "flow", "score": "score", "edm": "edm",
}  # fmt: skip
Call = Callable[[nn.Module, Tensor, Tensor, Tensor | None], Any]


class Adopted(nn.Module):
    """The network behind an adapter: it is given its own noised data, time and conditions. See `adopt`.

    All but the network computes in float32, or in float64 for a network in float64.
    """

    casts_samples = True

    def __init__(self, network: nn.Module, process: Process, options: Mapping[str, Any], call: Call | None) -> None:
        super().__init__()
        self.network = network
        self.process = process
        self.options = dict(options)
        self.call = call or _as_usual(network)
        low, high = options["data_range"] or (-1.0, 1.0)
        self.middle = (low + high) / 2
        self.reach = (high - low) / 2
        to_data = options["predicts"] == "flow" and process.name == "flow to data"
        self.kind: AnyPrediction = "flow_to_data" if to_data else KINDS[options["predicts"]]
        self.target: PredictionType = "epsilon" if is_noise(self.kind) else "sample"
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
        """As `Network`, of the type `target`."""
        own = condition.rows.dtype  # of the weights
        sample = sample.to(torch.promote_types(sample.dtype, torch.promote_types(own, torch.float32)))
        axes = sample.ndim
        data = self.options["sigma_data"]
        # The noise on the network's own data, in float64
        snr = log_snr(self.alphas_cumprod.to(timestep.device), timestep)
        level = self.reach * (-snr / 2).exp()
        norm = norm_at(self.kind, 1.0, level, data)
        sigma, scale, signal = (
            by_sample(one, axes).to(sample.dtype)
            for one in (level, self.process.scale(level) if norm is None else 1 / norm, torch.sigmoid(snr).sqrt())
        )
        # What it is given, and told
        given = scale * (self.middle + self.reach * sample / signal)
        time = self.process.time(self.options["clock"], timestep, level)
        time = time.to(sample.dtype) if time.is_floating_point() else time
        out = self._out(self._called(given.to(own), time, self._condition(condition)), sample)
        # What the library takes: eps is the same for all data, x0 is moved back
        found = convert(out, given, scale, scale * sigma, source=self.kind, target=self.target, sigma_data=data)
        return found if self.target == "epsilon" else (found - self.middle) / self.reach

    def _condition(self, condition: Condition) -> Tensor | None:
        """What the network is given: labels (R,) of classes, rows (R, D) or (R, L, D), None without conditions."""
        null = self.options["null"]
        rows = condition.rows
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
            said = f"{error}".strip()
            embeddings = sorted({m.num_embeddings for m in self.network.modules() if isinstance(m, nn.Embedding)})
            if self.options["kind"] == "classes" and condition is not None:
                got.append(f"labels {int(condition.min())} to {int(condition.max())}")
            if embeddings and isinstance(error, IndexError) and said.startswith("index"):  # no "Dimension out of range"
                change = f"correct classes= or null=: its embeddings have {' and '.join(map(str, embeddings))} rows"
            elif "indices" in said and time.is_floating_point():
                change = f"{change}; clock='index' gives whole timesteps to an nn.Embedding over t"
            elif given.dtype in (torch.bfloat16, torch.float16) and "dtype" in said:
                change = "cast t, or what it is embedded to, by call=, such as lambda net, x, t, c: net(x, t.to(x), c)"
            elif isinstance(error, TypeError) and "argument" in said:
                change = "correct how it is called, by call=, such as lambda net, x, t, c: net(x, timesteps=t, y=c)"
            reason = next(iter(said.splitlines()), type(error).__name__)
            raise InputError(
                f"got an error of {type(self.network).__name__} for {', '.join(got)}: {reason:.160}; expected a "
                f"prediction; {change}"
            ) from error

    def _out(self, out: Any, sample: Tensor) -> Tensor:
        """The prediction, without what diffusers and networks that predict a variance give with it."""
        out = prediction_in(out)
        if not isinstance(out, Tensor) or out.shape[0] != len(sample) or out.shape[2:] != sample.shape[2:]:
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise InputError(f"got {got} from the network for samples {tuple(sample.shape)}; expected the same shape")
        return out[:, : sample.shape[1]].to(sample.dtype)


def prediction_in(out: Any) -> Any:
    """The prediction in what a network gives: an output of diffusers, a tuple that begins with it, or it alone.

    >>> prediction_in((1.0, 2.0)), prediction_in({"sample": 1.0}), prediction_in(1.0)
    (1.0, 1.0, 1.0)
    """
    if isinstance(out, Mapping):
        return out["sample"]
    return out[0] if isinstance(out, tuple) else out


def adopted(*, registered: Sequence[Any], process: Any, **options: Any) -> Adopted:
    """The adapter that a saved model names."""
    name, arguments = registered
    options |= {"registered": registered, "process": process, "own": False}
    return Adopted(find("networks", name)(**arguments), Process.of(process), options, None)


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
