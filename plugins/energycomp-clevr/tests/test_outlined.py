"""Outlines against rays: scenes are drawn by the renderer's geometry, in plain colours, under a camera that is known."""

from __future__ import annotations

import torch
from PIL import Image

from energycomp_clevr.outlined import outlined
from energycomp_clevr.viewpoint import AXES, HOME
from energycomp_datasets.clevr.layout import object_values
from energycomp_datasets.clevr.scenes import COLORS, id_buffer, scene_from_record


def test_outlines_say_how_high_and_how_far_away_a_camera_stands() -> None:
    view = torch.tensor([0.3, -0.4])
    places = {"cube": (-2.0, -1.0, 0.7), "sphere": (1.5, 0.5, 0.7), "cylinder": (0.0, 2.5, 0.7)}
    objects = [
        {"3d_coords": place, "size": "large", "shape": shape, "color": "red", "material": "rubber", "rotation": 0.4}
        for shape, place in places.items()
    ]
    scene = scene_from_record({"objects": objects}, torch.tensor(HOME) + view @ torch.tensor(AXES)[1:])
    colors = torch.tensor([(128, 128, 128), *COLORS.values()], dtype=torch.uint8)
    picture = Image.fromarray(colors[id_buffer(scene, 160, 240)[0] + 1].numpy())
    values = object_values(scene).float()
    expected = torch.zeros(2)
    found = outlined(picture, values, expected)
    assert torch.allclose(found, view, atol=0.1)
    # Objects of open size say nothing of the camera.
    values[:, 2] = 0
    assert torch.equal(outlined(picture, values, expected), expected)
