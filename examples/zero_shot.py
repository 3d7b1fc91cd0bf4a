"""Compose prompts, and read which concepts a picture shows, without training for it.

python examples/zero_shot.py [MODEL] [CONCEPT,CONCEPT,...]

Without arguments the small model that ships; else the folder or hub id of a Stable Diffusion pipeline.
"""

import sys

import torch

import energycomp
from energycomp_text import with_concepts

source = sys.argv[1] if len(sys.argv) > 1 else "text"
names = sys.argv[2].split(",") if len(sys.argv) > 2 else ["red cube", "blue sphere", "green cylinder", "yellow cube"]
model = with_concepts(energycomp.load(source), names)

prompts = [model.conditioner.prompt(name) for name in names[:2]]
scale = model.defaults.guidance_scale
composer = energycomp.Composer([scale * model(prompt) for prompt in prompts])
picture = composer.sample(generator=torch.Generator().manual_seed(0))[0]
picture.save("composed.png")
print(composer, "in composed.png")

solution = energycomp.infer(picture, model, count=len(prompts))
print("read:", *(model.conditioner.describe(value)["concept"] for value in solution.conditions), sep="\n  ")
if solution.p_value is not None:  # there is another answer
    print(f"the next best answer is as good with p = {solution.p_value:.2g}; {solution.rows:,} network rows")
