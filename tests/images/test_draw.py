from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from energycomp.errors import InputError
from energycomp.images.draw import EDGE, FOUND, TRUE, grid, overlay, strip


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def test_grid_puts_pictures_in_reading_order() -> None:
    images = torch.stack([torch.full((3, 4, 4), v) for v in (-1.0, 0.0, 1.0)])
    picture = pixels(grid(images, columns=2, padding=1))
    assert picture.shape == (11, 11, 3)
    assert [int(picture[3, 3, 0]), int(picture[3, 8, 0]), int(picture[8, 3, 0])] == [0, 128, 255]
    assert (picture[0] == 255).all()
    array = torch.randint(0, 256, (5, 3, 6, 6), dtype=torch.uint8)
    pillow = [Image.fromarray(a.permute(1, 2, 0).numpy()) for a in array]
    assert (pixels(grid(array / 127.5 - 1)) == pixels(grid(pillow))).all()
    assert grid(pillow).size == (26, 18)  # three columns
    grey = torch.linspace(-1, 1, 16).view(1, 1, 4, 4)
    assert (pixels(grid(grey)) == pixels(grid(grey.expand(1, 3, 4, 4)))).all()


FOUR, SMALL = torch.zeros(4, 3, 8, 8), Image.new("RGB", (8, 8))
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "one picture": (lambda: grid(torch.zeros(3, 4, 4)), "got"),
    "two channels": (lambda: grid(torch.zeros(2, 2, 4, 4)), "got"),
    "none": (lambda: grid([]), "got"),
    "no columns": (lambda: grid(FOUR, 0), "got"),
    "two sizes": (lambda: grid([SMALL, Image.new("RGB", (3, 2))]), "one size"),
    **{f"three {kind}": (lambda kind=kind: grid(FOUR, columns=2, **{kind: ["a"] * 3}), f"got 3 {kind}; expected")
       for kind in ("heads", "names", "captions")},
    **{f"the places {places}": (lambda places=places: overlay(SMALL, places), "places")
       for places in ([(0.5,)], [(0.5, float("nan"))], torch.zeros(2, 3), torch.zeros(2))},
    "another number of labels": (lambda: overlay(SMALL, torch.zeros(2, 2), ["a"]), "got 1 labels; expected 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    draw, said = REFUSED[case]
    with pytest.raises(InputError, match=said):
        draw()


def test_overlay_shows_the_true_places_apart() -> None:
    picture = pixels(overlay(Image.new("RGB", (480, 480), "gray"), np.zeros((0, 2)), truth=[(0.5, 0.5)]))
    assert (picture[240, 240] == TRUE).all()
    assert not (picture.reshape(-1, 3) == FOUND).all(1).any()


def test_overlay_marks_places_and_leaves_the_rest() -> None:
    picture = pixels(overlay(Image.new("RGB", (64, 48), "gray"), torch.tensor([[0.25, 0.5]]), side=480))
    assert picture.shape == (480, 640, 3)
    ring = picture[240, 160 - 12 : 160 + 12]
    assert any((ring == FOUND).all(1))
    assert any((ring == EDGE).all(1))
    assert (picture[240, 160] == 128).all()  # what is inside the ring can be seen
    assert (picture[:, 320:] == 128).all()


def test_overlay_of_a_large_picture_keeps_its_size_and_labels_stay_inside() -> None:
    corners = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    plain = overlay(Image.new("RGB", (800, 600)), corners, ["", "", "", ""])
    labelled = overlay(Image.new("RGB", (800, 600)), corners, ["a", "b", "c", "d"])
    assert labelled.size == (800, 600)
    changed = np.abs(pixels(plain).astype(int) - pixels(labelled).astype(int)).any(2)
    halves = [part for half in np.array_split(changed, 2, axis=0) for part in np.array_split(half, 2, axis=1)]
    assert all(part.sum() > 20 for part in halves)


def test_small_images_are_enlarged_smoothly_and_large_ones_stay() -> None:
    edge = torch.full((1, 3, 8, 8), -1.0)
    edge[..., 4:] = 1.0
    levels = set(pixels(grid(edge, side=64)).ravel().tolist())
    assert len(levels) > 4  # a nearest neighbour has two
    assert grid(edge, side=64).size == (64, 64)
    assert grid(edge, side=4).size == (8, 8)


@pytest.mark.parametrize("kind", ["heads", "names", "captions"])
def test_texts_stand_beside_the_images_and_leave_them_as_they_are(kind: str) -> None:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plain = pixels(grid(images, columns=2, side=64))
    texts = ["one", "two"] if kind != "captions" else ["one", "two", "three", "four"]
    written = pixels(grid(images, columns=2, side=64, **{kind: texts}))
    height, width = plain.shape[:2]
    if kind == "captions":
        line = (written.shape[0] - height) // 2
        assert (written[:66] == plain[:66]).all()
        assert written[66 : 66 + line].min() < 100
    else:
        assert (written[-height:, -width:] == plain).all()
        beside = written[:-height] if kind == "heads" else written[:, :-width]
        halves = np.array_split(beside, 2, axis=1 if kind == "heads" else 0)
        assert all(half.min() < 100 for half in halves)


@pytest.mark.parametrize("text", ["", "a" * 100, "two\nlines\tand more", "<b>", "Ø ∑ 日本"])
def test_a_text_stays_beside_its_own_image(text: str) -> None:
    plain = grid(torch.zeros(3, 3, 32, 32), columns=3)
    written = pixels(grid(torch.zeros(3, 3, 32, 32), columns=3, heads=["", text, ""], names=[text]))
    height, width = pixels(plain).shape[:2]
    assert written.shape[1] - width <= 160  # the margin is bounded
    assert (written[-height:, -width:] == pixels(plain)).all()
    heads = written[:-height, -width:]
    assert (heads[:, :32] == 255).all()
    assert (heads[:, -32:] == 255).all()


def test_letters_of_a_wide_figure_are_larger_so_that_a_page_can_shrink_it() -> None:
    wide = grid(torch.zeros(8, 3, 112, 112), columns=8, names=["first image"])
    narrow = grid(torch.zeros(2, 3, 112, 112), columns=2, names=["first image"])
    assert wide.width - 8 * 114 > narrow.width - 2 * 114 + 5


def test_a_strip_names_its_parts() -> None:
    some = torch.zeros(2, 3, 32, 32)
    parts, masks = torch.zeros(2, 4, 3, 32, 32), torch.zeros(2, 4, 32, 32)
    plain, named = strip(some, some, parts, masks), strip(some, some, parts, masks, names=["a", "b"])
    assert named.height == plain.height == 4 * 98 + 2 + 20
    assert named.width > plain.width == 6 * 98 + 2
    assert pixels(plain)[:20].min() < 100
    with pytest.raises(InputError, match="got 1 names; expected 2"):
        strip(some, some, parts, names=["a"])


def test_masks_are_shown_on_the_image_and_on_its_reconstruction() -> None:
    grey = torch.zeros(1, 3, 8, 8)
    masks = torch.zeros(1, 2, 8, 8, dtype=torch.bool)
    masks[:, 0, :, :4] = True
    shown = pixels(strip(grey, grey, torch.zeros(1, 2, 3, 8, 8), masks, side=1))
    first = shown[-9:-1, 2:10]
    second = shown[-9:-1, 12:20]
    assert (first == second).all()
    assert first[0, 0].tolist() != first[0, 7].tolist()
