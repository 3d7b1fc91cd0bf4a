"""Components and models in closed form: samplers and solvers are tested against their known answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn

from energycomp.components import Condition, Conditioner, Latents, Rule, identifies_null, rule_weights
from energycomp.components.prediction import PredictionType, convert, input_norm
from energycomp.components.space import by_sample, cosine_schedule, flow_schedule, signal_noise
from energycomp.denoisers import Denoiser, TwoStageUNet, configured
from energycomp.images import ImageProcessor
from energycomp.models.defaults import Defaults
from energycomp.models.model import Model
from energycomp.seeds import torch_seed
from energycomp.testing.conditioners import Labels, TintedSquare, UnitSquare

SIZE = 16
BACKGROUND = -0.2


class ClosedForm(nn.Module):
    """A two-stage network that predicts a background plus the pattern (R, C, H, W) of tokens (R, D).

    It is exact for images that are this sum plus normal noise of standard deviation `spread`: the prediction of x0 is
    their posterior mean given x_t, which does not depend on x_t for a spread of 0. `share` is the part of x_t and the
    background in one component: 1, or 1/K under the rule "sum".
    """

    def __init__(
        self, pattern: Callable[[Tensor], Tensor], kind: PredictionType, share: float = 1.0, spread: float = 0.0
    ) -> None:
        super().__init__()
        self.pattern = pattern
        self.kind = kind
        self.share = share
        self.spread = spread
        self.alphas_cumprod = _schedule(kind)
        self.background = nn.Parameter(torch.tensor(BACKGROUND))

    def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x_t and the amplitudes of signal and noise in it. A network of a flow is given x_t / (signal + noise)."""
        signal, noise = signal_noise(self.alphas_cumprod, timestep, sample.dtype, sample.ndim)
        norm = input_norm(self.alphas_cumprod, timestep, self.kind, sample)
        return sample if norm is None else sample * norm, signal, noise

    def head(self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor) -> Tensor:
        sample, signal, noise = (part[owner] for part in features)
        added = self.pattern(condition.rows[:, 0])
        added = torch.where(by_sample(condition.null, added.ndim), torch.zeros_like(added), added)
        x0 = self.share * self.background + added
        if self.spread:
            gain = (self.spread * signal) ** 2 / ((self.spread * signal) ** 2 + noise**2)
            x0 = (1 - gain) * x0 + gain * self.share * sample / signal
        return convert(x0, self.share * sample, signal, noise, source="sample", target=self.kind)


def bumps_model(*, prediction_type: PredictionType = "sample", **defaults: Any) -> Model:
    """Each place adds a coloured Gaussian bump there to a constant background: product rule, 16x16.

    Here and below a model of a flow has a `flow_schedule`, and `defaults` are fields of its `Defaults`.

    >>> model = bumps_model()
    >>> planted(model, torch.tensor([[0.2, 0.3], [0.7, 0.8]])).shape
    torch.Size([1, 3, 16, 16])
    """
    colour = torch.tensor([0.6, -0.4, 0.3])

    def bump(place: Tensor) -> Tensor:
        return colour.to(place)[:, None, None] * torch.exp(-_distances(place) / (2 * 0.12**2))[:, None]

    return _model("bumps", bump, UnitSquare(), "product", prediction_type, defaults)


def tinted_model(**defaults: Any) -> Model:
    """`bumps_model` with a colour and a width for each bump: grey and of middle width where they are left open.

    >>> model = tinted_model()
    >>> model(0.2, 0.3, tint="red") & model(0.7, 0.8)
    -u + tinted(0.2, 0.3, tint=red) + tinted(0.7, 0.8)
    """

    def bump(token: Tensor) -> Tensor:
        tint = token[:, 2:5]
        width = token[:, 5:]
        colour = torch.where(tint.any(1, keepdim=True), 0.6 * tint + 0.1, 0.3)
        spread = 0.12 + width @ token.new_tensor([-0.03, 0.04])
        return colour[:, :, None, None] * torch.exp(-_distances(token) / (2 * spread[:, None, None] ** 2))[:, None]

    return _model("tinted", bump, TintedSquare(), "product", "sample", defaults)


def _distances(token: Tensor) -> Tensor:
    """The squared distances (R, H, W) of pixels to the places that tokens (R, D) begin with."""
    u = ((torch.arange(SIZE) + 0.5) / SIZE).to(token)
    return (u - token[:, :1])[:, None, :] ** 2 + (u - token[:, 1:2])[:, :, None] ** 2


def labels_model(
    labels: int = 8,
    *,
    seed: int = 0,
    rule: Rule = "product",
    prediction_type: PredictionType | None = None,
    components: int = 2,
    spread: float = 0.0,
    **defaults: Any,
) -> Model:
    """Each of M labels adds a fixed random pattern to a constant background, 16x16, under any rule.

    Args:
        labels: M.
        seed: of the patterns.
        rule: "product" and "sum" add patterns, "mean" averages them.
        prediction_type: x0 if left out, eps under the rule "sum".
        components: under the rule "sum", the number of components whose sum is a noise prediction.
        spread: standard deviation of the images about the sum of their patterns. Errors then vary with the noise.

    >>> labels_model(3)(1) & labels_model(3)(2)
    Traceback (most recent call last):
    energycomp.errors.CompositionError: got labels(1) and labels(2) with 2 unconditional leaves; ...
    """
    kind = prediction_type or ("epsilon" if rule == "sum" else "sample")
    patterns = torch.rand(labels, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 0.5 - 0.25

    def pattern(token: Tensor) -> Tensor:
        return torch.einsum("rm,mchw->rchw", token, patterns.to(token))

    share = 1.0 / components if rule == "sum" else 1.0
    return _model("labels", pattern, Labels(labels), rule, kind, defaults, share=share, spread=spread)


def attributes_model(attributes: int = 4, **options: Any) -> Model:
    """`labels_model` with labels in pairs: an image has one of the labels 2k and 2k + 1 for each attribute k.

    >>> [group.tolist() for group in attributes_model(2).conditioner.groups]
    [[0, 1], [2, 3]]
    """
    model = labels_model(2 * attributes, **options)
    return attrs.evolve(model, conditioner=Labels(2 * attributes, paired=True))


def planted(model: Model, values: Tensor) -> Tensor:
    """The image (1, C, H, W) whose exact answer is `values` (K, *V), for the models of bumps and of labels.

    >>> model = bumps_model()
    >>> image = planted(model, torch.tensor([[0.25, 0.75]]))
    >>> divmod(int(image[0, 0].argmax()), 16)  # the row and the column of the brightest of 16x16 pixels
    (11, 3)
    """
    network = cast("ClosedForm", model.denoiser.network)
    with torch.no_grad():
        patterns = network.pattern(model.conditioner(values).rows[:, 0])
        row = rule_weights(model.denoiser.rule, float(len(values)))[0] if len(values) else 1.0
        total = row * patterns.sum(0)
        return network.background + total[None]


def _model(
    name: str,
    pattern: Callable[[Tensor], Tensor],
    conditioner: Conditioner,
    rule: Rule,
    kind: PredictionType,
    defaults: dict[str, Any],
    share: float = 1.0,
    spread: float = 0.0,
) -> Model:
    defaults = {"timesteps": (200, 700), "gamma": 1.0, "draws": 16, "counts": (0, 3), **defaults}
    network = ClosedForm(pattern, kind, share, spread)
    return built(network, conditioner, rule, kind, defaults, name=name, null_trained=identifies_null(rule))


def built(
    network: nn.Module,
    conditioner: Conditioner,
    rule: Rule,
    kind: PredictionType,
    defaults: dict[str, Any],
    *,
    name: str,
    null_trained: bool = True,
    **parts: Any,
) -> Model:
    """A model of images 16x16, whose network and conditioner have its name unless `parts` of `Model` say another."""
    denoiser = Denoiser(
        network=network,
        alphas_cumprod=_schedule(kind),
        prediction_type=kind,
        rule=rule,
        sample_shape=(3, SIZE, SIZE),
        token_shape=conditioner.token_shape,
        null_trained=null_trained,
    )
    return Model(
        denoiser=denoiser,
        conditioner=conditioner,
        processor=ImageProcessor(size=(SIZE, SIZE)),
        defaults=Defaults(**defaults),
        **{"name": name, "network_name": name, "conditioner_name": name, **parts},
    )


def _schedule(prediction_type: str) -> Tensor:
    return flow_schedule() if prediction_type == "flow" else cosine_schedule()


def tiny_model(
    *, rule: Rule = "product", prediction_type: PredictionType = "sample", seed: int = 0, **defaults: Any
) -> Model:
    """An untrained two-stage model of 16x16 images that runs in milliseconds. Its weights are random, of that seed.

    >>> tiny_model()(0.5, 0.5)
    tiny(0.5, 0.5)
    """
    with torch_seed(seed):
        network = TwoStageUNet(sample_size=SIZE, channels=(8, 16), head_channels=8)
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    defaults = {"timesteps": (300, 900), "gamma": 4.0, "draws": 4, "counts": (0, 3), **defaults}
    names: Any = {"name": "tiny", "network_name": "two_stage", "conditioner_name": "coordinates"}
    return built(network.eval(), UnitSquare(), rule, prediction_type, defaults, **names)


@configured
class StripesEncoder(nn.Module):
    """Maps images of vertical stripes to latents (B, K, 4): the index of a stripe, and its colour minus `BACKGROUND`.

    >>> StripesEncoder(parts=2)(torch.full((1, 3, 16, 16), 0.8)).shape
    torch.Size([1, 2, 4])
    """

    def __init__(self, *, parts: int = 4, sample_channels: int = 3, sample_size: int = SIZE) -> None:
        super().__init__()
        del sample_channels, sample_size  # which `config` keeps
        self.parts = parts
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, samples: Tensor) -> Tensor:
        colour = samples.unflatten(3, (self.parts, -1)).mean((2, 4)).transpose(1, 2) - BACKGROUND
        index = torch.arange(self.parts, device=samples.device, dtype=samples.dtype)
        return torch.cat([index.expand(len(samples), -1)[..., None], colour], dim=2) * self.scale


@configured
class Stripes(nn.Module):
    """The decoder of `StripesEncoder`: a latent paints its stripe on `BACKGROUND`.

    With a `leak`, the colour also depends on the noised sample, so that the prediction changes along a chain.
    """

    def __init__(self, *, parts: int = 4, leak: float = 0.0) -> None:
        super().__init__()
        self.parts = parts
        self.leak = leak
        self.scale = nn.Parameter(torch.ones(()))

    def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor]:
        """The sample, scaled by the leak, which decreases with the timestep."""
        return (self.leak * sample / (1 + timestep[:, None, None, None] / 100),)

    def head(self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor) -> Tensor:
        sample = features[0][owner]
        token = condition.rows[:, 0]
        stripe = torch.arange(sample.shape[3], device=sample.device) * self.parts // sample.shape[3]
        mine = (stripe == token[:, :1].round())[:, None, None] & ~condition.null[:, None, None, None]
        return BACKGROUND + mine * (token[:, 1:, None, None] + sample) * self.scale


def stripes_model(*, parts: int = 4, rule: Rule = "product", leak: float = 0.0) -> Model:
    """A model that decomposes images of vertical stripes exactly if `leak` is 0."""
    network = Stripes(parts=parts, leak=leak)
    steps = {"num_inference_steps": 10}
    model = built(network, Latents(4), rule, "sample", steps, name="stripes", null_trained=identifies_null(rule))
    encoder = StripesEncoder(parts=parts)
    return attrs.evolve(model, conditioner_name="latents", encoder=encoder, encoder_name="stripes")
