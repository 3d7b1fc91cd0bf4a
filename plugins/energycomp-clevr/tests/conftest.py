"""Models of whole objects with turns, and a codec, with random weights: at 192x128 pixels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from energycomp.models import Model
from energycomp_clevr.codec_recipe import autoencoder, spread
from energycomp_clevr.model import clevr
from energycomp_datasets.clevr.layout import write


@pytest.fixture(scope="session")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec with random weights."""
    made, folder = autoencoder(), tmp_path_factory.mktemp("codec")
    torch.manual_seed(0)
    for weight in made.parameters():
        weight.data += 0.02 * torch.randn_like(weight)
    spread(made, torch.ones(16)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(vae: Path) -> Model:
    torch.manual_seed(0)
    return without_zeros(clevr(pretrained=False, vae=str(vae)))


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a folder of scenes whose records say where camera and lamps are; the camera moves from scene to scene."""

    def render(count: int, **options: Any) -> Path:
        folder = tmp_path_factory.mktemp("renders")
        write(folder, count, **options)
        file = folder / "scenes" / "CLEVR_train_scenes.json"
        content = json.loads(file.read_text())
        for number, scene in enumerate(content["scenes"]):
            scene |= {"camera": [7.48 + 0.2 * number, -6.51, 5.34], "lights": [[0.1, 0.0, 0.0]] * 3}
        file.write_text(json.dumps(content))
        return folder

    return render


def without_zeros(model: Model) -> Model:
    """No weight of its network is 0: components differ."""
    for weight in model.denoiser.network.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    model.denoiser.network.eval()
    return model
