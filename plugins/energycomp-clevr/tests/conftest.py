"""Models of whole objects with turns, and a codec, with random weights: at 192x128 pixels, and a tiny one at 24x16."""

from pathlib import Path

import attrs
import pytest
import torch

from energycomp.denoisers import TwoStageUNet
from energycomp.images import ImageProcessor
from energycomp.models import Model
from energycomp_clevr.codec_recipe import autoencoder, spread
from energycomp_clevr.model import clevr, small
from energycomp_clevr.objects import Objects


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


@pytest.fixture(scope="module")
def tiny() -> Model:
    """Pixels, no codec, and few steps."""
    torch.manual_seed(0)
    own, whole = Objects(viewpoint=True, turns=True), small()
    network = TwoStageUNet(
        sample_size=(16, 24), token_width=own.token_shape[1], channels=(8, 16), head_channels=8, unplaced=True
    )
    shapes = {"sample_shape": (3, 16, 24), "token_shape": own.token_shape}
    defaults = attrs.evolve(whole.defaults, num_inference_steps=2, draws=4, aspect=1.0, calibration=None)
    return without_zeros(
        attrs.evolve(
            whole,
            denoiser=attrs.evolve(whole.denoiser, network=network, **shapes),
            conditioner=own,
            processor=ImageProcessor(size=(16, 24), resize="squash"),
            defaults=defaults,
        )
    )


def without_zeros(model: Model) -> Model:
    """No weight of its network is 0: components differ."""
    for weight in model.denoiser.network.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    model.denoiser.network.eval()
    return model
