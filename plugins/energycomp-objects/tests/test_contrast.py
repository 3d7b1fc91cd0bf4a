import pytest
import torch

from energycomp.components import cosine_schedule
from energycomp.denoisers import Denoiser
from energycomp_lab.training.contrast import contrast
from energycomp_lab.training.loss import make_trunk
from energycomp_objects.conditioner import Objects
from energycomp_objects.contrast import window_contrast
from energycomp_objects.network import PlacedUNet
from energycomp_objects.rivals import draw_rivals


@pytest.mark.parametrize("seed", range(4))
def test_margins_of_windows_are_those_of_whole_samples(seed: int) -> None:
    torch.manual_seed(seed)
    conditioner = Objects({"category": ("a", "b")})
    network = PlacedUNet(sample_size=(64, 96), words=conditioner.words, channels=(8, 16), head_channels=8, window=12)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    denoiser = Denoiser(
        network=network,
        alphas_cumprod=cosine_schedule(),
        prediction_type="sample",
        rule="product",
        sample_shape=(3, 64, 96),
        token_shape=conditioner.token_shape,
    )
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(7, 5, generator=generator)
    values[:, 2:4] = 0.05 + 0.2 * values[:, 2:4]
    values[:, 4] = torch.tensor([1, 2, 1, 0, 2, 1, 1])
    owner = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    rivals = draw_rivals(values, owner, 3, conditioner, generator)
    noised = make_trunk(denoiser, torch.rand(3, 3, 64, 96), None, 1.0, generator)
    given = (denoiser, noised, conditioner(values), owner, rivals)
    whole = contrast(*given, weight=2.0)
    windows = window_contrast(*given, weight=2.0)
    torch.testing.assert_close(windows, whole, rtol=1e-4, atol=1e-6)
    gradients = []
    for loss in (whole, windows):
        network.zero_grad()
        loss.backward(retain_graph=True)
        gradients.append(torch.cat([one.grad.flatten() for one in network.parameters() if one.grad is not None]))
    assert (gradients[1] - gradients[0]).norm() <= 1e-4 * gradients[0].norm() > 0
