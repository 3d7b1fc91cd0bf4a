"""Take two pictures apart, and make one of the objects of both."""

import torch

import energycomp
from energycomp.decomposition import add
from energycomp.images import strip, to_output
from energycomp.plugins import find
from energycomp_decomp import DiffusionDecomposer
from energycomp_decomp.part_weights import part_weights

decomp = DiffusionDecomposer(energycomp.load("decomp"))
examples = find("datasets", "decomp")().examples("synthetic:2", count=2, seed=0)
pictures = torch.stack([example.image for example in examples])
found = energycomp.decompose(pictures / 2 + 0.5, decomp, generator=torch.Generator().manual_seed(0))
strip(pictures, found.parts.whole, found.parts.images, found.parts.masks).save("strip.png")
needed = part_weights(pictures, decomp.model, generator=torch.Generator().manual_seed(0)).needed_by_image > 0.05
print(f"parts that show something: {needed.sum(1).tolist()}")
both = decomp.decode(add(*found.latents.split(1)), generator=torch.Generator().manual_seed(0))
to_output(both, "pil")[0].save("both.png")
