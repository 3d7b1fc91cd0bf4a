"""How `Finish` is trained for `clevr`: rough pictures, drawn from noised latents of renders, beside these renders.

See `energycomp_lab.training.finish`. The maps are the sketches of the objects, under the true camera, turns and view.
In some scenes an object is left out, or one is drawn that the picture does not show: pictures decide what is there,
sketches only where it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp import load
from energycomp.components import Composition, combine
from energycomp.denoisers import Conditional
from energycomp.errors import InputError
from energycomp.files import fingerprint
from energycomp.images import from_bytes, to_bytes
from energycomp.models import Model
from energycomp.progress import progress
from energycomp.sampling import FOLD
from energycomp_clevr.codes import ATTRIBUTES, CUBE, QUARTER, SHAPE, TURN
from energycomp_clevr.finish import VIEW, WORDS, drawing
from energycomp_clevr.latents_recipe import turned_values_of, view_of
from energycomp_clevr.network import SketchedUNet
from energycomp_clevr.objects import FLOOR
from energycomp_clevr.sketch import POINTS, SKETCHED
from energycomp_clevr.viewpoint import Viewpoint
from energycomp_datasets.clevr.layout import read
from energycomp_datasets.clevr.records import SceneRecord
from energycomp_datasets.pictures import make_once
from energycomp_lab.training import (
    Critic,
    Finishing,
    Pairs,
    Recipe,
    Step,
    bend,
    check_critic,
    draw_again,
    finish_config,
    finish_loss,
)

NOISED = (350.0, 960.0)  # timesteps from which pictures are drawn again
CLEAR = 0.12  # share of pictures that the codec alone gives back
CHANGED = 0.3  # share of scenes whose maps leave an object out, or have one more
LEFT_OUT = 0.15  # of their objects
AWAY = 0.2  # least distance of an object that is not there from those that are
TOGETHER = 25  # pictures in a file of the cache
CROP = 96  # pixels
OPEN = 0.15  # how often colours, or materials, are not said
VIEWLESS = 0.2  # how often the view is not said; it never is in a mirrored picture, whose light is on the wrong side
COLORS = slice(SKETCHED + 1, SKETCHED + 1 + len(ATTRIBUTES["color"]))  # maps of words, behind that of the size
MATERIALS = slice(COLORS.stop, COLORS.stop + 1)


def finish(*, data: Path | None, init: Model | None, preset: str, cache: Path, critic: float = 0.4) -> Recipe:
    """The recipe of what draws straight edges into the pictures of `clevr`.

    Args:
        data: renders in CLEVR's layout, with turns and cameras, of which rough pictures are drawn once (1 s each).
        critic: share of the run after which the critic counts.

    Raises:
        InputError: no renders, renders without turns and cameras, another model, or a share that is none.
    """
    if preset != "default":
        raise InputError(f"got preset {preset!r}; expected 'default'")
    if data is None:
        raise InputError(
            "got no --data; expected a folder of renders with their turns and cameras, as `energycomp data clevr "
            "--renderer blender` writes it"
        )
    check_critic(critic)
    model = load("clevr") if init is None else init
    network = _network(model)
    records = read(data)
    if any(record.turns is None or record.camera is None for record in records):
        raise InputError(f"got {data} without turns or cameras; expected renders of `energycomp data clevr`")
    made = Finishing(model, network.begin(), Critic(SKETCHED // POINTS**2 + WORDS - 1))
    pairs = pairs_of(records, model, cache)
    judged = partial(loss, critic=critic)
    return Recipe(model=made, module=made.trained, loss=judged, data=pairs, config=finish_config(), can_sample=False)


def _network(model: Model) -> SketchedUNet:
    network = model.denoiser.network
    if not isinstance(network, SketchedUNet):
        raise InputError(
            f"got the model {model.name}, whose network has no sketch; expected clevr, or one trained from it"
        )
    return network


def pairs_of(records: Sequence[SceneRecord], model: Model, cache: Path) -> list[dict[str, Tensor]]:
    """Each scene as its render and a rough picture (3, H, W), uint8, its maps (83, H/2, W/2), and where objects are."""
    codec: Any = model.denoiser.codec
    names = "".join(f"{record.path} {record.path.stat().st_size}" for record in records)
    weights = model.denoiser.network.state_dict()
    drawer = fingerprint({name: weights[name] for name in weights if not name.startswith("edges.")})
    folder = cache / f"clevr-rough-{sha256(f'{codec.identity}{drawer}{names}'.encode()).hexdigest()[:16]}"

    def draw(first: int) -> dict[str, Tensor]:
        both = [rough(record, model, 1000 + first + k) for k, record in enumerate(records[first : first + TOGETHER])]
        return {name: torch.cat([to_bytes(one[k]) for one in both]) for k, name in enumerate(("render", "rough"))}

    # What is known of each scene
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for first in progress(range(0, len(records), TOGETHER), "drawing rough pictures"):
        kept = make_once(folder / f"{first // TOGETHER:03d}.safetensors", partial(draw, first))
        for record, render, drawn in zip(records[first : first + TOGETHER], kept["render"], kept["rough"], strict=True):
            values, view, size = turned_values_of(record), view_of(record), render.shape[1:]
            maps = drawing(model.conditioner(values).rows[:, 0], size, view)
            where = F.avg_pool2d(F.pixel_shuffle(maps[None, : POINTS**2], POINTS), FOLD)[0]
            if torch.rand((), generator=generator) < CHANGED:
                maps = drawing(model.conditioner(_change_objects(values, generator)).rows[:, 0], size, view)
            pairs.append({"render": render, "rough": drawn, "maps": maps.half(), "where": where.half()})
    return pairs


@torch.no_grad()
def rough(record: SceneRecord, model: Model, seed: int) -> tuple[Tensor, Tensor]:
    """A render, and a picture of the same scene that the model draws from its noised latents, both (1, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    denoiser = model.denoiser
    codec: Any = denoiser.codec
    render = model.processor(record.path)
    latents = codec.encode(render)
    if torch.rand((), generator=generator) < CLEAR:
        return render, codec.decode(latents)
    values = turned_values_of(record)
    view = Conditional(denoiser, Viewpoint(denoiser.token_shape)(view_of(record)[None]), "view")
    scene = combine([model.compose(values), view], "product") if len(values) else Composition.of(view)
    start = NOISED[0] + (NOISED[1] - NOISED[0]) * float(torch.rand((), generator=generator))
    return render, codec.decode(draw_again(model, scene, latents, start, generator)[0])


def _change_objects(values: Tensor, generator: torch.Generator) -> Tensor:
    """Objects (K, 7) without some of them, or with one where there is none."""
    kept = values[torch.rand(len(values), generator=generator) > LEFT_OUT]
    places = FLOOR[0] + (FLOOR[1] - FLOOR[0]) * torch.rand(20, 2, generator=generator)
    away = torch.cdist(places, values[:, :2]).amin(1) if len(values) else torch.ones(len(places))
    if away.max() < AWAY or torch.rand((), generator=generator) < 0.5:
        return kept
    codes = [1 + int(torch.randint(len(words), (), generator=generator)) for words in ATTRIBUTES.values()]
    turn = 1 + int(torch.randint(QUARTER, (), generator=generator))
    new = torch.tensor([*places[away.argmax()].tolist(), *codes, turn])
    new[TURN] *= new[SHAPE] == CUBE
    return torch.cat([kept, new[None]])


def loss(module: nn.Module, batch: dict[str, Tensor], step: Step, *, critic: float) -> Tensor:
    """As `finish_loss`; the critic sees the normals and the words of what should be there."""
    render, picture, maps, where = _crops(batch, step.generator)
    normals = F.avg_pool2d(F.pixel_shuffle(maps[:, :SKETCHED], POINTS), FOLD)
    said = F.interpolate(maps[:, SKETCHED + 1 : -VIEW], scale_factor=FOLD)
    alike = torch.ones(len(render), device=render.device)
    pairs = Pairs(render, picture, maps, torch.cat([normals, said], dim=1), alike, where)
    return finish_loss(module, pairs, step, critic)


def _crops(batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Crops of renders, of rough pictures, of maps, and of where objects are; some mirrored, all lighter or darker."""
    rows, columns = (side - CROP for side in batch["render"].shape[2:])
    made = []
    for render, picture, maps, where in zip(
        *(batch[name] for name in ("render", "rough", "maps", "where")), strict=True
    ):
        chance = torch.rand(4, generator=generator)
        down, right = (4 * int(torch.randint(room // 4 + 1, (), generator=generator)) for room in (rows, columns))
        box = (..., slice(down, down + CROP), slice(right, right + CROP))
        cells = (..., slice(down // FOLD, (down + CROP) // FOLD), slice(right // FOLD, (right + CROP) // FOLD))
        parts = [from_bytes(render[box]), from_bytes(picture[box]), maps[cells].float(), where[box].float()]
        if chance[0] < 0.5:
            parts = _mirror(parts)
        if chance[0] < 0.5 or chance[1] < VIEWLESS:
            parts[2][-VIEW:] = 0
        if chance[2] < OPEN:  # a size is always said where an outline is
            parts[2][COLORS if chance[2] < OPEN / 2 else MATERIALS] = 0
        exposure = 0.85 + 0.3 * chance[3]
        parts[:2] = [(part + 1) * exposure - 1 for part in parts[:2]]
        made.append(parts)
    render, picture, maps, where = (torch.stack(parts) for parts in zip(*made, strict=True))
    return render, bend(picture, generator), maps, where


def _mirror(parts: Sequence[Tensor]) -> list[Tensor]:
    """Crops and maps, mirrored: normals that look right look left."""
    render, picture, maps, where = (part.flip(-1) for part in parts)
    # The columns of points inside a cell change places, too
    sketched = F.pixel_shuffle(parts[2][None, :SKETCHED], POINTS).flip(-1)
    sketched = sketched * torch.tensor([1.0, -1.0, 1.0, 1.0])[:, None, None]
    maps[:SKETCHED] = F.pixel_unshuffle(sketched, POINTS)[0]
    return [render, picture, maps, where]
