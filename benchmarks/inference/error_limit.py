"""Measure the largest error of images of the kind that the model learned, to set `Defaults.error_limit`.

python benchmarks/inference/error_limit.py [-n 200] [--quantile 0.995]
"""

from __future__ import annotations

import argparse
import json

import torch
from tqdm import tqdm

from energycomp import infer, load
from energycomp.evaluation import Example
from energycomp.plugins import find


def main() -> None:
    """Prints the quantile of the error over held-out scenes of 0 to 8 objects, and the errors of foreign pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="clevr", help="registered name or folder")
    parser.add_argument("--data", default="synthetic:0-8", help="pictures of the model's kind")
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--quantile", type=float, default=0.995)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    model = load(options.model)
    examples: list[Example] = list(
        find("datasets", model.name)().examples(options.data, count=options.n, seed=options.seed)
    )
    errors = torch.tensor([infer(example.image, model).error for example in tqdm(examples, desc="reading")])
    foreign = {name: round(infer(image, model).error, 2) for name, image in foreign_pictures(model).items()}
    result = {"images": len(errors), "median": float(errors.median()), "foreign": foreign}
    print(json.dumps({**result, f"quantile_{options.quantile}": float(errors.quantile(options.quantile))}))


def foreign_pictures(model: object) -> dict[str, torch.Tensor]:
    """Noise, stripes, coloured blocks and white: (3, H, W) in [-1, 1]."""
    height, width = model.processor.size  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(3, height, width, generator=generator) * 2 - 1
    stripes = torch.sign(torch.sin(torch.arange(width) / 2.0)).expand(3, height, width).clone()
    blocks = torch.rand(3, 8, 8, generator=generator).mul(2).sub(1)
    blocks = blocks.repeat_interleave(height // 8, 1).repeat_interleave(width // 8, 2)
    return {"noise": noise, "stripes": stripes, "blocks": blocks, "white": torch.ones(3, height, width)}


if __name__ == "__main__":
    main()
