"""Components and models whose answers are known in closed form: what samplers and solvers are tested against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from energycomp.components.component import Composable, Rule
from energycomp.components.conditioning import Condition, Conditioner, Latents
from energycomp.denoisers.denoiser import Denoiser, PredictionType, convert, log_snr, signal_noise
from energycomp.denoisers.two_stage import TwoStageUNet
from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.models.model import Defaults, Model

__all__ = [
    "Gaussian",
    "Labels",
    "StripesEncoder",
    "UnitSquare",
    "attributes_model",
    "bumps_model",
    "cosine_schedule",
    "labels_model",
    "planted",
    "stripes_model",
    "tiny_model",
]

SIZE = 16
BACKGROUND = -0.2


def cosine_schedule(steps: int = 1000) -> Tensor:
    """alphas_cumprod (T,) of Nichol and Dhariwal (2021), as diffusers' `squaredcos_cap_v2`."""
    from diffusers.schedulers import DDPMScheduler

    alphas: Tensor = DDPMScheduler(num_train_timesteps=steps, beta_schedule="squaredcos_cap_v2").alphas_cumprod
    return alphas


@attrs.frozen(eq=False, repr=False)
class Gaussian(Composable):
    """A component whose data are N(mean, variance I), so that eps and energy have a closed form.

    With a = alpha_bar_t, x_t ~ N(sqrt(a) mean, (a variance + 1 - a) I), so
    eps = sqrt(1 - a) (x_t - sqrt(a) mean) / (a variance + 1 - a).

    Args:
        mean: a number, or (C, H, W).
        variance: of every number of a sample.
        sample_shape, alphas_cumprod, space: as for every component.
        unconditional: the leaf that `&` and `~` take as u; "self" makes this one u.

    >>> g = Gaussian(0.0)
    >>> g.eps(torch.ones(1, 1, 1, 1), torch.tensor([999.0])).item() > 0.99
    True
    """

    mean: float | Tensor = 0.0
    variance: float = 1.0
    name: str = "gaussian"
    sample_shape: tuple[int, int, int] = (1, 1, 1)
    alphas_cumprod: Tensor = attrs.field(factory=cosine_schedule)
    space: str = "gaussian"
    unconditional: Any = None

    def __attrs_post_init__(self) -> None:
        if self.unconditional == "self":
            object.__setattr__(self, "unconditional", self)

    def __repr__(self) -> str:
        return self.name

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Closed-form noise prediction (B, C, H, W)."""
        offset, total, a = self._moments(sample, timestep)
        return ((1 - a).sqrt() * offset / total).to(sample.dtype)

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """-log density of x_t up to a constant, (B,): its gradient times sqrt(1 - a) is `eps`."""
        offset, total, _ = self._moments(sample, timestep)
        return (offset.square() / (2 * total)).flatten(1).sum(1).to(sample.dtype)

    def _moments(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = torch.sigmoid(log_snr(self.alphas_cumprod, timestep))[:, None, None, None]
        return sample - a.sqrt() * self.mean, a * self.variance + 1 - a, a


@attrs.frozen
class UnitSquare:
    """A conditioner of places in the unit square.

    >>> UnitSquare().describe(torch.tensor([0.25, 0.5]))
    [0.25, 0.5]
    """

    value_shape: tuple[int, ...] = (2,)
    token_shape: tuple[int, int] = (1, 2)

    @property
    def support(self) -> constraints.Constraint:
        """The unit square."""
        return constraints.independent(constraints.unit_interval, 1)

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        """Two numbers as a value (1, 2)."""
        legal = len(args) == 2 and not kwargs and all(isinstance(v, int | float) and 0 <= v <= 1 for v in args)
        if not legal:
            raise InputError(f"got {args} {kwargs}; expected two numbers in [0, 1]; divide by the size")
        return torch.tensor([[float(v) for v in args]])

    def describe(self, value: Tensor) -> list[float]:
        """The two numbers."""
        return [round(float(v), 4) for v in value]

    def config(self) -> dict[str, Any]:
        """No arguments."""
        return {}

    def __call__(self, values: Tensor) -> Condition:
        """Places (R, 2) as rows (R, 1, 2)."""
        if values.ndim != 2 or values.shape[1] != 2:
            raise InputError(f"got places {tuple(values.shape)}; expected (R, 2); stack pairs")
        return Condition(values[:, None, :])


@attrs.frozen
class Labels:
    """A finite conditioner: one of `size` labels, a value of shape () and a one-hot token.

    >>> Labels(3)(torch.tensor([2])).rows
    tensor([[[0., 0., 1.]]])
    """

    size: int
    paired: bool = False  # 2k and 2k + 1 are the values of attribute k
    value_shape: tuple[int, ...] = attrs.field(default=(), init=False)

    @property
    def groups(self) -> tuple[Tensor, ...] | None:
        """The values of each attribute, where there are attributes."""
        return torch.arange(self.size).view(-1, 2).unbind() if self.paired else None

    @property
    def token_shape(self) -> tuple[int, int]:
        """One token, as wide as there are labels."""
        return (1, self.size)

    @property
    def support(self) -> constraints.Constraint:
        """0 to size - 1."""
        return constraints.integer_interval(0, self.size - 1)

    def enumerate_support(self) -> Tensor:
        """All labels, (M,)."""
        return torch.arange(self.size)

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        """A label as a value (1,)."""
        if len(args) != 1 or kwargs or not isinstance(args[0], int) or not 0 <= args[0] < self.size:
            raise InputError(f"got {args} {kwargs}; expected one label from 0 to {self.size - 1}; choose one")
        return torch.tensor([args[0]])

    def describe(self, value: Tensor) -> int:
        """The label."""
        return int(value)

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"size": self.size, "paired": self.paired}

    def __call__(self, values: Tensor) -> Condition:
        """Labels (R,) as one-hot rows (R, 1, M)."""
        if values.ndim != 1:
            raise InputError(f"got labels {tuple(values.shape)}; expected (R,); flatten them")
        return Condition(nn.functional.one_hot(values.long(), self.size).float()[:, None])


class ClosedForm(nn.Module):
    """A two-stage network that predicts a background and, under a condition, its picture, whatever x_t is.

    Args:
        picture: tokens (R, D) to what they add to x0, (R, C, H, W).
        share: of x_t and of the background that one component accounts for: 1, or 1/K under the rule "sum".
    """

    def __init__(
        self, picture: Callable[[Tensor], Tensor], alphas_cumprod: Tensor, kind: PredictionType, share: float = 1.0
    ) -> None:
        super().__init__()
        self.picture, self.alphas_cumprod, self.kind, self.share = picture, alphas_cumprod, kind, share
        self.background = nn.Parameter(torch.tensor(BACKGROUND))

    def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x_t and the amplitudes of signal and noise in it."""
        return sample, *signal_noise(self.alphas_cumprod, timestep, sample.dtype)

    def head(self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor) -> Tensor:
        """Predictions (R, C, H, W)."""
        sample, signal, noise = (part[owner] for part in features)
        added = self.picture(condition.rows[:, 0])
        added = torch.where(condition.null[:, None, None, None], torch.zeros_like(added), added)
        x0 = self.share * self.background + added
        return convert(x0, self.share * sample, signal, noise, source="sample", target=self.kind)


def bumps_model(**defaults: Any) -> Model:
    """Each place adds a coloured Gaussian bump there to a constant background: x0 prediction, product rule, 16x16.

    Args:
        defaults: of `Defaults`, in place of this model's own.

    >>> model = bumps_model()
    >>> planted(model, torch.tensor([[0.2, 0.3], [0.7, 0.8]])).shape
    torch.Size([1, 3, 16, 16])
    """
    grid = (torch.arange(SIZE) + 0.5) / SIZE
    colour = torch.tensor([0.6, -0.4, 0.3])

    def bump(place: Tensor) -> Tensor:
        u, v, tint = (part.to(place) for part in (grid, grid, colour))
        square = (u - place[:, :1])[:, None, :] ** 2 + (v - place[:, 1:])[:, :, None] ** 2
        return tint[:, None, None] * torch.exp(-square / (2 * 0.12**2))[:, None]

    return _model("bumps", bump, UnitSquare(), "product", "sample", defaults)


def labels_model(
    labels: int = 8,
    *,
    seed: int = 0,
    rule: Rule = "product",
    prediction_type: PredictionType | None = None,
    components: int = 2,
    **defaults: Any,
) -> Model:
    """Each of M labels adds a fixed random pattern to a constant background, 16x16, under any rule.

    Args:
        labels: M.
        seed: of the patterns.
        rule: "product" and "sum" add patterns, "mean" averages them.
        prediction_type: x0 when left out, eps under the rule "sum".
        components: under the rule "sum", the one number of components whose sum is a noise prediction.
        defaults: of `Defaults`, in place of this model's own.

    >>> labels_model(3)(1) & labels_model(3)(2)
    Traceback (most recent call last):
    energycomp.errors.CompositionError: got labels(1) and labels(2) with 2 unconditional leaves; ...
    """
    kind = prediction_type or ("epsilon" if rule == "sum" else "sample")
    patterns = torch.rand(labels, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 0.5 - 0.25

    def pattern(token: Tensor) -> Tensor:
        return torch.einsum("rm,mchw->rchw", token, patterns.to(token))

    share = 1.0 / components if rule == "sum" else 1.0
    return _model("labels", pattern, Labels(labels), rule, kind, defaults, share=share)


def attributes_model(attributes: int = 4, **options: Any) -> Model:
    """`labels_model` with the labels in pairs: a picture has one of 2k and 2k + 1 for each of the attributes k.

    >>> [group.tolist() for group in attributes_model(2).conditioner.groups]
    [[0, 1], [2, 3]]
    """
    model = labels_model(2 * attributes, **options)
    return attrs.evolve(model, conditioner=Labels(2 * attributes, paired=True))


def planted(model: Model, values: Tensor) -> Tensor:
    """The picture (1, C, H, W) whose exact answer is `values` (K, *V), for `bumps_model` and `labels_model`."""
    network = cast("ClosedForm", model.denoiser.network)
    with torch.no_grad():
        pictures = network.picture(model.conditioner(values).rows[:, 0])
        total = pictures.mean(0) if model.denoiser.rule == "mean" else pictures.sum(0)
        return network.background + total[None]


def _model(
    name: str,
    picture: Callable[[Tensor], Tensor],
    conditioner: Conditioner,
    rule: Rule,
    kind: PredictionType,
    defaults: dict[str, Any],
    *,
    share: float = 1.0,
) -> Model:
    alphas_cumprod = cosine_schedule()
    denoiser = Denoiser(
        network=ClosedForm(picture, alphas_cumprod, kind, share),
        alphas_cumprod=alphas_cumprod,
        prediction_type=kind,
        rule=rule,
        sample_shape=(3, SIZE, SIZE),
        token_shape=conditioner.token_shape,
        null_trained=rule == "product",
    )
    return Model(
        name=name,
        denoiser=denoiser,
        conditioner=conditioner,
        processor=ImageProcessor(size=(SIZE, SIZE)),
        network_name=name,
        conditioner_name=name,
        defaults=Defaults(**{"timesteps": (200, 700), "gamma": 1.0, "draws": 16, "counts": (0, 3), **defaults}),
    )


def tiny_model(*, rule: str = "product", prediction_type: str = "sample", seed: int = 0, **defaults: Any) -> Model:
    """An untrained two-stage model of 16x16 pictures that runs in milliseconds; its weights are random but fixed.

    >>> tiny_model()(0.5, 0.5)
    tiny(0.5, 0.5)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TwoStageUNet(sample_size=SIZE, channels=(8, 16), head_channels=8)
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    denoiser = Denoiser(
        network=network.eval(),
        alphas_cumprod=cosine_schedule(),
        prediction_type=cast("PredictionType", prediction_type),
        rule=cast("Rule", rule),
        sample_shape=(3, SIZE, SIZE),
        token_shape=(1, 2),
    )
    return Model(
        name="tiny",
        denoiser=denoiser,
        conditioner=UnitSquare(),
        processor=ImageProcessor(size=(SIZE, SIZE)),
        network_name="two_stage",
        conditioner_name="coordinates",
        defaults=Defaults(**{"timesteps": (300, 900), "gamma": 4.0, "draws": 4, "counts": (0, 3), **defaults}),
    )


class StripesEncoder(nn.Module):
    """Pictures of plain vertical stripes to their latents (B, K, 4): which stripe, and its colour less `BACKGROUND`.

    >>> StripesEncoder(parts=2)(torch.full((1, 3, 16, 16), 0.8)).shape
    torch.Size([1, 2, 4])
    """

    def __init__(self, *, parts: int = 4, sample_channels: int = 3, sample_size: int = SIZE) -> None:
        super().__init__()
        self.config = {"parts": parts, "sample_channels": sample_channels, "sample_size": sample_size}
        self.parts = parts
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, samples: Tensor) -> Tensor:
        """Latents (B, K, 4)."""
        colour = samples.unflatten(3, (self.parts, -1)).mean((2, 4)).transpose(1, 2) - BACKGROUND
        index = torch.arange(self.parts, device=samples.device, dtype=samples.dtype)
        return torch.cat([index.expand(len(samples), -1)[..., None], colour], dim=2) * self.scale


class Stripes(nn.Module):
    """The decoder of `StripesEncoder`: a latent paints its stripe, on `BACKGROUND`.

    With a `leak`, its colour depends on the noised sample, too: a prediction is then no constant of a chain.
    """

    def __init__(self, *, parts: int = 4, leak: float = 0.0) -> None:
        super().__init__()
        self.config = {"parts": parts, "leak": leak}
        self.parts, self.leak = parts, leak
        self.scale = nn.Parameter(torch.ones(()))

    def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor]:
        """The sample, weaker the later it is."""
        return (self.leak * sample / (1 + timestep[:, None, None, None] / 100),)

    def head(self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor) -> Tensor:
        """Predictions (R, 3, H, W)."""
        sample, token = features[0][owner], condition.rows[:, 0]
        stripe = torch.arange(sample.shape[3], device=sample.device) * self.parts // sample.shape[3]
        mine = (stripe == token[:, :1].round())[:, None, None] & ~condition.null[:, None, None, None]
        return BACKGROUND + mine * (token[:, 1:, None, None] + sample) * self.scale


def stripes_model(*, parts: int = 4, rule: Rule = "product", leak: float = 0.0) -> Model:
    """A model that decomposes pictures of plain vertical stripes exactly, where nothing leaks.

    >>> model = stripes_model(parts=2)
    >>> model.encoder(torch.full((1, 3, 16, 16), 0.8)).shape
    torch.Size([1, 2, 4])
    """
    denoiser = Denoiser(
        network=Stripes(parts=parts, leak=leak),
        alphas_cumprod=cosine_schedule(),
        prediction_type="sample",
        rule=rule,
        sample_shape=(3, SIZE, SIZE),
        token_shape=(1, 4),
        null_trained=rule == "product",
    )
    return Model(
        name="stripes",
        denoiser=denoiser,
        conditioner=Latents(4),
        processor=ImageProcessor(size=(SIZE, SIZE)),
        network_name="stripes",
        conditioner_name="latents",
        defaults=Defaults(num_inference_steps=10),
        encoder=StripesEncoder(parts=parts),
        encoder_name="stripes",
    )
