"""Scenes on canvases: which windows have which objects where, and the command line."""

from typing import Any

import pytest
import torch
from PIL import Image

from energycomp import Composer, load
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.testing import tiny_model
from energycomp_clevr.wide import canvas_of, wide


@torch.no_grad()
def test_windows_have_the_objects_whose_places_they_hold() -> None:
    model = load("clevr-small")
    own = model.conditioner
    values = torch.cat([own.parse(0.25, 0.5, color="red"), own.parse(0.5, 0.6, shape="cube"), own.parse(0.97, 0.5)])
    x, at = torch.randn(1, 3, 64, 128), torch.tensor([700.0])
    alone = wide(model, values, [1.0, 2.0, 1.0], (64, 64))
    expected = model.leaf(values[:1]) & 2 * model.leaf(values[1:2]) & model.leaf(values[2:])
    torch.testing.assert_close(alone.eps(x[..., :64], at), expected.eps(x[..., :64], at), atol=1e-4, rtol=1e-4)
    scene = wide(model, values, [1.0] * 3, (64, 128))
    with count_rows() as spent:
        got = scene.eps(x, at)
    assert (spent.rows, spent.trunks) == (3, 3)  # at 32, 64 and 124 px: windows 0 to 64, 32 to 96 and 64 to 128

    def leaf(k: int, place: float) -> object:
        return model.leaf(torch.cat([torch.tensor([[place]]), values[k : k + 1, 1:]], dim=1))

    windows = [leaf(0, 0.5), leaf(1, 0.5), leaf(2, 60.16 / 64)]
    by_hand = canvas_of(model, (64, 128)).join(windows)
    torch.testing.assert_close(got, by_hand.eps(x, at), atol=1e-4, rtol=1e-4)


def test_a_canvas_has_at_least_the_size_of_the_model() -> None:
    with pytest.raises(InputError, match="got a canvas of 128x32 px for clevr-small of 64x64 px"):
        canvas_of(load("clevr-small"), (32, 128))
    with pytest.raises(InputError, match=r"got a canvas of 260x128 px .*, in steps of 8 px"):
        canvas_of(load("clevr"), (128, 260))
    with pytest.raises(InputError, match="got a canvas of 99999999x64 px; expected at most 4,000,000 pixels"):
        canvas_of(load("clevr-small"), (64, 99999999))


@torch.no_grad()
def test_windows_of_latents() -> None:
    model = load("clevr")
    values = torch.cat([model.conditioner.parse(0.25, 0.5, color="red"), model.conditioner.parse(0.75, 0.5)])
    scene, x, at = wide(model, values, [1.0, 1.0], (128, 384)), torch.randn(1, 16, 16, 48), torch.tensor([700.0])
    moved = torch.cat([torch.full((2, 1), 0.5), values[:, 1:]], dim=1)
    windows = [model.leaf(moved[:1]), model.unconditional, model.leaf(moved[1:])]
    by_hand = canvas_of(model, (128, 384)).join(windows)
    torch.testing.assert_close(scene.eps(x, at), by_hand.eps(x, at), atol=1e-4, rtol=1e-4)
    (picture,) = Composer(scene).sample(num_inference_steps=1, progress=False, output_type="np")
    assert picture.shape == (128, 384, 3)


def test_the_command_line_samples_a_canvas(run: Any, answer: Any) -> None:
    arguments = ["sample", "clevr-small", "red cube at 0.2,0.5", "sphere", "--steps", 2, "-o", "wide.png"]
    answer(*arguments, "--canvas", "96x64")
    assert Image.open("wide.png").size == (720, 320)  # wider by the aspect of CLEVR's frame, and enlarged
    answer(*arguments, "--canvas", "96x64", "--raw")
    assert Image.open("wide.png").size == (96, 64)
    for more, text in (
        (["--canvas", "96"], "expected WIDTHxHEIGHT in pixels"),
        (["--canvas", "96x64", "--not", "cube at 0.5,0.5"], "got --canvas with --not or --best-of"),
    ):
        assert text in run(*arguments, *more)[2]
    with pytest.raises(InputError, match="with a region or a share"):
        load("clevr-small").conditioner.widened(tiny_model(), ["cube at 0.5,0.5 @ left half"], (64, 128), 0)
