"""Which images a model refuses before it searches them: photos, scans and charts against images like those it knows.

python benchmarks/inference/foreign.py [--model clevr] [--data synthetic:0-10:192x128] [-n 100] [--images FOLDER]

The photos are those of scikit-learn; the chart, the scan, noise and a white page are drawn. `--data` names images that
the model knows, and `--images` a folder of further ones, such as the official development images of CLEVR.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw

from benchmarks.common.measure import table
from benchmarks.common.options import parser
from energycomp import load
from energycomp.errors import OutOfDistributionError
from energycomp.images import open_image
from energycomp.inference import check_known
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
    parsed.add_argument("--images", type=Path, help="folder of further images")
    options = parsed.parse_args()
    model: Any = load(options.model)
    rows = []

    def refused(image: Any) -> tuple[str, float]:
        start = time.process_time()
        try:
            check_known(image, model)
        except OutOfDistributionError as error:
            return str(error).partition(": ")[2], time.process_time() - start
        return "", time.process_time() - start

    for name, image in foreign_images().items():
        reason, seconds = refused(image)
        rows.append([name, reason or "not refused", f"{seconds:.2f} s"])
    known = source_of(dataset_of(model), model).examples(options.data, count=options.n, seed=options.seed)
    number = sum(bool(refused(each.image / 2 + 0.5)[0]) for each in known)
    rows.append([options.data, f"{number} of {len(known)} refused", ""])
    if options.images is not None:
        files = image_files([options.images])
        number = sum(bool(refused(open_image(file))[0]) for file in files)
        rows.append([options.images.name, f"{number} of {len(files)} refused", ""])
    print(table(["image", "refused because", "CPU"], rows, f"`{COMMAND} --model {options.model}`"))


if __name__ == "__main__":
    main()
