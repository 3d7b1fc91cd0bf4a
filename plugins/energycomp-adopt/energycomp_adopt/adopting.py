"""A network that was trained elsewhere as a model: what it predicts, its process, its data and its conditions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from energycomp.components import Classes, Conditioner, Latents, log_snr
from energycomp.denoisers import Denoiser
from energycomp.errors import InputError
from energycomp.images import ImageProcessor, is_picture
from energycomp.models import Defaults, Model, NumberProcessor, VAECodec, load_weights, read_weights
from energycomp.plugins import find
from energycomp_adopt.adapter import Adopted, Call, Kind, Options, Predicts
from energycomp_adopt.process import Clock, Process, as_json, shortly

READ = (5.0, 0.05)  # SNR between which images are read: more noise hides the data, less hides the condition
STEPS = 200  # of sampling: 50 make data of a deviation of 0.25 narrower by 6 to 19 %
REACHED = 0.05  # share of the variance from the data at the last timestep, below which it is noise


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
    codec: VAECodec | None = None,
    weights: str | Path | None = None,
    **defaults: Any,
) -> Model:
    """A network that was trained elsewhere, as a model.

    Whatever its schedule, its samples are those of the library, so that it composes with other models, by `match_snr`
    where their noise differs. `check_adoption` finds out from samples whether what is said of the network is true.

    Args:
        network: in any mode; it is set to eval mode.
        shape: of a sample, (C, H, W) of images.
        classes: their number or names, for a network of labels (R,).
        values: D, for a network of numbers (R, D).
        conditioner: of your own, or the name of a registered one, whose rows (R, L, D) the network is given; without
            any of the three it has no condition, and one component.
        null: the label, or row of numbers, that was trained as unconditional; None where there is none: `&`, `~` and
            guidance are then refused, and components are averaged; `sampler="mixture"` samples `a | b`.
        predicts: eps, x0, v, the velocity of a flow, a score, or the raw output of a network under the preconditioning
            of EDM (Karras et al., 2022).
        process: "linear", "scaled linear", "stable diffusion" or "cosine" betas of 1000 timesteps, or a table (T,),
            `{"betas": table}` or `{"alphas_cumprod": table}`; "flow", with noise at t = 1, or "flow to data", with data
            there; (least, greatest) sigma of y + sigma eps.
        clock: what the network is told: the timestep, its "index" as a whole number, which an nn.Embedding needs, t in
            [0, 1], sigma, or log sigma / 4. By default what is usual.
        data_range: least and greatest number of the network's data; None for data without bounds.
        sigma_data: of EDM.
        call: how the network is called: `lambda net, x, t, c: net(x, t, c)`; c is None without conditions.
        registered: the name and the arguments by which `plugins.register("networks", ...)` makes the network, to save
            the model.
        processor: for data that are no images, such as a `NumberProcessor`.
        codec: of a network of latents, such as `VAECodec.read(folder, image_size=512)`; pixels when left out.
        weights: of the network, a safetensors file or a folder of them; it keeps its own when left out.
        defaults: of `Defaults`, such as `counts=(0, 2)`. The scheduler is DDPM, which clips to the data range, and that
            of Euler without bounds. It takes 200 steps: fewer make samples narrower than the data.

    Raises:
        InputError: options that contradict each other, or weights that need pickle, with how to convert them.
        CheckpointError: weights that are absent or damaged, or do not fit.

    Warns:
        UserWarning: a process whose last timestep still shows data of this range.

    >>> class Digits(nn.Module):
    ...     def forward(self, x, t, label):
    ...         return 0.1 * x + label[:, None, None, None]
    >>> model = adopt(Digits(), shape=(1, 8, 8), classes=10, null=10, predicts="x0", process="cosine")
    >>> model(3) & model(4)
    -u + adopted(3) + adopted(4)
    """
    _check_arguments(network, shape, null, data_range, sigma_data, defaults)
    shape = tuple(shape)
    noising = Process.of(process)
    if weights is not None:
        load_weights(network, read_weights(weights), str(weights))
    # What conditions it
    conditions, kind, registered_conditions = _conditioner(classes, values, conditioner, name)
    if getattr(network, "takes_conditions", False):
        kind = "conditions"
    null = as_json(null)
    if kind == "classes" and not isinstance(null, Integral | None):
        raise InputError(f"got null={null!r:.80} for a network of classes; expected a label, a whole number")
    # What it predicts of which process, and what it is told
    clock = clock or usual_clock(predicts, noising)
    options = Options(as_json(process), predicts, clock, data_range, sigma_data, kind, null, registered)
    options.check(noising)
    own = Adopted(network, options, call, own=call is not None or not registered_conditions).eval()
    _warn_of_data_left(own)
    # What a person gives, and what the network takes: images, or numbers as they are
    image = is_picture(shape) and codec is None
    if processor is None and codec is not None:
        processor = ImageProcessor(size=codec.sides)
    elif processor is None and image:
        processor = ImageProcessor(size=shape[1:], channels=shape[0])
    elif processor is None:
        processor = NumberProcessor(shape, [0.0] * shape[0], [1.0] * shape[0])
    denoiser = Denoiser(
        network=own,
        alphas_cumprod=own.alphas_cumprod.float(),
        prediction_type=own.target,
        rule="mean" if null is None else "product",
        sample_shape=shape,
        token_shape=conditions.token_shape,
        null_trained=null is not None,
        codec=codec or (None if image else processor),
        value_range=None if data_range is None or codec is not None else (-1.0, 1.0),
        trained_alone=True,
    )
    return Model(
        name=name,
        denoiser=denoiser,
        conditioner=conditions,
        processor=processor,
        network_name="adopted",
        conditioner_name=registered_conditions or "of your own",
        defaults=Defaults(**{**_usual_defaults(denoiser, kind), **defaults}),
    )


def _usual_defaults(denoiser: Denoiser, kind: Kind) -> dict[str, Any]:
    """Chooses how the model is read and sampled, where nothing else is said."""
    # Images are read at the timesteps between two signal-to-noise ratios
    snr = log_snr(denoiser.alphas_cumprod, torch.arange(float(len(denoiser.alphas_cumprod)))).exp()
    low, high = (float((snr > bound).sum()) for bound in READ)
    return {
        "timesteps": (min(low, len(snr) - 1.0), max(high, low + 1, 1.0)),
        "counts": (0, 2) if denoiser.null_trained else (1, 1),
        "solver": "enumerate" if kind in ("classes", "none") else "sgd",
        "scheduler": "EulerDiscreteScheduler" if denoiser.noised_space.value_range is None else "DDPMScheduler",
        "num_inference_steps": STEPS,
    }


def _warn_of_data_left(network: Adopted) -> None:
    left = float(network.alphas_cumprod[-1])
    if left > REACHED:
        options = network.options
        warnings.warn(
            f"got process={shortly(options.process)} with data_range={options.data_range}, whose last timestep still "
            f"has {left:.2f} of the variance from the data; expected below {REACHED}; most networks are trained on "
            "data in (-1, 1) or (0, 1): correct data_range=",
            stacklevel=3,
        )


def _check_arguments(
    network: Any, shape: Any, null: Any, data_range: Any, sigma_data: Any, defaults: Mapping[str, Any]
) -> None:
    """Raises `InputError` for what no network has."""
    bounds = (-1.0, 1.0) if data_range is None else data_range
    known = {field.name for field in attrs.fields(Defaults)}
    numbers = [null] if isinstance(null, int | float) else null
    positive = isinstance(shape, Sequence) and all(type(n) is int and n > 0 for n in shape)
    for what, legal, got, expected in (
        ("network", isinstance(network, nn.Module), type(network).__name__, "a torch.nn.Module"),
        ("shape", positive, shape, "positive integers, (C, H, W) of images"),
        ("null", null is None or _finite(numbers), null, "a label from 0, or the numbers of a row"),
        ("data_range", _finite(bounds, 2) and bounds[0] < bounds[1], data_range, "(least, greatest) number, or None"),
        ("sigma_data", _finite([sigma_data]) and sigma_data > 0, sigma_data, "a number above 0"),
        ("defaults", defaults.keys() <= known, sorted(defaults.keys() - known), "such as counts= or draws="),
    ):
        if not legal:
            raise InputError(f"got {what}={got!r:.80}; expected {expected}")


def _finite(numbers: Any, count: int | None = None) -> bool:
    try:
        flat = torch.as_tensor(numbers).double().flatten()
    except (TypeError, ValueError, RuntimeError):
        return False
    return len(flat) > 0 and count in (None, len(flat)) and bool(flat.isfinite().all())


def _conditioner(
    classes: int | Sequence[str] | None, values: int | None, conditioner: Conditioner | str | None, name: str
) -> tuple[Conditioner, Kind, str]:
    """Chooses what makes the condition rows, of which kind they are, and its registered name, if it has one."""
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


def usual_clock(predicts: Predicts, process: Process) -> Clock:
    if predicts == "edm":
        return "log sigma / 4"
    if process.is_flow:
        return "unit"
    return "sigma" if process.name == "sigmas" else "timestep"
