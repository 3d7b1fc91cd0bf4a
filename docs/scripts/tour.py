"""Make the moving picture of the README: read a photo, compose a scene, read and edit an image, and track a film.

python docs/scripts/tour.py [--image IMAGE] [--only photo compose edit track] [--seed 11] [-o docs/images/tour.webp]

Each act is kept as frames in --folder, so that `--only edit` makes one anew, and joins it with the others. Without
--image, a rendered scene is read.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont, ImageSequence

from energycomp import Composer, infer, load
from energycomp.files import atomic_file
from energycomp.images import open_image, to_output
from energycomp_datasets.clevr.layout import render_objects
from energycomp_datasets.clevr.videos import VideoOptions, video_of
from energycomp_edit import edit
from energycomp_scenes import Track, track

Frames = list[tuple[Image.Image, int]]  # each with its milliseconds
Row = Mapping[str, Any]  # of a table: the place and the words of an object
Box = tuple[Any, Any]  # the middle and the halves of the sides of a label
WIDTH, HEIGHT, BAR = 640, 427, 61  # px: of pictures, and of the text below them
LINE = 54  # letters of a line of this text
STEPS = 40
SCENE = (
    "large blue rubber sphere at 0.3,0.45",
    "large red rubber cylinder at 0.66,0.42",
    "small yellow rubber sphere at 0.5,0.68",
)
VIDEO = (6, VideoOptions(objects=(3, 3), size=(480, 320), frames=12))  # its seed, and what it shows
HELD_OUT = 2_000_000_000
PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
DICE = (PHOTOS / "dice" / "val" / "IMG_20191208_111530.jpg", (27, 75, 627, 475))  # and the part that is shown, px
PIPS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
COLORS = {"RBC": "#ff8a80", "WBC": "#00e5ff", "Platelets": "#ffea00"}  # of boxes; all others are yellow
INK, FAINT, TRAIL = "#1a1a1a", "#6b6b6b", (255, 214, 0)


def main() -> None:
    """Makes the acts that are asked for, and joins all of them."""
    acts: dict[str, Callable[[argparse.Namespace], Frames]] = {
        "photo": photo, "compose": compose, "edit": change, "track": follow,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, default=None, help="an image to read and to edit")
    parser.add_argument("--only", nargs="+", choices=list(acts), default=list(acts))
    parser.add_argument("--seed", type=int, default=11, help="of the composed scene")
    parser.add_argument("--folder", type=Path, default=Path("runs/tour"))
    parser.add_argument("-o", type=Path, default=Path("docs/images/tour.webp"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        save(acts[name](options), options.folder / f"{name}.webp", lossless=True)
    frames = [frame for name in acts for frame in read(options.folder / f"{name}.webp")]
    save(frames, options.o, quality=82)
    seconds = sum(duration for _, duration in frames) / 1000
    print(f"{options.o}  {len(frames)} frames  {seconds:.1f} s  {options.o.stat().st_size / 1e6:.2f} MB")


def photo(_: argparse.Namespace) -> Frames:
    """A photo of dice that is read die by die, and their sum."""
    file, part = DICE
    image = open_image(file)
    left, top, right, bottom = part
    rows = [
        row
        for row in infer(image, load("dice"), generator=0).table()
        if left < row["x"] * image.width < right and top < row["y"] * image.height < bottom
    ]
    rows.sort(key=lambda row: row["x"])
    frames = [(card(image.crop(part), "Read", "a photo of dice, which the model has not seen"), 700)]
    for count in range(1, len(rows) + 1):
        pips = sum(PIPS[row["category"]] for row in rows[:count])
        text = f"{count} dice, {pips} pips"
        frames.append((card(boxed(image, rows[:count]).crop(part), "Read", text), 140))
    frames[-1] = (frames[-1][0], 1500)
    return frames


def boxed(image: Image.Image, rows: Sequence[Row], *, quiet: Sequence[str] = (), size: int = 15) -> Image.Image:
    """A photo with the box of each object, and its word where it is none of `quiet`; letters of `size` px."""
    drawn = image.copy()
    pen = ImageDraw.Draw(drawn)
    for row in rows:
        word = str(row["category"])
        color = COLORS.get(word, "#ffd400")
        x, y = row["x"] * image.width, row["y"] * image.height
        w, h = row["width"] * image.width / 2, row["height"] * image.height / 2
        pen.rectangle([x - w, y - h, x + w, y + h], outline=color, width=size // 5)
        if word not in quiet:
            stroke = {"stroke_width": 2, "stroke_fill": "black"}
            pen.text((x, y - h - 2), word, font=letters(size), fill=color, anchor="mb", **stroke)
    return drawn


def compose(options: argparse.Namespace) -> Frames:
    """A scene that grows by an object at a time, each written word by word."""
    clevr = load("clevr")
    images = []
    for count in range(len(SCENE) + 1):
        parts = [clevr(text) for text in SCENE[:count]] or [clevr.unconditional]
        sample = Composer(parts).sample(generator=options.seed, num_inference_steps=STEPS)[0]
        images.append(clevr.shown(sample))
    return composed(images, [text.partition(" at ")[0] for text in SCENE])


def composed(images: Sequence[Image.Image], names: Sequence[str]) -> Frames:
    """Frames of the growing scene: the name of an object is written, then the object appears."""
    frames = [(card(images[0], "Compose", "an empty scene"), 600)]
    for count, name in enumerate(names, 1):
        words = name.split()
        for number in range(1, len(words) + 1):
            text = " & ".join([*names[: count - 1], " ".join(words[:number])])
            frames.append((card(images[count - 1], "Compose", text), 90))
        text = " & ".join(names[:count])
        frames += [(card(image, "Compose", text), 60) for image in faded(images[count - 1], images[count])]
        frames.append((card(images[count], "Compose", text), 450))
    return frames


def change(options: argparse.Namespace) -> Frames:
    """An image that is read, and edited: its clearest object gets another colour, and its least clear one moves."""
    model = load("clevr")
    if options.image:
        image = open_image(options.image)
    else:
        arrays, _ = render_objects(1, objects=(4, 4), seed=HELD_OUT + 3)
        image = to_output(arrays / 127.5 - 1, "pil")[0]
    before = infer(image, model, generator=0)
    rows = before.table()
    gains = [row["gain"] for row in rows]
    clearest, least = int(np.argmax(gains)), int(np.argmin(gains))
    present = {row["color"] for row in rows}
    colour = next(name for name in ("yellow", "blue", "red", "green", "cyan", "purple") if name not in present)
    place = free_place([(row["x"], row["y"]) for row in rows])
    changes: dict[str, Any] = {"set": {clearest: {"color": colour}}, "move": {least: place}}
    edited = edit(image, model, solution=before, generator=0, num_inference_steps=STEPS, **changes)
    said = f"{short(rows[clearest])} -> {colour};  {short(rows[least])} -> another place"
    return changed(image, rows, edited.image, said)


def free_place(taken: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The place in the front half of the image that is farthest from all objects."""
    grid = [(x / 20, y / 20) for x in range(4, 17) for y in range(11, 16)]
    return max(grid, key=lambda one: min(np.hypot(one[0] - x, one[1] - y) for x, y in taken))


def changed(image: Image.Image, rows: Sequence[Row], edited: Image.Image, said: str) -> Frames:
    """Frames of an image whose objects are named one by one, and which then turns into the edited image."""
    frames = [(card(image, "Read", "a picture, of which only the pixels are given"), 500)]
    for count in range(1, len(rows) + 1):
        text = f"{count} object{'s' * (count > 1)}"
        frames.append((card(named(fitted(image), rows, count), "Read", text), 220))
    text = f"{len(rows)} objects, with the certainty of their words"
    frames.append((card(named(fitted(image), rows, len(rows)), "Read", text), 1100))
    frames.append((card(image, "Edit", said), 700))
    frames += [(card(one, "Edit", said), 60) for one in faded(image, edited)]
    frames.append((card(edited, "Edit", said), 1300))
    return frames


def follow(_: argparse.Namespace) -> Frames:
    """A film whose objects keep their identity, also where one is hidden behind another."""
    seed, wanted = VIDEO
    video = video_of(seed, 0, wanted)
    images = [video.frame(index, wanted.size) for index in range(wanted.frames)]
    return followed(track(images, load("clevr"), generator=0))


def followed(found: Track) -> Frames:
    """Frames of a film with the rings of its objects, and the way that each has come."""
    frames: Frames = []
    for index in range(len(found.images)):
        picture = found.picture(index, side=HEIGHT)
        pen = ImageDraw.Draw(picture)
        for row in found.frames[index].objects:
            way = [place for frame in found.frames[: index + 1] for place in places_of(frame.objects, row["identity"])]
            points = [(x * picture.width, y * picture.height) for x, y in way]
            pen.line(points, fill=TRAIL, width=3, joint="curve")
        hidden = [row for row in found.frames[index].objects if not row["visible"]]
        said = "each object keeps its number" + (", also while it is hidden" if hidden else "")
        frames.append((card(picture, "Track", said), 180))
    frames[-1] = (frames[-1][0], 1000)
    return frames


def places_of(rows: Sequence[Row], identity: int) -> list[tuple[float, float]]:
    """The place of an object in a frame, if it is known there."""
    return [(row["x"], row["y"]) for row in rows if row["identity"] == identity]


def short(row: Row) -> str:
    """The words of an object that a caption has room for."""
    return f"{row['color']} {row['shape']}"


def named(image: Image.Image, rows: Sequence[Row], count: int, size: int = 15) -> Image.Image:
    """An image with the words of its first objects, and the certainty of the least certain one of each.

    Args:
        image: at the size of the figure.
        size: of letters, in px.
    """
    picture = image.convert("RGB")
    pen, font = ImageDraw.Draw(picture, "RGBA"), letters(size)
    whole = np.array(picture.size)
    objects = [np.array([row["x"], row["y"]]) * whole for row in rows]
    taken: list[Box] = []
    for row, middle in zip(rows[:count], objects, strict=False):
        least = f"\n{min(row['certainty'].values()):.2f}" if "certainty" in row else ""
        text = f"{row['size']} {row['color']}\n{row['material']} {row['shape']}{least}"
        _, _, wide, high = pen.multiline_textbbox((0, 0), text, font=font, align="center")
        half = np.array([wide, high]) / 2 + size / 2.5
        others = [other for other in objects if other is not middle]
        place = free_of(middle, half, others, taken, whole)
        taken.append((place, half))
        pen.rounded_rectangle([*(place - half), *(place + half)], radius=5, fill=(0, 0, 0, 165))
        pen.multiline_text(tuple(place), text, font=font, fill="white", anchor="mm", align="center")
    return picture


def free_of(middle: Any, half: Any, others: Sequence[Any], taken: Sequence[Box], whole: Any) -> Any:
    """The middle of a label beside an object: inside of the picture, off other labels, and away from other objects.

    Args:
        middle: of the object.
        half: of the width and of the height of the label.
        others: middles of the other objects.
        taken: middles and halves of the labels that are there.
        whole: width and height of the picture.
    """
    away = [(0, -1), (0, 1), (-1, 0), (1, 0), (-0.8, -0.8), (0.8, -0.8), (-0.8, 0.8), (0.8, 0.8)]
    steps = [np.array(one) * (half + reach) for reach in (whole[1] / 13, whole[1] / 9) for one in away]
    places = [np.clip(middle + step, half, whole - half) for step in steps]

    def cost(place: Any) -> float:
        over = sum(float(np.clip(half + other - abs(place - at), 0, None).prod()) for at, other in taken)
        room = whole[1] / 12
        near = sum(float(np.clip(half + room - abs(place - other), 0, None).prod()) for other in others)
        return 10 * over + near + 0.05 * float(np.hypot(*(place - middle)))

    return min(places, key=cost)


def card(image: Image.Image, act: str, text: str) -> Image.Image:
    """A picture above one or two lines that say what happens."""
    whole = Image.new("RGB", (WIDTH, HEIGHT + BAR), "white")
    whole.paste(fitted(image), (0, 0))
    pen = ImageDraw.Draw(whole)
    middle = HEIGHT + BAR // 2
    pen.text((14, middle), act, font=letters(24), fill=INK, anchor="lm")
    pen.multiline_text((136, middle), textwrap.fill(text, LINE), font=letters(16), fill=FAINT, anchor="lm", spacing=6)
    return whole


def fitted(image: Image.Image) -> Image.Image:
    """An image at the size of the pictures."""
    return image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def letters(size: int) -> ImageFont.FreeTypeFont:
    """The font of the figures, which matplotlib brings along."""
    return ImageFont.truetype(findfont("DejaVu Sans"), size)


def faded(first: Image.Image, last: Image.Image) -> Iterator[Image.Image]:
    """Images between two, without either."""
    for share in (0.2, 0.4, 0.6, 0.8):
        yield Image.blend(fitted(first), fitted(last), share)


def save(frames: Frames, path: Path, **options: Any) -> None:
    """Writes frames as an animated WebP file that repeats."""
    first, *rest = [image for image, _ in frames]
    options |= {"append_images": rest, "duration": [duration for _, duration in frames], "loop": 0}
    with atomic_file(path) as temporary:
        first.save(temporary, format="WebP", save_all=True, **options)


def read(path: Path) -> Frames:
    """The frames of an animated file."""
    with Image.open(path) as film:
        return [(frame.convert("RGB"), frame.info["duration"]) for frame in ImageSequence.Iterator(film)]


if __name__ == "__main__":
    main()
