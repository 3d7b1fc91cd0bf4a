"""Outlines against rays: the renderer draws scenes in plain colours, under a camera that is known."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from energycomp_clevr import outlined as code
from energycomp_clevr.outlined import fit_camera
from energycomp_clevr.viewpoint import AXES, HOME
from energycomp_datasets.clevr.layout import object_values
from energycomp_datasets.clevr.scenes import COLORS, SIZES, id_buffer, scene_from_record

PLACES = {
    "cube": [(-2.0, -1.0, "large"), (2.2, -2.0, "small")],
    "sphere": [(1.5, 0.5, "large"), (-2.6, 2.0, "small")],
    "cylinder": [(0.0, 2.5, "large"), (0.2, -2.4, "large")],
}


@pytest.mark.parametrize("view", [(0.3, -0.4), (-0.3, 0.2)])
def test_outlines_say_how_high_and_how_far_away_a_camera_stands(
    view: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The renderer's cylinders have no bevel. Nothing is expected of the camera, so that nothing but outlines counts.
    monkeypatch.setattr(code, "RIMS", ((1.0, 1.0),))
    monkeypatch.setattr(code, "CAMERA", 10.0)
    known = {"color": "red", "material": "rubber", "rotation": 0.4}
    objects = [
        {"3d_coords": (x, y, SIZES[size]), "size": size, "shape": shape, **known}
        for shape, places in PLACES.items()
        for x, y, size in places
    ]
    true = torch.tensor(view)
    scene = scene_from_record({"objects": objects}, torch.tensor(HOME) + true @ torch.tensor(AXES)[1:])
    colors = torch.tensor([(128, 128, 128), *COLORS.values()], dtype=torch.uint8)
    picture = Image.fromarray(colors[id_buffer(scene, 640, 960)[0] + 1].numpy())
    values = object_values(scene).float()
    expected = torch.zeros(2)
    assert torch.allclose(fit_camera(picture, values, expected), true, atol=0.08)
    # Objects of open size say nothing of the camera.
    values[:, 2] = 0
    assert torch.equal(fit_camera(picture, values, expected), expected)
