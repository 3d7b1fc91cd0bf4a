"""What made an image, in its file: written, read, and refused where it is damaged, too long or of somebody else."""

import io
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from energycomp import __version__
from energycomp.errors import InputError
from energycomp.images import decode_formula, png, read_formula, save_frames, save_image

FORMULA: dict[str, Any] = {"command": "sample", "model": "clevr", "arguments": ["ein grüner Würfel"], "seed": 2**62}
KEY = "energycomp:formula"
SMALL = Image.new("RGB", (8, 6), (200, 30, 60))


def text_file(path: Path, text: str, kind: str = "PNG") -> Path:
    """A file whose metadata say this."""
    if kind == "GIF":
        SMALL.save(path, "GIF", comment=f"{KEY} {text}".encode())
    else:
        info = PngInfo()
        info.add_text(KEY, text)
        SMALL.save(path, "PNG", pnginfo=info)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    def write(path: Path, **more: Any) -> bytes:
        if path.suffix == ".png":
            save_image(SMALL, path, **more)
        else:
            save_frames([SMALL, SMALL.rotate(180)], path, **more)
        return path.read_bytes()

    said = {"energycomp": __version__, **FORMULA}
    content = write(tmp_path / name, formula=FORMULA)
    assert read_formula(tmp_path / name) == decode_formula(content) == said
    assert content == write(tmp_path / f"again-{name}", formula=FORMULA), "no time and no name is in the file"
    assert write(tmp_path / f"plain-{name}").find(b"energycomp") == -1
    with Image.open(tmp_path / name) as image, Image.open(tmp_path / f"plain-{name}") as plain:
        assert image.convert("RGB").tobytes() == plain.convert("RGB").tobytes()


def test_a_grid_says_both_and_pixels_stay(tmp_path: Path) -> None:
    save_image(SMALL, tmp_path / "grid.png", cells=2, formula=FORMULA)
    with Image.open(tmp_path / "grid.png") as image:
        assert image.info.keys() == {KEY, "energycomp:grid"}
    assert decode_formula(png(SMALL, formula=FORMULA))["model"] == "clevr"
    for name in ("a.jpg", "a.webp"):
        save_image(SMALL, tmp_path / name, formula=FORMULA)
        with pytest.raises(InputError, match="says nothing about how it was made"):
            read_formula(tmp_path / name)


REFUSED = [
    ("{", "damaged"), ("", "damaged"), ("[" * 60_000, "damaged"), ('{"energycomp": "0", "seed": NaN}', "damaged"),
    ('{"energycomp": "0", "seed": ' + "1" * 5_000 + "}", "damaged"), ("[1, 2]", "did not write"),
    ('{"prompt": "a dog"}', "did not write"), ('{"energycomp": 3}', "did not write"),
    ('{"energycomp": "' + "a" * 65_536 + '"}', "at most 65,536"),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
@pytest.mark.parametrize(("text", "said"), REFUSED, ids=lambda text: text[:20])
def test_what_is_refused(kind: str, text: str, said: str, tmp_path: Path) -> None:
    file = text_file(tmp_path / f"a.{kind.lower()}", text, kind)
    with pytest.raises(InputError, match=said) as refused:
        read_formula(file)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_files_without_a_formula(tmp_path: Path) -> None:
    SMALL.save(tmp_path / "plain.png")
    SMALL.save(tmp_path / "other.gif", comment=b"made by hand")
    (tmp_path / "text.png").write_text("no image")
    said = {"plain.png": "nothing", "other.gif": "nothing", "text.png": "decoded", "gone.png": "no file"}
    for name, expected in said.items():
        with pytest.raises(InputError, match=expected):
            read_formula(tmp_path / name)


def test_a_compressed_text_is_not_unpacked_without_end(tmp_path: Path) -> None:
    """A chunk of 2 kB that unpacks to 2 MB: Pillow stops at 1 MB."""
    info = PngInfo()
    info.add(b"zTXt", KEY.encode() + b"\0\0" + zlib.compress(b"a" * 2_000_000))
    SMALL.save(file := io.BytesIO(), "PNG", pnginfo=info)
    with pytest.raises(InputError, match="cannot be decoded"):
        decode_formula(file.getvalue())


def test_formulas_that_are_not_written(tmp_path: Path) -> None:
    for formula in ({"seed": float("nan")}, {"model": object()}, {"arguments": ["a" * 65_536]}):
        for save, image, name in ((save_image, SMALL, "a.png"), (save_frames, [SMALL], "a.gif")):
            with pytest.raises(InputError, match="got a formula"):
                save(image, tmp_path / name, formula=formula)
    assert list(tmp_path.iterdir()) == []


def test_pixels_are_not_decoded(tmp_path: Path) -> None:
    content = png(SMALL, formula=FORMULA)
    assert decode_formula(content[: content.index(b"IDAT") + 4])["seed"] == FORMULA["seed"]
    assert json.dumps(FORMULA["arguments"])[1:-1].encode() in content, "the file holds ASCII"
