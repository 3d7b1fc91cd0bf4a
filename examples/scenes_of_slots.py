"""Draw new scenes, take one apart into slots, and change one object of it."""

import torch

import energycomp
from energycomp.decomposition import traverse
from energycomp.images import grid, strip

slots = energycomp.decomposer_of(energycomp.load("slots"))
scenes = slots.sample(16, generator=torch.Generator().manual_seed(0))
grid(scenes, 8, side=64).save("scenes.png")
found = energycomp.decompose(scenes[:2] / 2 + 0.5, slots)
# Outside its mask, a slot draws anything: a part is what the scene shows in the mask, on grey
shown = found.parts.whole[:, None].where(found.parts.masks[:, :, None], 0.1)
strip(scenes[:2], found.parts.whole, shown).save("strip.png")
pixels = found.parts.masks[0].sum((1, 2))
slot = int(torch.where(pixels > 0, pixels, pixels.max()).argmin())  # the smallest object
number = int(found.latents[0, slot].abs().argmax())
values = torch.linspace(-2, 2, 7).tolist()
row = [slots.decode(some)[0] for some in traverse(found.latents[:1], slot, number, values)]
grid(torch.stack(row), len(row), side=64).save("traverse.png")
