"""Edits of scenes with the shipped weights."""

import numpy as np
import torch
from scipy.ndimage import median_filter

import energycomp
import energycomp_edit
from energycomp.images import to_output
from energycomp.inference import Solution
from energycomp_datasets.clevr.source import ClevrSource
from energycomp_lab.evaluation import true_values


def test_a_removed_object_leaves_no_scrap_of_itself_or_its_shadow() -> None:
    model = energycomp.load("clevr-small")
    scene = ClevrSource().examples("synthetic:3-4", count=1, seed=5)[0]
    values, image = true_values(scene, model.conditioner), to_output(scene.image[None].float(), "pil")[0]
    answer = Solution(values, len(values), 0.0, 0.0, 0)
    edited = energycomp_edit.edit(image, model, remove=[0], solution=answer, num_inference_steps=1, progress=False)
    light, (y, x) = np.asarray(image, dtype=float).mean(2), np.mgrid[:64, :64] / 64
    places = [model.conditioner.describe(value) for value in values]
    own, *others = (np.hypot(x - place["x"], y - place["y"]) for place in places)
    seen = (median_filter(light, 25) - light > 10) & (own < 0.2) & (np.min(others, axis=0) > 0.13)
    assert seen.sum() > 50
    assert not (seen & ~edited.mask[0, 0].bool().numpy()).any()
    assert torch.equal(edited.values, values[1:])
