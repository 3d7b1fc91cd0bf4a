"""Adapters: diffusers UNets, new or trained, as networks over condition rows."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from energycomp.components.condition import Condition
from energycomp.denoisers.codec import Codec
from energycomp.denoisers.configured import configured
from energycomp.denoisers.denoiser import Denoiser
from energycomp.errors import InputError
from energycomp.imports import light_diffusers

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel, UNet2DModel


@configured
class ConditionUNet(nn.Module):
    """A diffusers `UNet2DConditionModel` over condition rows, with a learned token for the null row.

    Args:
        tokens: L, the number of tokens of a row.
        config: arguments of `UNet2DConditionModel`; the token width D is its `encoder_hid_dim` where it has one, else
            its `cross_attention_dim`.

    Raises:
        InputError: a UNet that asks for more than a sample, a timestep and tokens, or predicts more than noise.

    >>> net = ConditionUNet(
    ...     sample_size=8, in_channels=4, out_channels=4, block_out_channels=[8, 8], norm_num_groups=1,
    ...     down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"], cross_attention_dim=2, attention_head_dim=1,
    ...     up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
    ... )
    >>> net(torch.zeros(2, 4, 8, 8), torch.tensor([5.0, 7.0]), Condition(torch.rand(2, 1, 2))).shape
    torch.Size([2, 4, 8, 8])
    >>> ConditionUNet.from_unet(net.unet).unet is net.unet
    True
    """

    def __init__(self, *, tokens: int = 1, **config: Any) -> None:
        from diffusers import UNet2DConditionModel  # takes two seconds, and most models have another network

        super().__init__()
        self.unet = UNet2DConditionModel(**config)
        _refuse(self.unet, "class_embed_type", "num_class_embeds", "addition_embed_type", "time_cond_proj_dim")
        if self.unet.config.encoder_hid_dim_type != "text_proj":
            _refuse(self.unet, "encoder_hid_dim_type")
        width = self.unet.config.encoder_hid_dim or self.unet.config.cross_attention_dim
        self.null = nn.Parameter(torch.zeros(tokens, width if isinstance(width, int) else width[0]))

    @classmethod
    def from_unet(cls, unet: UNet2DConditionModel, *, tokens: int = 1, null: Tensor | None = None) -> Self:
        """An adapter around a UNet that is there already, such as a trained one; it is taken as it is, not copied.

        Args:
            null: the tokens (L, D) under which it was trained as unconditional, such as those of the empty prompt;
                zeros, to be trained, when left out.
        """
        with torch.device("meta"):
            adapter = cls(tokens=tokens, **_arguments(unet))
        shape = tuple(adapter.null.shape)
        if null is not None and tuple(null.shape) != shape:
            raise InputError(f"got null tokens {tuple(null.shape)}; expected (L, D) = {shape}; set tokens= to their L")
        adapter.unet = unet
        start = torch.zeros(shape) if null is None else null.detach().clone()
        adapter.null = nn.Parameter(start.to(device=unet.device, dtype=unet.dtype))
        return adapter

    def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Predictions (R, C, H, W), in the type of the weights."""
        own = self.null.dtype
        tokens = torch.where(condition.null[:, None, None], self.null, condition.rows.to(own))
        prediction: Tensor = self.unet(sample.to(own), timestep, encoder_hidden_states=tokens, return_dict=False)[0]
        return prediction


@configured
class EmbeddingUNet(nn.Module):
    """A diffusers `UNet2DModel` over condition rows: a linear map of a row is added to the time embedding.

    Args:
        condition_width: the L D numbers of a row.
        config: arguments of `UNet2DModel`, without those of its own class embedding.

    Raises:
        InputError: a UNet with a class embedding of its own, or one that predicts more than noise.

    >>> net = EmbeddingUNet(
    ...     condition_width=3, sample_size=8, block_out_channels=[8, 8], norm_num_groups=1,
    ...     down_block_types=["DownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "UpBlock2D"],
    ... )
    >>> net(torch.zeros(2, 3, 8, 8), torch.tensor([5.0, 7.0]), Condition(torch.rand(2, 1, 3))).shape
    torch.Size([2, 3, 8, 8])
    >>> EmbeddingUNet.from_unet(net.unet, condition_width=3).config["condition_width"]
    3
    """

    def __init__(self, *, condition_width: int, **config: Any) -> None:
        from diffusers import UNet2DModel

        super().__init__()
        self.unet = UNet2DModel(**config)
        _refuse(self.unet, "class_embed_type", "num_class_embeds")
        self.unet.class_embedding = nn.Identity()  # the UNet then adds what it is given to its time embedding
        width = self.unet.time_embedding.linear_2.out_features
        self.embed = nn.Linear(condition_width, width, bias=False)
        self.null = nn.Parameter(torch.zeros(width))

    @classmethod
    def from_unet(cls, unet: UNet2DModel, *, condition_width: int | None = None, null_class: int | None = None) -> Self:
        """An adapter around a copy of a UNet that is there already, such as a trained one.

        With `num_class_embeds` classes it takes one-hot rows over them and predicts what it did. `null_class` is that
        under which it was trained as unconditional. A UNet without classes needs `condition_width`, and
        predicts what it did under every condition until it is trained further.
        """
        _refuse(unet, "class_embed_type")
        classes = unet.config.num_class_embeds
        width = condition_width if classes is None else classes
        legal = null_class is None or 0 <= null_class < (classes or 0)
        if not legal or width is None or condition_width not in (None, width):
            got = f"got a UNet of {classes or 'no'} classes with {condition_width=} and {null_class=}"
            raise InputError(f"{got}; expected condition_width without classes, a null_class among them or none")
        adapter = cls(condition_width=width, **{**_arguments(unet), "num_class_embeds": None})
        adapter.to(device=unet.device, dtype=unet.dtype)
        nn.init.zeros_(adapter.embed.weight)
        weights = unet.state_dict()
        if classes is not None:
            table = weights.pop("class_embedding.weight")
            adapter.embed.weight.data.copy_(table.T)
            if null_class is not None:
                adapter.null.data.copy_(table[null_class])
        adapter.unet.load_state_dict(weights)
        return adapter

    def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        rows = self.embed(condition.rows.to(sample.dtype).flatten(1))
        embedding = torch.where(condition.null[:, None], self.null.to(rows.dtype), rows)
        prediction: Tensor = self.unet(sample, timestep, class_labels=embedding, return_dict=False)[0]
        return prediction


def latent_unet(codec: Codec, *, side: int, token_shape: tuple[int, int]) -> Denoiser:
    """An untrained `ConditionUNet` on latents of a VAE, as in thesis 5.4: noise prediction, rule product.

    Args:
        codec: of latents (4, side, side).
        side: of a latent.
        token_shape: (L, D) of a condition.
    """
    with light_diffusers():
        from diffusers.schedulers import DDPMScheduler

    schedule = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", beta_start=0.00085, beta_end=0.012)
    tokens, width = token_shape
    network = ConditionUNet(
        tokens=tokens,
        sample_size=side,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=[128, 256, 512, 512],
        attention_head_dim=1,
        norm_num_groups=1,
        cross_attention_dim=width,
    )
    return Denoiser(
        network=network,
        alphas_cumprod=schedule.alphas_cumprod,
        prediction_type="epsilon",
        rule="product",
        sample_shape=(4, side, side),
        token_shape=token_shape,
        codec=codec,
    )


def _arguments(unet: UNet2DConditionModel | UNet2DModel) -> dict[str, Any]:
    """The constructor arguments of a UNet, as JSON holds them; the config of diffusers holds more."""
    known = inspect.signature(type(unet).__init__).parameters
    return {k: list(v) if isinstance(v, tuple) else v for k, v in unet.config.items() if k in known}


def _refuse(unet: UNet2DConditionModel | UNet2DModel, *inputs: str) -> None:
    """Raises `InputError` where a UNet needs inputs, or has outputs, that a condition row cannot provide."""
    asked = [f"{name}={unet.config[name]!r}" for name in inputs if unet.config.get(name) is not None]
    if unet.config.in_channels != unet.config.out_channels:
        asked.append(f"{unet.config.in_channels} channels in and {unet.config.out_channels} out")
    if asked:
        expected = "expected one of a sample, a timestep and one condition; write a network around it"
        raise InputError(f"got a {type(unet).__name__} with {', '.join(asked)}; {expected}")
