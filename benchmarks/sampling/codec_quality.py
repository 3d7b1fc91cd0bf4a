"""How well a model's codec gives images back: peak signal-to-noise ratio, and sharpness.

python benchmarks/sampling/codec_quality.py --data images [--model clevr] [-n 60] [-o codec.png]

`--data` is a folder in CLEVR's layout, or any of images. Prints one JSON line: the mean PSNR with its 95 %
interval, and the mean gradient over that of the images, see `described_quality.py`: of all pixels, of the tenth where
the image, smoothed, is steepest, and of the flat half, where it is grain. `-o` shows eight images above what the codec
makes of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.common.options import parser
from benchmarks.common.ways import SHOWN, mean_interval, write_rows
from benchmarks.sampling.described_quality import GradientRatio, lengths
from energycomp import load
from energycomp.errors import InputError
from energycomp.images import to_output
from energycomp_datasets.clevr.layout import read
from energycomp_datasets.pictures import image_files


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the line."""
    picture = (None, "an image of the first eight, above their reconstructions")
    folder = (None, "folder of images")
    options = parser(__doc__, model="clevr", data=folder, n=60, o=picture).parse_args(arguments)
    model = load(options.model)
    if model.denoiser.codec is None or options.data is None:
        raise InputError(f"got {options.model} and --data {options.data}; expected a model with a codec, and a folder")
    named = (options.data / "scenes").is_dir()
    paths = [record.path for record in read(options.data)] if named else image_files(options.data)
    ratios, gradients, rows, parts = [], GradientRatio(), [], []
    for path in tqdm(paths[: options.n], leave=False):
        image = model.processor(path)
        again = model.denoiser.codec.decode(model.denoiser.codec.encode(image))
        ratios.append(-10 * ((again - image) / 2).square().mean().log10())
        gradients.update(again, image)
        steep = lengths(F.avg_pool2d(image, 5, 1, 2, count_include_pad=False))
        edges, flat = steep > steep.quantile(0.9), steep < steep.quantile(0.5)
        parts.append(torch.tensor([[lengths(x)[k].sum() for k in (edges, flat)] for x in (again, image)]))
        rows.append((image, again))
    mean, interval = mean_interval(torch.stack(ratios))
    line = {"model": options.model, "images": len(ratios), "psnr": mean, "psnr_interval": interval}
    again_of, image_of = torch.stack(parts).sum(0)
    shares = zip(("edges", "flat"), (again_of / image_of).tolist(), strict=True)
    line |= {"gradient": round(float(gradients.compute()), 4)} | {name: round(share, 4) for name, share in shares}
    print(json.dumps(line), flush=True)
    shown = torch.cat([part for parts in zip(*rows[:SHOWN], strict=True) for part in parts])
    write_rows(options.o, to_output(shown, "pil"), columns=min(SHOWN, len(rows)), side=256)


if __name__ == "__main__":
    main()
