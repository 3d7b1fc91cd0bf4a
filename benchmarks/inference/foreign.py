"""Which images a model refuses before it searches them: photos, scans and charts against images like those it knows.

python benchmarks/inference/foreign.py [--model clevr] [--data synthetic:0-10:192x128] [-n 100] [--images FOLDER ...]
    [--read]

The photos are those of scikit-learn; the chart, the scan, noise and a white page are drawn. `--data` names images that
the model knows, and `--images` folders of further ones, such as the official development images of CLEVR. With `--read`
images are also read, and refused by the error that the answer leaves, as `energycomp infer` does.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from benchmarks.common.measure import table
from benchmarks.common.options import parser
from energycomp import infer, load
from energycomp.errors import OutOfDistributionError
from energycomp.images import open_image, to_unit
from energycomp.inference import OutOfDistributionWarning, check_known
from energycomp_cli import image_files
from energycomp_lab.evaluation import dataset_of, source_of

COMMAND = "python benchmarks/inference/foreign.py"


def foreign_images() -> dict[str, Image.Image]:
    """Images that no model of this project knows, by name."""
    from sklearn.datasets import load_sample_images

    names = ("photo of a palace", "photo of a flower")
    found = {name: Image.fromarray(each) for name, each in zip(names, load_sample_images().images, strict=True)}
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    return found | {
        "chart": draw_chart(),
        "scan of a page": draw_scan(),
        "noise": Image.fromarray(noise),
        "white page": Image.new("RGB", (320, 240), "white"),
    }


def draw_chart() -> Image.Image:
    """Bars and a line, as matplotlib draws them."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    axes.plot(np.sin(np.arange(50) / 5))
    axes.bar(range(0, 50, 5), np.arange(10) / 10)
    axes.set_title("Sales per month")
    figure.canvas.draw()
    drawn: Any = figure.canvas
    return Image.fromarray(np.asarray(drawn.buffer_rgba())).convert("RGB")


def draw_scan() -> Image.Image:
    """Forty lines of text on a page."""
    page = Image.new("RGB", (800, 1000), (250, 248, 240))
    for line in range(40):
        text = "the quick brown fox jumps over the lazy dog and more words follow"
        ImageDraw.Draw(page).text((60, 40 + 24 * line), text, fill=(20, 20, 20), font_size=20)
    return page


def main() -> None:
    """Prints a row for each foreign image, and how many of the others are refused."""
    parsed = parser(
        __doc__, model="clevr", data=("synthetic:0-10:192x128", "images that the model knows"), n=100, seed=2
    )
    parsed.add_argument("--images", type=Path, nargs="*", default=[], help="folders of further images")
    parsed.add_argument("--read", action="store_true", help="refuse by answers, too")
    options = parsed.parse_args()
    model: Any = load(options.model)
    rows = []

    def refused(image: Any) -> tuple[str, float]:
        start = time.process_time()
        try:
            check_known(image, model)
        except OutOfDistributionError as error:
            return str(error).partition(": ")[2], time.process_time() - start
        reason = ""
        if options.read:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", OutOfDistributionWarning)
                solution = infer(image, model, generator=0, progress=False)
            reason = f"typicality {solution.typicality:.3f}" if solution.out_of_distribution else ""
        return reason, time.process_time() - start

    for name, image in foreign_images().items():
        reason, seconds = refused(image)
        rows.append([name, reason or "not refused", f"{seconds:.2f} s"])
    known = source_of(dataset_of(model), model).examples(options.data, count=options.n, seed=options.seed)
    number = sum(bool(refused(picture_of(each.image))[0]) for each in known)
    rows.append([options.data, f"{number} of {len(known)} refused", ""])
    for folder in options.images:
        files = image_files([folder])
        number = sum(bool(refused(open_image(file))[0]) for file in files)
        rows.append([folder.name, f"{number} of {len(files)} refused", ""])
    print(table(["image", "refused because", "CPU"], rows, f"`{COMMAND} --model {options.model}`"))


def picture_of(image: Any) -> Any:
    """An image of a source as `infer` takes it: tensors of [-1, 1] in [0, 1]."""
    return to_unit(image) if isinstance(image, Tensor) else image


if __name__ == "__main__":
    main()
