"""The check of decomposers passes one that is right, and fails each fault with its reason."""

from typing import Any

import attrs
import pytest
import torch

from energycomp.decomposition import Parts
from energycomp.testing import stripes_model
from energycomp_decomp import DiffusionDecomposer
from energycomp_lab.checks import ConformanceError, check_decomposer


class Faulty:
    """The decomposer of stripes with one fault."""

    def __init__(self, fault: str) -> None:
        self.fault, self.right = fault, DiffusionDecomposer(stripes_model())

    def encode(self, images: Any, **options: Any) -> torch.Tensor:
        latents = self.right.encode(images, **options)
        if self.fault == "flat":
            return latents.flatten(1)
        return latents + torch.rand(()) if self.fault == "random" else latents

    def decode(self, latents: torch.Tensor, **options: Any) -> torch.Tensor:
        if self.fault == "fixed" and latents.shape[1] != 4:
            return torch.zeros(1, 3, 16, 16)
        if self.fault == "width":
            latents = latents[..., :4]
        images = self.right.decode(latents, **options)
        if self.fault == "in place":
            latents += 1
        return images * (9 if self.fault == "range" else 1)

    def parts(self, latents: torch.Tensor, **options: Any) -> Parts:
        parts = self.right.parts(latents, **options)
        if self.fault == "masks":
            return attrs.evolve(parts, masks=parts.images[:, :, 0])
        return attrs.evolve(parts, whole=parts.images) if self.fault == "whole" else parts


@pytest.mark.parametrize("rule", ["product", "mean"])
def test_diffusion_conforms(rule: Any) -> None:
    check_decomposer(DiffusionDecomposer(stripes_model(rule=rule)))
    check_decomposer(Faulty(""))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no decomposer", "a StripesEncoder; expected encode, decode and parts"),
        ("flat", r"latents \(2, 16\) of 2 images; expected \(2, K, D\)"),
        ("random", "latents of a second call"),
        ("fixed", r"images \(1, 3, 16, 16\) of 1 latents; expected \(2, 3, H, W\)"),
        ("range", r"images of \d latents outside \[-1, 1\]"),
        ("masks", r"masks of torch.float32; expected bool"),
        ("whole", r"whole \(2, 4, 3, 16, 16\) of 4 latents; expected \(2, 3, 16, 16\)"),
        ("width", "decode of latents with another width; expected InputError"),
        ("in place", "latents that were changed in place|images of 4 latents in a second call"),
    ],
)
def test_decomposers_with_a_fault(fault: str, message: str) -> None:
    with pytest.raises(ConformanceError, match=message):
        check_decomposer(stripes_model().encoder if fault == "no decomposer" else Faulty(fault))
