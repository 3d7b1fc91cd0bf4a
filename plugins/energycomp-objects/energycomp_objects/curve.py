"""How many photos are enough: a model is trained on more and more of them, and each reads the same photos."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from PIL import Image, ImageDraw, ImageFont

from energycomp.errors import InputError
from energycomp.files import atomic_file
from energycomp.models import Model
from energycomp_lab.training import Finished, FitConfig, FitResult, OnSample, Recipe
from energycomp_objects.validate import SCORES, PhotoValidation

POINTS = "25,50,100,all"
SHOWN = {
    "recall": "found",
    "precision": "precision",
    "all_attributes": "words",
    "count_error": "count error",
    "count_in_90": "counts in 90 %",
    "calibration_error": "calibration error",
    "average_precision": "average precision",
}
RISE = 0.01  # of recall, from the last but one to the last number of photos, for which more photos are worth it
FALL = 0.05  # of the count error, as a share of it
SIZE = (640, 400)  # px, of the picture
EDGE = 60  # px
COLOURS = {"recall": (20, 90, 160), "precision": (200, 90, 20), "all_attributes": (40, 140, 70)}


@attrs.frozen(eq=False, kw_only=True)
class Curve:
    """A training for each number of photos; the last has all of them, and its model is stored.

    Args:
        recipes: by the number of photos, from few to all; they have the same plan.
        validation: of the last.
    """

    recipes: Mapping[int, Recipe]
    validation: PhotoValidation

    @property
    def model(self) -> Model:
        return self.validation.model

    @property
    def config(self) -> FitConfig:
        return self.recipes[max(self.recipes)].config

    def run(
        self,
        out: str | Path,
        *,
        minutes: float | None = None,
        on_sample: OnSample | None = None,
        progress: bool = True,
        **changes: Any,
    ) -> FitResult:
        """Trains in folders `out/photos-N`, and on all photos in `out`; each has the same share of the minutes.

        Writes `curve.json` and `curve.png`. A training that was interrupted goes on, and one that has ended stays.
        """
        each = None if minutes is None else minutes / len(self.recipes)
        out = Path(out)
        rows = []
        for count, recipe in self.recipes.items():
            is_last = count == max(self.recipes)
            folder = out if is_last else out / f"photos-{count}"
            sample = on_sample if is_last else None
            result = recipe.run(folder, minutes=each, on_sample=sample, progress=progress, **changes)
            if result.finished is None:  # of another process than the first
                continue
            record = json.loads((folder / SCORES).read_text(encoding="utf-8"))
            rows.append({"photos": count, **record["scores"]})
            with atomic_file(out / "curve.json") as temporary:
                temporary.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        if not rows:
            return result
        with atomic_file(out / "curve.png") as temporary:
            draw_curve(rows).save(temporary, "PNG")
        card = {"README.md": self.validation.card(rows[-1], describe_curve(rows))}
        calibration = None if result.finished is None else result.finished.calibration
        return attrs.evolve(result, finished=Finished(card, calibration))


def read_points(text: str, photos: int) -> list[int]:
    """The numbers of photos of a curve, of which so many are there.

    >>> read_points("25,50,100,all", 60)
    [25, 50, 60]
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 1 for word in words if word != "all"):
        raise InputError(f"got curve={text}; expected numbers of photos from 2 on; pass for example curve={POINTS}")
    points = sorted({int(word) for word in words if word != "all" and int(word) < photos} | {photos})
    if len(points) < 2:
        raise InputError(f"got curve={text} for {photos} photos; expected fewer in a part of them; pass curve=5,10,all")
    return points


def describe_curve(rows: Sequence[Mapping[str, float]]) -> str:
    """The section of a model card: a table, and whether more photos would help."""
    lines = [
        "## How many photos are enough",
        "\n".join(
            [
                f"| photos | {' | '.join(SHOWN.values())} |",
                f"| --- |{' --- |' * len(SHOWN)}",
                *(f"| {row['photos']} | {' | '.join(f'{row[name]:.3f}' for name in SHOWN)} |" for row in rows),
            ]
        ),
        "Each was trained for as long, and read the same photos.",
    ]
    before, last = rows[-2:]
    gains = []
    if last["recall"] >= before["recall"] + RISE:
        gains.append(f"found {before['recall']:.3f} to {last['recall']:.3f}")
    if last["count_error"] <= (1 - FALL) * before["count_error"] and before["count_error"] > 0:
        gains.append(f"error of the count {before['count_error']:.2f} to {last['count_error']:.2f}")
    step = f"from {before['photos']} to {last['photos']} photos"
    if gains:
        lines.append(f"It still improves {step} ({', '.join(gains)}): more photos would help.")
    else:
        lines.append(f"It hardly improves {step}: longer training may help more than more photos.")
    return "\n\n".join(lines)


def draw_curve(rows: Sequence[Mapping[str, float]]) -> Image.Image:
    """Found, precision and words over the number of photos, from 0 to 1."""
    width, height = SIZE
    picture = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    most = max(row["photos"] for row in rows)

    def place(photos: float, value: float) -> tuple[float, float]:
        return EDGE + (width - 2 * EDGE) * photos / most, height - EDGE - (height - 2 * EDGE) * value

    # The grid and its numbers
    for tenth in range(0, 11, 2):
        draw.line([place(0, tenth / 10), place(most, tenth / 10)], fill=(220, 220, 220))
        draw.text((EDGE - 10, place(0, tenth / 10)[1]), f"{tenth / 10:.1f}", fill="black", font=font, anchor="rm")
    for row in rows:
        x, y = place(row["photos"], 0)
        draw.text((x, y + 8), f"{row['photos']}", fill="black", font=font, anchor="mt")
    draw.text((width / 2, height - 14), "photos", fill="black", font=font, anchor="mb")
    # The lines, and what each is
    for number, (name, colour) in enumerate(COLOURS.items()):
        points = [place(row["photos"], row[name]) for row in rows]
        draw.line(points, fill=colour, width=3)
        for x, y in points:
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
        draw.text((EDGE + 120 * number, EDGE / 2), SHOWN[name], fill=colour, font=font, anchor="lm")
    return picture
