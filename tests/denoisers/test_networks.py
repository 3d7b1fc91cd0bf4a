"""The two-stage network, and how networks keep the arguments that they were made with."""

import json
from typing import Any

import pytest
import torch
from torch import nn

from energycomp.components import Condition
from energycomp.denoisers import TwoStageUNet, configured, place_maps
from energycomp.errors import InputError
from energycomp.testing import tiny_model


def tiny() -> Any:
    return tiny_model().denoiser.network


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@torch.no_grad()
def test_dtype(dtype: torch.dtype) -> None:
    net = tiny().to(dtype)
    features = net.features(torch.randn(1, 3, 16, 16, dtype=dtype), torch.tensor([500.0], dtype=dtype))
    out = net.head(features, Condition(torch.rand(1, 1, 2, dtype=dtype)), torch.tensor([0]))
    assert out.dtype == dtype
    assert torch.isfinite(out).all()


@torch.no_grad()
def test_samples_that_are_not_square_and_groups_of_each_width() -> None:
    torch.manual_seed(0)
    net = TwoStageUNet(sample_size=(16, 24), channels=(12, 16), head_channels=12, groups=(6, 8, 3)).eval()
    norms = [block.norm1 for block in (net.down[0][0], net.down[1][0], net.up[0][0], net.blocks[0])]
    assert [(norm.num_groups, norm.num_channels) for norm in norms] == [(6, 12), (8, 16), (6, 12), (3, 12)]
    again = TwoStageUNet(**json.loads(json.dumps(net.config))).eval()
    again.load_state_dict(net.state_dict())
    sample, timestep, place = torch.randn(1, 3, 16, 24), torch.tensor([300.0]), Condition(torch.full((1, 1, 2), 0.3))
    found = [one.head(one.features(sample, timestep), place, torch.tensor([0])) for one in (net, again)]
    assert found[0].shape == (1, 3, 16, 24)
    assert torch.equal(*found)
    assert (again.config["sample_size"], again.config["groups"]) == ([16, 24], [6, 8, 3])
    square = TwoStageUNet(sample_size=16, channels=(8, 16))
    assert (square.config["sample_size"], square.config["groups"]) == (16, 8)
    for wrong in (20, (16, 20), (20, 16)):
        with pytest.raises(InputError, match="multiple of 8"):
            TwoStageUNet(sample_size=wrong, channels=(8, 16))


def test_a_wider_trunk_keeps_the_embeddings() -> None:
    narrow, wide = TwoStageUNet(channels=(8, 16)), TwoStageUNet(channels=(16, 16), width=32)
    kept, same = (
        {k: v.shape for k, v in net.state_dict().items() if k[:4] in ("time", "toke")} for net in (narrow, wide)
    )
    assert kept == same
    assert TwoStageUNet(**wide.config).config["width"] == 32


def test_place_maps_are_what_they_say() -> None:
    maps = place_maps(torch.tensor([[0.25, 0.5]]), (2, 4), (0.1,))
    assert maps.shape == (1, 4, 2, 4)
    u, v = 2.5 / 4, 1.5 / 2
    expected = [u - 0.25, v - 0.5, (u - 0.25) ** 2 + (v - 0.5) ** 2]
    assert maps[0, :3, 1, 2].tolist() == pytest.approx(expected)
    assert float(maps[0, 3, 1, 2]) == pytest.approx(float(torch.exp(torch.tensor(-expected[2] / 0.02))))


def test_a_skip_connection_adds_a_multiple_of_the_sample() -> None:
    torch.manual_seed(0)
    plain, skip = (TwoStageUNet(sample_size=16, channels=(8, 16), head_channels=8, skip=skip) for skip in (False, True))
    assert not skip.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    sample, timestep = torch.randn(2, 3, 16, 16), torch.tensor([10.0, 900.5])
    before, same = (net.features(sample, timestep)[1] for net in (plain, skip))
    assert torch.equal(before, same)  # it starts at 0
    torch.nn.init.normal_(skip.skip.weight)
    added = skip.features(sample, timestep)[1] - before
    factor = (added / sample).flatten(1)
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor), atol=2e-3, rtol=1e-3)
    assert not torch.isclose(factor[0, 0], factor[1, 0])  # it depends on the timestep
    assert TwoStageUNet(**skip.config).config["skip"]


def test_a_configured_network_is_made_again_from_the_arguments_it_was_given() -> None:
    @configured
    class Base(nn.Module):
        def __init__(self, width: int, sizes: tuple[int, ...] = (3, 5), **options: str) -> None:
            super().__init__()
            self.seen = dict(vars(self)["config"])  # there already

    @configured
    class Derived(Base):
        def __init__(self, *, height: int = 2) -> None:
            super().__init__(height + 1)

    made = Base(4, kind="box")
    assert made.config == made.seen == {"width": 4, "sizes": [3, 5], "kind": "box"} == Base(**made.config).config
    assert vars(Derived(height=7))["config"] == {"height": 7}
    with pytest.raises(TypeError, match="width"):
        Base()


def test_a_head_on_windows_predicts_u_outside_and_is_the_same_alone_and_in_a_batch() -> None:
    net = TwoStageUNet(
        sample_size=(32, 48), patch=2, token_width=3, channels=(8, 16), head_channels=8, window=6, unplaced=True
    )
    torch.nn.init.normal_(net.out[-1].weight, std=0.1)
    features = net.features(torch.randn(2, 3, 32, 48), torch.tensor([10.0, 500.0]))
    rows = torch.tensor([[0.1, 0.9, 0.0], [0.6, 0.4, 0.0], [0.6, 0.4, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    null = torch.tensor([False, False, False, False, True])
    condition = Condition(rows[:, None], null)
    owner = torch.tensor([0, 0, 1, 1, 1])
    with torch.no_grad():
        together = net.head(features, condition, owner)
        alone = torch.cat([net.head(features, condition[r : r + 1], owner[r : r + 1]) for r in range(5)])
    added = together - features[1][owner]
    assert together.allclose(alone, atol=1e-5)
    assert added[4].eq(0).all()  # u is the shared part
    assert added[3].ne(0).any(0).all()  # what has no place covers all
    reached = added.ne(0).any(1)[:3]
    assert reached.sum((1, 2)).tolist() == [12 * 12] * 3  # 6 cells of 2 pixels
    assert reached[0, -12:, :12].all()  # at the border the window is moved inside
    centre = reached[1].nonzero().float().mean(0) / torch.tensor([32.0, 48.0])
    assert (centre - torch.tensor([0.4, 0.6])).abs().max() < 0.05
