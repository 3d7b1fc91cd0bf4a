"""Models of whole objects with turns, and a codec, with random weights: at 192x128 pixels."""

from pathlib import Path

import pytest
import torch

from energycomp.models import Model
from energycomp_clevr.codec_recipe import autoencoder, spread
from energycomp_clevr.model import clevr


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


def without_zeros(model: Model) -> Model:
    """No weight of its network is 0: components differ."""
    for weight in model.denoiser.network.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    model.denoiser.network.eval()
    return model
