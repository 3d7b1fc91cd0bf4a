"""Blends of 1 to 6 galaxies beside detectors with apertures. Prints the table of the README, with half 95 % intervals.

A galaxy is found where a detected one is within 2 pixels; each is matched once. The flux of one that is not found is 0,
whose error is 100 %. Intervals are of the galaxies that are found.
"""

import argparse
import importlib.util
import math
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from energycomp_galaxies.blends import find
from energycomp_galaxies.galaxies import NOISE, PSF, STAMP, blend, placed, stamps

NEAR, APERTURE, Z90 = 2.0, 3.0, 1.645  # pixels, pixels, quantile of the normal distribution
Detected = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # places (K, 2), fluxes, lower and upper bounds


def ours(image: Tensor) -> Detected:
    found = find(image)
    low, high = found.interval()
    return np.array(found.places), found.flux.mean(0).numpy(), low.numpy(), high.numpy()


def by_scipy(image: Tensor, share: float) -> Detected:
    """Peaks of the smoothed image above 5 standard deviations, and the light around each."""
    smooth = gaussian_filter(image.numpy(), PSF)
    is_top = smooth == maximum_filter(smooth, 3)
    places = np.argwhere(is_top & (smooth > 5.0 * NOISE / (2.0 * math.pi**0.5 * PSF)))
    grid = np.indices(image.shape)
    near = [np.hypot(grid[0] - row, grid[1] - column) <= APERTURE for row, column in places]
    flux = np.array([float(image.numpy()[one].sum()) for one in near]) / share
    half = np.array([Z90 * NOISE * float(one.sum()) ** 0.5 for one in near]) / share
    return places, flux, flux - half, flux + half


def by_sep(image: Tensor, share: float) -> Detected:
    """SExtractor's detection and deblending; apertures that leave out the pixels of other objects."""
    import sep

    data = np.ascontiguousarray(image.numpy(), dtype=np.float32)
    seen, segments = sep.extract(data, 1.5, err=NOISE, segmentation_map=True)
    ids = np.arange(1, len(seen) + 1, dtype=np.int32)
    flux, error, _ = sep.sum_circle(
        data, seen["x"], seen["y"], APERTURE, err=NOISE, segmap=segments, seg_id=ids, subpix=5
    )
    half = Z90 * error / share
    return np.stack([seen["y"], seen["x"]], 1), flux / share, flux / share - half, flux / share + half


def compared(detected: Detected, places: np.ndarray, flux: np.ndarray) -> dict[str, float]:
    """What is right of one blend."""
    seen, estimate, low, high = detected
    apart = np.linalg.norm(places[:, None] - seen.reshape(-1, 2)[None], axis=2)
    true, own = linear_sum_assignment(np.minimum(apart, 2.0 * NEAR))
    is_near = apart[true, own] <= NEAR
    true, own = true[is_near], own[is_near]
    error = np.ones(len(places))
    error[true] = np.abs(estimate[own] / flux[true] - 1.0)
    inside = (low[own] <= flux[true]) & (flux[true] <= high[own])
    line = {"count": float(len(seen) == len(places)), "found": len(true) / len(places), "error": float(error.mean())}
    if len(true):
        line["coverage"] = float(inside.mean())
        # Of blends whose galaxies are all found, and nothing else.
        line |= {"of all": line["coverage"]} if len(seen) == len(places) == len(true) else {}
    return line


def picture(path: str, count: int = 4, seed: int = 1) -> None:
    """A blend, the mean of each galaxy with its flux, true and found, and what is left."""
    import matplotlib.pyplot as plt

    image, _, galaxies = blend(count, torch.Generator().manual_seed(seed))
    found = find(image)
    low, high = found.interval()
    light = [placed(one[None], place)[0] for one, place in zip(found.stamps.mean(0), found.places, strict=True)]
    names = [f"galaxy: {a:.0f} to {b:.0f}" for a, b in zip(low, high, strict=True)]
    true = ", ".join(f"{flux:.0f}" for flux in galaxies.sum((1, 2)).sort().values)
    panels = [(image, f"blend of {true}"), *zip(light, names, strict=True), (found.residual, "residual")]
    figure, axes = plt.subplots(-(-len(panels) // 3), 3, figsize=(8.0, 5.4), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, (values, title) in zip(axes.flat, panels, strict=False):
        axis.imshow(values, cmap="gray", vmin=-3.0, vmax=15.0)
        axis.set_title(title, fontsize=11)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Prints a markdown row for each method and count, or writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=30, help="blends of each count")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--picture", help="the file to which a blend, its galaxies and the residual are drawn, alone")
    options = parser.parse_args()
    if options.picture:
        picture(options.picture)
        return
    # The share of a galaxy's light in the aperture, on average.
    middle = torch.arange(STAMP) - STAMP // 2
    inside = torch.hypot(middle[:, None].float(), middle.float()) <= APERTURE
    alone = stamps(500, torch.Generator().manual_seed(options.seed + 1))
    share = float((alone[:, inside].sum(1) / alone.sum((1, 2))).mean())
    methods: dict[str, Callable[[Tensor], Detected]] = {"separate": ours, "scipy": lambda y: by_scipy(y, share)}
    if importlib.util.find_spec("sep"):
        methods["sep"] = lambda y: by_sep(y, share)
    print(
        "| galaxies | method | count right | found | flux error | coverage | if all is found | CPU s |\n"
        + "| --- " * 8
        + "|"
    )
    warnings.simplefilter("ignore")
    everything: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for count in options.counts:
        generator = torch.Generator().manual_seed(100 * options.seed + count)
        blends = [blend(count, generator) for _ in range(options.n)]
        for name, method in methods.items():
            begun = time.process_time()
            lines = [compared(method(y), np.array(at), z.sum((1, 2)).numpy()) for y, at, z in blends]
            row(str(count), name, lines, (time.process_time() - begun) / options.n)
            everything[name] += lines
    for name, lines in everything.items():
        row("all", name, lines)


def row(count: str, name: str, lines: list[dict[str, float]], seconds: float = math.nan) -> None:
    """The mean over blends of each figure."""
    cells = [count, name]
    for figure in ("count", "found", "error", "coverage", "of all"):
        values = np.array([line[figure] for line in lines if figure in line])
        half = 1.96 * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else math.nan
        cells.append(f"{values.mean():.2f} ± {half:.2f}" if len(values) else "")
    print("| " + " | ".join([*cells, "" if math.isnan(seconds) else f"{seconds:.2f}"]) + " |", flush=True)


if __name__ == "__main__":
    main()
