"""What the tests of several plugins share: a tiny untrained model of whole objects with turns."""  # noqa: INP001

import attrs
import pytest
import torch

from energycomp.denoisers import TwoStageUNet
from energycomp.images import ImageProcessor
from energycomp.models import Model


@pytest.fixture(scope="module")
def turned() -> Model:
    """Of pixels, whose pictures are not square, and of few steps. No weight of its network is 0: components differ."""
    reason = "no clevr: pip install energycomp-clevr"
    objects = pytest.importorskip("energycomp_clevr.objects", reason=reason)
    made = pytest.importorskip("energycomp_clevr.model", reason=reason)
    torch.manual_seed(0)
    own = objects.Objects(viewpoint=True, turns=True)
    whole = made.small()
    shape = {"sample_size": (16, 24), "token_width": own.token_shape[1], "channels": (8, 16), "head_channels": 8}
    network = TwoStageUNet(**shape, unplaced=True)
    for weight in network.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    shapes = {"sample_shape": (3, 16, 24), "token_shape": own.token_shape}
    denoiser = attrs.evolve(whole.denoiser, network=network.eval(), **shapes)
    processor = ImageProcessor(size=(16, 24), resize="squash")
    defaults = attrs.evolve(whole.defaults, num_inference_steps=2, draws=4, aspect=1.0, calibration=None)
    return attrs.evolve(whole, denoiser=denoiser, conditioner=own, processor=processor, defaults=defaults)
