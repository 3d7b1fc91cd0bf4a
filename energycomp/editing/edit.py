"""Editing: read a picture, change its composition, and repaint only what the change touches."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from energycomp.components.component import Composition, Conditional, combine
from energycomp.denoisers.denoiser import convert, signal_noise
from energycomp.denoisers.evaluator import count_rows, native_type, predict
from energycomp.errors import InputError
from energycomp.images import as_picture
from energycomp.inference.infer import Solution, Solver, infer
from energycomp.inference.noise import draw_bank
from energycomp.models.model import Model
from energycomp.sampling.sampler import sample
from energycomp.sampling.schedulers import make_scheduler

__all__ = ["Edit", "difference", "edit", "repaint"]

CHANGED = 0.1  # share of the greatest difference from which a place counts as changed
STAYS = 0.3  # the same for a component that stays, which keeps its places
DRAWS = 8  # of the noise bank that differences are averaged over
SEEN = (0.7, 0.95)  # share of the schedule at which an object of the picture is told from its absence
NEW = (0.8, 0.99)  # noisier: nothing in the picture speaks for a new object


@attrs.frozen(eq=False)
class Edit:
    """A changed picture.

    Args:
        image: of the size of the picture that was given; outside the mask it is that picture.
        sample: (1, C, H, W), the same at the model's size, encoded.
        mask: (1, 1, H, W), 1 where the picture was repainted.
        values: (K, *V) of the new composition.
        solution: what was read in the picture before.
        rows: network rows spent on the change, reading not counted.
    """

    image: Image.Image
    sample: Tensor
    mask: Tensor
    values: Tensor
    solution: Solution
    rows: int


def edit(
    image: Any,
    model: Model,
    *,
    move: Mapping[int, Any] | None = None,
    remove: Collection[int] = (),
    add: Sequence[Any] = (),
    solution: Solution | None = None,
    solver: Solver | None = None,
    count: int | tuple[int, int] | None = None,
    strength: float = 0.2,
    num_inference_steps: int | None = None,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Edit:
    """Reads a picture, changes its composition, and samples the new one where it differs from the old one.

    What is removed, and what is added, is sampled from noise. What is moved takes its look along: it is copied to its
    new place and sampled from there at the noise level `strength`. All else is held at the picture. Costs the rows of
    `infer`, 2 DRAWS (K + 1) rows a change, and K + 1 rows a step.

    Args:
        image: one picture, as `ImageProcessor` takes it.
        model: a model.
        move: `{k: value}`: component k of the answer, counted from 0, takes another value, as the model is called
            with it: `(0.4, 0.6)`, or a mapping of named arguments.
        remove: components that go.
        add: values of components that come.
        solution: an answer of `infer` for this picture; read with `solver` and `count` when left out.
        strength: how freely what is moved is painted anew, in (0, 1]; 1 keeps nothing of its look.
        num_inference_steps: of the model's default when left out.
        generator: makes the edit repeatable; a fresh one seeded with 0 when left out.
        progress: whether to show a bar.

    Raises:
        InputError: a component that the answer lacks, one that is both moved and removed, an illegal value, nothing
            to change.

    >>> from energycomp.testing import bumps_model, planted
    >>> model = bumps_model()
    >>> places = torch.tensor([[0.2, 0.2], [0.8, 0.8]])
    >>> answer = Solution(places, count=2, error=0.0, stderr=0.0, rows=0)
    >>> edited = edit(planted(model, places)[0], model, remove=[0], add=[(0.2, 0.8)], solution=answer, progress=False)
    >>> edited.values
    tensor([[0.8000, 0.8000],
            [0.2000, 0.8000]])
    """
    generator = generator or torch.Generator().manual_seed(0)
    if not 0.0 < strength <= 1.0:
        raise InputError(f"got strength={strength}; expected a number above 0, at most 1; 0.2 keeps the look")
    if num_inference_steps is not None and num_inference_steps < 1:
        raise InputError(f"got num_inference_steps={num_inference_steps}; expected at least 1, such as 50")
    if solution is None:
        solution = infer(image, model, solver=solver, count=count, generator=generator)
    plan = _plan(solution.conditions, model, move or {}, remove, add)
    composition = model.compose(plan.values)
    with count_rows() as spent, torch.no_grad():
        start, freedom = _prepare(model.encode(image), model, plan, strength, generator)
        edited = repaint(
            composition,
            start,
            freedom,
            num_inference_steps=num_inference_steps or model.defaults.num_inference_steps,
            scheduler=model.defaults.scheduler,
            generator=generator,
            progress=progress,
        )
        painted = model.decode(edited)[0]
    mask = (freedom > 0).to(edited.dtype)
    return Edit(_blend(image, painted, mask, model), edited, mask, plan.values, solution, spent.rows)


def repaint(
    composition: Composition,
    picture: Tensor,
    freedom: Tensor,
    *,
    num_inference_steps: int = 50,
    scheduler: Any = "DDIMScheduler",
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Tensor:
    """Samples a composition where a picture is free, and holds the picture elsewhere.

    A picture is a component too: all its mass is at x0, which is therefore its prediction. Here each place has the
    picture's prediction down to the noise level `freedom`, and the composition's from there on; with 0 and 1 it is
    inpainting. Costs nothing in steps where no place is free.

    Args:
        composition: of mass 1.
        picture: (1, C, H, W), encoded.
        freedom: (1, 1, H, W) in [0, 1], the share of the schedule in which each place is free.

    Returns:
        (1, C, H, W).

    >>> from energycomp.testing import Gaussian
    >>> left = (torch.arange(4) < 2).float().expand(1, 1, 4, 4)
    >>> dark = Composition.of(Gaussian(torch.full((1, 4, 4), -0.5), 1e-4))
    >>> painted = repaint(dark, torch.full((1, 1, 4, 4), 0.5), left, num_inference_steps=10, progress=False)
    >>> painted[0, 0, 0].round(decimals=2)
    tensor([-0.5000, -0.5000,  0.5000,  0.5000])
    """
    first = next(iter(composition.terms))
    alphas_cumprod, kind = first.alphas_cumprod, native_type(composition)

    def held(x_t: Tensor, timestep: Tensor, prediction_type: Any) -> Tensor:
        signal, noise = signal_noise(alphas_cumprod, timestep, x_t.dtype)
        free = freedom > (timestep / len(alphas_cumprod))[:, None, None, None]
        x0 = picture.expand_as(x_t)
        if bool(free.any()):
            x0 = torch.where(free, predict(composition, x_t, timestep, prediction_type="sample"), x0)
        return convert(x0, x_t, signal, noise, source="sample", target=prediction_type)

    chosen = make_scheduler(scheduler, alphas_cumprod, prediction_type=kind, clip=first.space == "pixels")
    return sample(
        held,
        picture.shape,
        chosen,
        num_inference_steps=num_inference_steps,
        generator=generator,
        progress=progress,
        device=picture.device,
    )


def difference(
    before: Composition,
    after: Composition,
    picture: Tensor,
    *,
    timesteps: tuple[float, float],
    draws: int = DRAWS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """How much two compositions differ about a noised picture at each place: root mean square in x0, (1, 1, H, W).

    Components that both share cancel before the network is called: one that is dropped costs 2 `draws` rows under the
    product rule, its own and those of u.
    """
    change = before - after
    alphas_cumprod = next(iter(change.terms)).alphas_cumprod
    shape = (picture.shape[1], picture.shape[2], picture.shape[3])
    bank = draw_bank(draws, shape, alphas_cumprod, timesteps=timesteps, generator=generator)
    signal, noise = signal_noise(alphas_cumprod, bank.timestep, picture.dtype)
    eps = predict(change, bank.noised(picture, alphas_cumprod), bank.timestep)
    return (eps * noise / signal).square().mean((0, 1), keepdim=True).sqrt()


@attrs.frozen(eq=False)
class _Plan:
    """What becomes of the components: `old` (K, *V), those that go or move, where they move to, those that come."""

    old: Tensor
    gone: tuple[int, ...]
    moved: Mapping[int, Tensor]
    new: tuple[Tensor, ...]

    @property
    def kept(self) -> list[int]:
        """Those that stay as they are."""
        return [k for k in range(len(self.old)) if k not in self.gone and k not in self.moved]

    @property
    def values(self) -> Tensor:
        """The new composition, in the old order, what comes last."""
        stays = [self.moved.get(k, value) for k, value in enumerate(self.old) if k not in self.gone]
        return torch.stack([*stays, *self.new]) if stays or self.new else self.old[:0]


def _plan(old: Tensor, model: Model, move: Mapping[int, Any], remove: Collection[int], add: Sequence[Any]) -> _Plan:
    if not (move or remove or add):
        raise InputError("got nothing to change; expected a component to move, remove or add")
    for k in (*move, *remove):
        if k not in range(len(old)):
            known = "; ".join(f"{i}: {model.conditioner.describe(value)}" for i, value in enumerate(old))
            raise InputError(
                f"got component {k} of {len(old)}; expected one of the answer's ({known or 'it has none'})"
            )
    if both := set(move) & set(remove):
        raise InputError(f"got component {min(both)} to move and to remove; expected one of both")
    if len(set(remove)) < len(remove):
        raise InputError(f"got components {sorted(remove)} to remove, one of them twice; expected each once")

    def parsed(value: Any) -> Tensor:
        if isinstance(value, str) or not isinstance(value, Mapping | Sequence):
            raise InputError(f"got the value {value!r}; expected what the model is called with, such as (0.4, 0.6)")
        given = model.conditioner.parse(**value) if isinstance(value, Mapping) else model.conditioner.parse(*value)
        return given[0].to(old)

    plan = _Plan(old, tuple(remove), {k: parsed(v) for k, v in move.items()}, tuple(parsed(v) for v in add))
    if model.defaults.distinct and len(torch.unique(plan.values, dim=0)) < len(plan.values):
        raise InputError(f"got equal values in {plan.values.tolist()}; expected components that differ; change one")
    return plan


def _prepare(
    picture: Tensor, model: Model, plan: _Plan, strength: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The picture with what moves copied to its new place, and how free each place is, (1, 1, H, W)."""
    leaves = [model.leaf(value[None]) for value in plan.old]
    T = len(model.denoiser.alphas_cumprod)

    def field(more: list[Conditional], fewer: list[Conditional], share: tuple[float, float]) -> Tensor:
        """How much one component more changes, in [0, 1]."""
        before, after = _joined(more, model), _joined(fewer, model)
        timesteps = (share[0] * T, share[1] * T)
        found = difference(before, after, picture, timesteps=timesteps, generator=generator)
        return found / found.max().clamp(min=1e-12)

    def free(change: Tensor, grow: int) -> Tensor:
        """Where the change is seen, grown by `grow` places of 64, and no component that stays is seen better."""
        reach = max(1, round(grow * picture.shape[2] / 64))
        seen = F.max_pool2d((change > CHANGED).to(picture.dtype), 2 * reach + 1, 1, reach)
        return seen * (stays <= change.clamp(min=STAYS))

    fields = [field(leaves, leaves[:k] + leaves[k + 1 :], SEEN) for k in range(len(leaves))]
    none = torch.zeros_like(picture[:, :1])
    stays = torch.stack([none, *(fields[k] for k in plan.kept)]).amax(0)
    arrivals = [field([*leaves, model.leaf(v[None])], leaves, NEW) for v in (*plan.moved.values(), *plan.new)]
    start, freedom = picture, none
    left = {k: free(fields[k], 1) for k in (*plan.gone, *plan.moved)}
    for mask in left.values():
        freedom = torch.maximum(freedom, mask)
    for (k, value), arrival in zip(plan.moved.items(), arrivals, strict=False):
        step = _step(plan.old[k], value, model)
        copied = free(arrival, 2) if step is None else _shifted(left[k], step)
        if step is not None:
            start = torch.where(copied > 0, _shifted(picture, step), start)
        freedom = torch.where(copied > 0, strength, freedom)
    for arrival in arrivals[len(plan.moved) :]:
        freedom = torch.maximum(freedom, free(arrival, 2))
    return start, freedom


def _joined(leaves: list[Conditional], model: Model) -> Composition:
    return combine(leaves, model.denoiser.rule) if leaves else Composition.of(model.unconditional)


def _step(old: Tensor, new: Tensor, model: Model) -> tuple[float, float] | None:
    """From one place to another in widths and heights of the picture; None where values are no places."""
    ends = [model.conditioner.describe(value) for value in (old, new)]
    if not all(isinstance(end, dict) and {"x", "y"} <= end.keys() for end in ends):
        return None
    return ends[1]["x"] - ends[0]["x"], ends[1]["y"] - ends[0]["y"]


def _shifted(picture: Tensor, step: tuple[float, float]) -> Tensor:
    """A picture moved by whole places, zeros behind it."""
    from torchvision.transforms.functional import affine

    height, width = picture.shape[2:]
    translate = [round(step[0] * width), round(step[1] * height)]
    moved: Tensor = affine(picture, angle=0.0, translate=translate, scale=1.0, shear=[0.0, 0.0])
    return moved


def _blend(image: Any, painted: Image.Image, mask: Tensor, model: Model) -> Image.Image:
    """The given picture with the repainted places of the model's, at the given picture's size."""
    picture = as_picture(image)
    left, top, right, bottom = model.processor.box(picture)
    size = (right - left, bottom - top)
    cover = Image.fromarray((mask[0, 0] * 255).byte().cpu().numpy()).resize(size, Image.Resampling.BILINEAR)
    picture.paste(painted.resize(size, Image.Resampling.BICUBIC), (left, top), cover)
    return picture
