"""Adapters of diffusers UNets: what a trained one predicted before, it predicts as a network."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn

from energycomp.components import Condition
from energycomp.denoisers import ConditionUNet, EmbeddingUNet, Network, TwoStage, TwoStageUNet
from energycomp.errors import InputError

SMALL: dict[str, Any] = {
    "sample_size": 8, "in_channels": 3, "out_channels": 3, "block_out_channels": [8, 8], "norm_num_groups": 1,
    "layers_per_block": 1, "attention_head_dim": 1,
}  # fmt: skip
PLAIN = {**SMALL, "down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2}
ATTENTION = {
    **SMALL, "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "cross_attention_dim": 4,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}  # fmt: skip


IMAGE = "image_proj"
TEXT_TIME = {
    "addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 8,
}  # fmt: skip


def noised() -> tuple[Tensor, Tensor]:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3.0, 500.25, 990.0])


def trained(kind: type[Any], **config: Any) -> Any:
    torch.manual_seed(0)
    return kind(**config).eval()


NETWORKS: dict[str, tuple[Callable[[], Any], tuple[int, int]]] = {
    "two stages": (lambda: TwoStageUNet(sample_size=8, channels=(8, 16), head_channels=8), (1, 2)),
    "cross-attention": (lambda: ConditionUNet(tokens=2, **ATTENTION), (2, 4)),
    "projected tokens": (lambda: ConditionUNet(**ATTENTION, encoder_hid_dim=5), (1, 5)),
    "time embedding": (lambda: EmbeddingUNet(condition_width=6, **PLAIN), (3, 2)),
}


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_rows_null_rows_and_config(name: str) -> None:
    make, token_shape = NETWORKS[name]
    net = make().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    assert isinstance(net, TwoStage) == (name == "two stages")
    assert isinstance(net, TwoStage | Network)
    sample, timestep = noised()

    def predict(value: float, *, null: bool = False, net: Any = net) -> Tensor:
        condition = Condition(torch.full((3, *token_shape), value), torch.full((3,), null))
        if isinstance(net, TwoStage):
            return net.head(net.features(sample, timestep), condition, torch.arange(3))
        return net(sample, timestep, condition)

    zeros, ones, nothing = predict(0.0), predict(1.0), predict(0.0, null=True)
    assert zeros.shape == sample.shape
    assert len({round(float(p.sum()), 4) for p in (zeros, ones, nothing)}) == 3  # (0, 0) is a legal place
    for held in (1.0, math.nan):
        assert torch.equal(predict(held, null=True), nothing)  # what a null row holds does not matter
    again = type(net)(**json.loads(json.dumps(net.config))).eval()
    again.load_state_dict(net.state_dict())
    assert again.config == net.config
    assert torch.equal(predict(1.0, net=again), ones)


@torch.no_grad()
def test_a_trained_cross_attention_unet(tmp_path: Path) -> None:
    trained(UNet2DConditionModel, **ATTENTION).save_pretrained(tmp_path)
    unet = UNet2DConditionModel.from_pretrained(tmp_path, use_safetensors=True)
    empty = torch.randn(2, 4)
    net = ConditionUNet.from_unet(unet, tokens=2, null=empty)
    sample, timestep = noised()
    tokens = torch.randn(3, 2, 4)
    expected = unet(sample, timestep, encoder_hidden_states=tokens).sample
    assert torch.equal(net(sample, timestep, Condition(tokens)), expected)
    expected = unet(sample, timestep, encoder_hidden_states=empty.expand(3, -1, -1)).sample
    assert torch.equal(net(sample, timestep, Condition.unconditional(2, 4, rows=3)), expected)
    assert not any("_name_or_path" in key or str(tmp_path) in str(value) for key, value in net.config.items())
    again = ConditionUNet(**net.config)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(sample, timestep, Condition(tokens)), net(sample, timestep, Condition(tokens)))


@torch.no_grad()
def test_a_unet_in_half_precision_takes_samples_as_they_are() -> None:
    unet = trained(UNet2DConditionModel, **ATTENTION)
    sample, timestep = noised()
    condition = Condition.cat([Condition(torch.randn(2, 1, 4)), Condition.unconditional(1, 4)])
    whole = ConditionUNet.from_unet(unet, null=torch.randn(1, 4))
    expected = whole(sample, timestep, condition)
    half = ConditionUNet.from_unet(unet.to(torch.bfloat16), null=whole.null)
    assert half.null.dtype == torch.bfloat16
    got = half(sample, timestep, condition)
    assert got.dtype == torch.bfloat16
    assert float((got.float() - expected).abs().max()) < 0.05 * float(expected.abs().max())


def test_what_diffusers_does_not_know_of_a_config_is_left_out() -> None:
    unet = UNet2DConditionModel.from_config({**UNet2DConditionModel(**ATTENTION).config, "from_a_later_version": 1})
    assert unet.config["from_a_later_version"] == 1
    net = ConditionUNet.from_unet(unet)
    assert "from_a_later_version" not in net.config
    assert ConditionUNet(**net.config).config == net.config


@torch.no_grad()
def test_a_trained_class_conditional_unet() -> None:
    unet = trained(UNet2DModel, **PLAIN, num_class_embeds=5)
    net = EmbeddingUNet.from_unet(unet, null_class=4).eval()
    sample, timestep = noised()
    for label in range(5):
        expected = unet(sample, timestep, class_labels=torch.full((3,), label)).sample
        row = torch.eye(5)[label].expand(3, 1, 5)
        torch.testing.assert_close(net(sample, timestep, Condition(row)), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net(sample, timestep, Condition.unconditional(1, 5, rows=3)), expected)


@torch.no_grad()
def test_a_trained_unet_without_classes_starts_as_it_was() -> None:
    unet = trained(UNet2DModel, **PLAIN)
    net = EmbeddingUNet.from_unet(unet, condition_width=2).eval()
    sample, timestep = noised()
    expected = unet(sample, timestep).sample
    assert torch.equal(net(sample, timestep, Condition(torch.rand(3, 1, 2))), expected)
    assert torch.equal(net(sample, timestep, Condition.unconditional(1, 2, rows=3)), expected)
    net.unet.conv_in.weight.zero_()
    assert torch.equal(unet(sample, timestep).sample, expected)  # a copy


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConditionUNet(**ATTENTION, num_class_embeds=3), "num_class_embeds=3"),
        (lambda: ConditionUNet(**ATTENTION, **TEXT_TIME), "addition_embed_type='text_time'"),
        (lambda: ConditionUNet(**ATTENTION, encoder_hid_dim=4, encoder_hid_dim_type=IMAGE), f"_type='{IMAGE}'"),
        (lambda: ConditionUNet(**{**ATTENTION, "out_channels": 6}), "3 channels in and 6 out"),
        (lambda: ConditionUNet.from_unet(UNet2DConditionModel(**ATTENTION), null=torch.zeros(2, 4)),
         r"expected \(L, D\) = \(1, 4\)"),
        (lambda: EmbeddingUNet(condition_width=2, **PLAIN, num_class_embeds=3), "num_class_embeds=3"),
        (lambda: EmbeddingUNet.from_unet(UNet2DModel(**PLAIN)), "a UNet of no classes with condition_width=None"),
        (lambda: EmbeddingUNet.from_unet(UNet2DModel(**PLAIN, num_class_embeds=3), null_class=3), "null_class=3"),
        (lambda: EmbeddingUNet.from_unet(UNet2DModel(**PLAIN, class_embed_type="timestep"), condition_width=2),
         "class_embed_type='timestep'"),
    ],
)  # fmt: skip
def test_what_does_not_fit(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
