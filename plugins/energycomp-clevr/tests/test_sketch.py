"""The sketch that a head sees of its object is what our renderer sees of it."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from energycomp.components import Condition
from energycomp.denoisers import Cells, TwoStageUNet
from energycomp_clevr.codes import ATTRIBUTES
from energycomp_clevr.network import SketchedUNet
from energycomp_clevr.objects import Objects
from energycomp_clevr.sketch import POINTS, sketch
from energycomp_clevr.viewpoint import Viewpoint
from energycomp_datasets.clevr.geometry import (
    CAMERA_POSITION,
    camera_basis,
    interval,
    normal,
    ray_grid,
    to_local,
    unproject,
)

OBJECTS, GRID = Objects(viewpoint=True, turns=True), (16, 24)
EXTENT = {"small": 0.35, "large": 0.7}


def sketched(text: str) -> Tensor:
    """What is sketched of an object, at each point: (4, H, W)."""
    maps = sketch(OBJECTS(OBJECTS.read(text)).rows[:, 0], GRID)
    return F.pixel_shuffle(maps, POINTS)[0]


def rendered(shape: str, size: str, turn: int, place: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Where our renderer meets an object (H, W), and its normals (3, H, W), right, up and towards the camera."""
    camera, extent = torch.tensor(CAMERA_POSITION), EXTENT[size]
    middle = unproject(torch.tensor([place]), torch.tensor([extent]), camera)[0]
    heading = math.atan2(*(middle - camera)[:2].flip(0).tolist()) + math.radians(turn)
    frame = (extent, math.cos(heading), math.sin(heading))
    rays = ray_grid(camera, GRID[0] * POINTS, GRID[1] * POINTS)
    kind = ATTRIBUTES["shape"].index(shape)
    origin, direction = to_local((camera - middle)[:, None, None], *frame), to_local(rays, *frame)
    enter, leave = interval(kind, origin, direction)
    points = [start + enter * along for start, along in zip(origin, direction, strict=True)]
    facing = normal(kind, tuple(part.flatten() for part in points), bevel=60).view(3, *enter.shape)
    cosine, sine = frame[1:]
    back = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    right, up, forward = camera_basis(camera)
    return enter < leave, torch.einsum("ij,jk,khw->ihw", torch.stack([right, up, -forward]), back, facing)


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize(("shape", "turn"), [("cube", 0), ("cube", 20), ("cube", 63), ("sphere", 0), ("cylinder", 0)])
@pytest.mark.parametrize("place", [(0.5, 0.5), (0.2, 0.35), (0.8, 0.7)])
def test_it_is_what_the_renderer_sees(shape: str, turn: int, size: str, place: tuple[float, float]) -> None:
    turned = f" turned {turn}" if shape == "cube" else ""
    inside, *facing = sketched(f"{size} {shape}{turned} at {place[0]},{place[1]}")
    met, normals = rendered(shape, size, turn, place)
    # Official cubes, and those of our renderer, have round edges.
    overlap = ((inside > 0.5) & met).sum() / ((inside > 0.5) | met).sum()
    assert overlap > (0.85 if shape == "cube" else 0.95)
    deep = F.avg_pool2d(met[None, None].float(), 3, 1, 1)[0, 0] == 1
    alike = (torch.stack(facing) * normals).sum(0)[deep] > 0.9
    assert alike.float().mean() > (0.75 if size == "small" else 0.85)  # the rest lies on edges


@pytest.mark.parametrize("text", ["0.5,0.5", "cube at 0.5,0.5", "large cube at 0.5,0.5", "sphere at 0.5,0.5"])
def test_nothing_is_sketched_of_what_is_open(text: str) -> None:
    assert sketched(text).eq(0).all()


def test_nor_of_a_view_or_of_no_condition() -> None:
    view = Viewpoint(OBJECTS.token_shape)
    assert sketch(view(view.parse(camera=(0.3, 0.0, 0.0))).rows[:, 0], GRID).eq(0).all()
    net = small()
    torch.nn.init.normal_(net.sketch.weight)
    cube = OBJECTS(OBJECTS.read("large sphere at 0.5,0.5"))
    none = Condition(cube.rows, null=torch.tensor([True]))
    cells = Cells.all(GRID)
    assert net.enter_maps(net.maps(none, cells)).eq(0).all()
    assert not net.enter_maps(net.maps(cube, cells)).eq(0).all()


def small() -> SketchedUNet:
    torch.manual_seed(0)
    width = OBJECTS.token_shape[1]
    return SketchedUNet(sample_size=GRID, token_width=width, patch=1, channels=(8, 16), head_channels=8, unplaced=True)


def test_weights_of_a_network_without_sketches_predict_the_same() -> None:
    net = small()
    plain = TwoStageUNet(**{name: value for name, value in net.config.items() if name != "finishes"})
    plain.load_state_dict({name: weight for name, weight in net.state_dict().items() if name != "sketch.weight"})
    torch.nn.init.normal_(net.out[-1].weight)
    plain.out[-1].load_state_dict(net.out[-1].state_dict())
    cubes = OBJECTS(OBJECTS.read("large cube turned 20 at 0.3,0.5"))
    sample, time, owner = torch.randn(1, 3, *GRID), torch.tensor([500.0]), torch.tensor([0])
    ours, theirs = (one.head(one.features(sample, time), cubes, owner) for one in (net, plain))
    assert ours.equal(theirs)


def test_places_and_many_objects() -> None:
    texts = [
        "small cube turned 20 at 0.3,0.5",
        "large cylinder at 0.7,0.6",
        "cube at 0.2,0.2",
        "large sphere at 0.5,0.4",
    ]
    values = torch.cat([OBJECTS.read(text) for text in texts]).requires_grad_()
    together = sketch(OBJECTS(values).rows[:, 0], GRID)
    for row, text in zip(together, texts, strict=True):
        torch.testing.assert_close(F.pixel_shuffle(row, POINTS), sketched(text))
    # An object is moved by the gradient of its outline.
    right = together[:, : POINTS**2].view(4, POINTS, POINTS, *GRID)
    columns = torch.arange(GRID[1]).float()
    (right.sum((1, 2, 3)) @ columns).sum().backward()
    assert (values.grad[:, 0] > 0).tolist() == [True, True, False, True]
