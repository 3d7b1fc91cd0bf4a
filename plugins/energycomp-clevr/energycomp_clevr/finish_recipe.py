"""How `Finish` is trained: rough pictures that `clevr` draws from noised latents of renders, beside these renders.

1. Rough pictures  Latents of a render are noised to a random timestep, and drawn again under their true description,
                   turns and view. So they show the same scene, with the edges of a sample.
2. Bent pictures   They are bent by some pixels, since samples from noise are rougher than those from latents.
3. Maps            The sketches of the objects, under the true camera. In some scenes an object is left out, or one is
                   drawn that the picture does not show: pictures decide what is there, sketches only where it ends.
4. Loss            Absolute errors of crops and of their gradients, objects counting five times as much; in the last
                   part of the run, a critic of patches, too, which is what brings gloss back.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from energycomp import load
from energycomp.components import Composition, combine
from energycomp.denoisers import Conditional
from energycomp.errors import InputError
from energycomp.fields import is_number
from energycomp.files import fingerprint
from energycomp.images import from_bytes, to_bytes
from energycomp.models import Model
from energycomp.progress import progress
from energycomp.sampling import AttributeGuidance, Target, make_scheduler
from energycomp_clevr.codes import ATTRIBUTES, CUBE, QUARTER, SHAPE, TURN
from energycomp_clevr.finish import FOLD, VIEW, WORDS, drawing
from energycomp_clevr.latents_recipe import turned_values_of, view_of
from energycomp_clevr.network import SketchedUNet
from energycomp_clevr.objects import FLOOR
from energycomp_clevr.sketch import POINTS, SKETCHED
from energycomp_clevr.viewpoint import Viewpoint
from energycomp_datasets.clevr.layout import read
from energycomp_datasets.clevr.records import SceneRecord
from energycomp_datasets.pictures import make_once
from energycomp_lab.training import FitConfig, Recipe, Step

STEPS = 24  # of the scheduler, from noise
NOISED = (350.0, 960.0)  # timesteps from which pictures are drawn again
CLEAR = 0.12  # share of pictures that the codec alone gives back
CHANGED = 0.3  # share of scenes whose maps leave an object out, or have one more
LEFT_OUT = 0.15  # of their objects
AWAY = 0.2  # least distance of an object that is not there from those that are
TOGETHER = 25  # pictures in a file of the cache
CROP = 96  # pixels
OPEN = 0.15  # how often colours, or materials, are not said
VIEWLESS = 0.2  # how often the view is not said; it never is in a mirrored picture, whose light is on the wrong side
OBJECTS = 4.0  # weight of objects, beside 1 of the ground
BENT, WAVES = 2.5, 7  # pixels, of a standard deviation, and points along a side of the grid of displacements
WEIGHT = 0.05  # of the critic
COLORS = slice(SKETCHED + 1, SKETCHED + 1 + len(ATTRIBUTES["color"]))  # maps of words, behind that of the size
MATERIALS = slice(COLORS.stop, COLORS.stop + 1)


class Critic(nn.Module):
    """Tells patches of renders from finished ones: pictures, normals and words (B, C, H, W) to a number a 4x4 pixels.

    Spectral norms keep it from changing faster than what it judges (Miyato et al., 2018).
    """

    def __init__(self) -> None:
        super().__init__()
        act = nn.LeakyReLU(0.2)
        first = nn.Conv2d(3 + SKETCHED // POINTS**2 + WORDS - 1, 48, 4, 2, 1)
        last = [nn.Conv2d(48, 96, 4, 2, 1), nn.Conv2d(96, 128, 3, padding=1), nn.Conv2d(128, 1, 3, padding=1)]
        layers = [part for layer in last for part in (act, spectral_norm(layer))]
        self.net = nn.Sequential(spectral_norm(first), *layers)

    def forward(self, seen: Tensor) -> Tensor:
        out: Tensor = self.net(seen)
        return out


@attrs.frozen(eq=False)
class Finishing:
    """A model whose `Finish` is trained, and the critic of its pictures. `energycomp train` saves the model."""

    model: Model
    critic: Critic

    @property
    def trained(self) -> nn.ModuleDict:
        """What finishes pictures, and the critic."""
        return nn.ModuleDict({"edges": _network(self.model).begin(), "critic": self.critic})

    def to(self, device: Any) -> Self:
        """Itself, on a device."""
        return attrs.evolve(self, model=self.model.to(device), critic=self.critic.to(device))

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Writes the folder of the model."""
        self.model.save_pretrained(folder, dtype=dtype)


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
    if not is_number(critic) or not 0 <= critic <= 1:
        raise InputError(f"got critic={critic!r}; expected a share of the run, from 0 to 1")
    model = load("clevr") if init is None else init
    network = _network(model)
    records = read(data)
    if any(record.turns is None or record.camera is None for record in records):
        raise InputError(f"got {data} without turns or cameras; expected renders of `energycomp data clevr`")
    network.begin().requires_grad_(requires_grad=True)
    pairs = pairs_of(records, model, cache)
    made = Finishing(model, Critic())
    config = FitConfig(
        steps=6_000, batch_size=12, learning_rate=1e-3, max_grad_norm=100.0, ema_decay=0.999, mixed_precision="bf16",
        warmup_fraction=0.02,
    )  # fmt: skip
    judged = partial(loss, critic=critic)
    return Recipe(model=made, module=made.trained, loss=judged, data=pairs, config=config, can_sample=False)


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
    # The scene as it was described, guided as samples are
    values = turned_values_of(record)
    view = Conditional(denoiser, Viewpoint(denoiser.token_shape)(view_of(record)[None]), "view")
    scene = combine([model.compose(values), view], "product") if len(values) else Composition.of(view)
    target = Target(AttributeGuidance(model.defaults.attribute_guidance).weighted(scene))
    # Noise the latents, and go on from there
    scheduler = make_scheduler(model.defaults.scheduler, denoiser.alphas_cumprod, prediction_type="sample")
    scheduler.set_timesteps(STEPS)
    start = NOISED[0] + (NOISED[1] - NOISED[0]) * float(torch.rand((), generator=generator))
    timesteps = [timestep for timestep in scheduler.timesteps if timestep <= start]
    alpha = denoiser.alphas_cumprod[int(timesteps[0])]
    x = alpha.sqrt() * latents + (1 - alpha).sqrt() * torch.randn(latents.shape, generator=generator)
    for timestep in timesteps:
        predicted = target.compose(x, timestep.float().expand(1), prediction_type="sample")
        x = scheduler.step(predicted, timestep, x, generator=generator, return_dict=False)[0]
    return render, codec.decode(x)


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
    """The error of a batch, and in the last part of the run that of the critic."""
    made: Any = module
    render, picture, maps, where = _crops(batch, step.generator)
    finished = made["edges"](picture, maps).float()
    difference = finished - render
    weight = 1 + OBJECTS * F.max_pool2d(where, 5, 1, 2)
    error = (weight * difference.abs()).mean()
    error = error + 0.5 * (weight[..., 1:, :] * difference.diff(dim=2).abs()).mean()
    error = error + 0.5 * (weight[..., 1:] * difference.diff(dim=3).abs()).mean()
    if step.fraction < critic - 0.03:
        return error
    # The critic sees the normals and the words of what should be there, and counts where objects are
    seen = F.avg_pool2d(F.pixel_shuffle(maps[:, :SKETCHED], POINTS), FOLD)
    said = F.interpolate(maps[:, SKETCHED + 1 : -VIEW], scale_factor=FOLD)

    def judged(pictures: Tensor, judge: Any = made["critic"]) -> Tensor:
        answer = judge(torch.cat([pictures, seen, said], dim=1)).float()
        here = F.max_pool2d(F.adaptive_avg_pool2d(where, answer.shape[2:]), 3, 1, 1) > 0.05
        return answer[here] if bool(here.any()) else answer.flatten()

    error = error + F.relu(1 - judged(render)).mean() + F.relu(1 + judged(finished.detach())).mean()
    if step.fraction >= critic:
        fixed = {name: parameter.detach() for name, parameter in made["critic"].named_parameters()}
        frozen = partial(torch.func.functional_call, made["critic"], fixed)
        error = error - WEIGHT * judged(finished, lambda seen: frozen((seen,))).mean()
    return error


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
    return render, _bend(picture, generator), maps, where


def _bend(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, H, W) whose points are displaced smoothly, each picture by more or less."""
    count, side = len(pictures), pictures.shape[-1]
    most = torch.rand(count, 1, 1, 1, generator=generator).square() * BENT * 2 / side
    moved = torch.randn(count, 2, WAVES, WAVES, generator=generator) * most
    grid = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), list(pictures.shape), align_corners=False)
    grid = grid + F.interpolate(moved, pictures.shape[-2:], mode="bicubic").movedim(1, -1)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def _mirror(parts: Sequence[Tensor]) -> list[Tensor]:
    """Crops and maps, mirrored: normals that look right look left."""
    render, picture, maps, where = (part.flip(-1) for part in parts)
    # The columns of points inside a cell change places, too
    sketched = F.pixel_shuffle(parts[2][None, :SKETCHED], POINTS).flip(-1)
    sketched = sketched * torch.tensor([1.0, -1.0, 1.0, 1.0])[:, None, None]
    maps[:SKETCHED] = F.pixel_unshuffle(sketched, POINTS)[0]
    return [render, picture, maps, where]
