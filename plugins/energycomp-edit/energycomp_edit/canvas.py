"""What an edit does to the pixels: words are drawn over objects, moved ones are cut out, the rest is repainted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property, partial
from typing import Any, TypeAlias

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from energycomp.components import Composition, ability, combine, mixed_of, predict
from energycomp.denoisers import Codec, Conditional
from energycomp.images import as_picture, from_bytes, to_bytes
from energycomp.inference import make_problem
from energycomp.models import Model
from energycomp.sampling import AttributeGuidance, finisher
from energycomp.seeds import draw_noise
from energycomp_edit.blending import blended, cast, mattes, placed
from energycomp_edit.painting import DRAWS, differences, redraw, repaint
from energycomp_edit.plan import Plan, fill_open

Painter: TypeAlias = Callable[[Collection[int]], tuple[Image.Image, Tensor, Tensor]]
"""Of the components that are sampled anew: the image, its sample (1, C, h, w), and the mask of what changed."""

CHANGED = 0.1  # share of the greatest difference above which a pixel counts as changed
STAYS = 0.3  # the same for a component that stays, which keeps its surroundings
SEEN = (0.7, 0.95)  # shares of the schedule at which an object of the image differs most from its absence
NEW = (0.8, 0.99)  # noisier, since the image holds no evidence of a new object
BLANK = 0.98  # share of the schedule at which the prediction of an image is one without objects
EXTENT = 0.3  # share of the greatest difference which an object fills
SAME = 0.8  # IoU of two outlines that are one
GROWN = 3 / 64  # of the height, by which a region is dilated


@attrs.frozen(eq=False)
class Repainting:
    """An image that is edited. Pictures are (1, 3, H, W) in [-1, 1]: the photo at its own size, others at the model's.

    Args:
        photo: what the model sees of the image.
        picture: the image as the model's processor gives it, (1, C, h, w).
        steps: of the scheduler.
    """

    photo: Tensor
    picture: Tensor
    model: Model
    plan: Plan
    steps: int
    generator: torch.Generator
    progress: bool

    @cached_property
    def given(self) -> Tensor:
        """The picture, encoded."""
        return self.model.encode(self.picture)

    @cached_property
    def leaves(self) -> list[Conditional]:
        """The components of the image."""
        return [self.model.leaf(value[None]) for value in self.plan.old]

    @cached_property
    def fields(self) -> Tensor:
        """The difference that each of them makes, divided by its maximum, (K, 1, h, w)."""
        every = self.leaves
        return self.differing([(every, every[:k] + every[k + 1 :]) for k in range(len(every))], SEEN)

    @cached_property
    def outlines(self) -> Tensor:
        """How much of each pixel of the photo is a component's, (K, 1, H, W)."""
        return mattes(self.fields, self.photo)

    def edited(self, resampled: Collection[int] = ()) -> tuple[Tensor, Tensor, Tensor]:
        """The photo that comes out, its sample (1, C, h, w), and the mask of what changed (1, 1, h, w).

        Args:
            resampled: changed components that are sampled anew, where their pixels might be kept.
        """
        model = self.model
        old = self.plan.old
        changed = self.plan.changed
        drawn, unread = self.redrawn()
        steps = {k: _step(old[k], value, model) for k, value in changed.items()}
        anew = [k for k, step in steps.items() if k in unread or k in resampled or step is None]
        taken = {k: step for k, step in steps.items() if k not in anew and step is not None and any(step)}
        if len(taken) + len(self.plan.gone) == len(old) and not self.plan.new and model.denoiser.rule != "product":
            # Nothing would be left to compose
            anew = [*anew, *taken]
            taken = {}
        over = [k for k in steps if k not in anew and k not in taken]
        kept = [k for k in range(len(old)) if k not in (*self.plan.gone, *anew, *taken)]
        arriving = fill_open(model, [*(changed[k] for k in anew), *self.plan.new], self.generator)

        shown = self.photo + _most(self.outlines[over]) * (drawn - self.photo)
        held = _most(self.outlines[kept])
        region = self.region([*self.plan.gone, *anew, *taken], arriving, kept)
        values = torch.stack([*(changed.get(k, old[k]) for k in kept), *arriving]) if kept or arriving else old[:0]
        result, sample = self.repainted(shown, region, held, values)
        base = result
        for k, step in taken.items():
            place = model.conditioner.describe(old[k])
            there = partial(placed, step=step, centre=(place["x"], place["y"]), scale=self.scale(k))
            around = F.interpolate(self.region([k], [], kept), held.shape[-2:]) * (1 - _most(self.outlines))
            shade = cast(shown, base) * around
            result = (result + 1) * (1 - there(shade)) - 1
            result = result + there(self.outlines[k, None]) * (there(drawn) - result)
        if taken:
            sample = model.encode(_with(self.picture, result - self.photo))
        differs = (to_bytes(result) != to_bytes(self.photo)).any(1, keepdim=True)
        return result, sample, F.adaptive_max_pool2d(differs.to(region), region.shape[-2:])

    def redrawn(self) -> tuple[Tensor, list[int]]:
        """The photo with new words over objects that stand where they were, and those that are to be sampled anew.

        These are the ones whose words are not read then, and the ones with another shape or size, say: with a word of
        an attribute that is not among the conditioner's `surfaces`, where it has these.
        """
        model = self.model
        plan = self.plan
        mixed = mixed_of(self.model.conditioner)
        if mixed is None:
            return self.photo, []
        values = plan.old.clone()
        words = list[int]()
        anew = list[int]()
        surfaces = ability(mixed, "surfaces") or tuple(mixed.attributes)
        inside = torch.tensor([*(name in surfaces for name in mixed.attributes), *[False] * len(mixed.support.unread)])
        for k, changed in plan.changed.items():
            (numbers, before) = mixed.support.split(plan.old[k])
            (_, wanted) = mixed.support.split(changed)
            if (differs := before != wanted)[~inside].any():
                anew.append(k)
            elif differs.any():
                values[k] = mixed.support.joined(numbers, wanted)
                words.append(k)
        if not words:
            return self.photo, anew
        new = AttributeGuidance(model.defaults.attribute_guidance).weighted(model.compose(values))
        old = model.compose(plan.old)
        drawn = redraw(
            old,
            new,
            self.given,
            num_inference_steps=self.steps,
            generator=self.generator,
            progress=self.progress,
        )
        change = self.decoded(drawn) - self.decoded(self.given)
        change = F.interpolate(change, self.photo.shape[-2:], mode="bicubic", antialias=True)
        found = (self.photo + _most(self.outlines[words]) * change).clamp(-1, 1)
        after = attrs.evolve(
            self, photo=found, picture=_with(self.picture, found - self.photo), plan=attrs.evolve(plan, old=values)
        )
        return found, [*anew, *(k for k in words if not after.shows(k, self))]

    def shows(self, k: int, before: Repainting) -> bool:
        """Whether component k is in this image, rather than that of an image before, and has its outline."""
        other = self.plan.old.clone()
        problem = make_problem(self.given, self.model)
        other[k] = before.plan.old[k]
        both = torch.stack([self.plan.old, other])
        new, old = problem.errors(both, problem.draw(DRAWS, self.generator)).mean(1).tolist()
        # Its outline beside those of the other components, which are where they were
        every = self.leaves
        fields = before.fields.clone()
        fields[k] = self.differing([(every, every[:k] + every[k + 1 :])], SEEN)[0]
        outlines = torch.stack([mattes(fields, self.photo)[k], before.outlines[k]]) > 0.5
        return new < old and int(outlines.all(0).sum()) > SAME * int(outlines.any(0).sum())

    def region(self, leaving: list[int], arriving: list[Tensor], kept: list[int]) -> Tensor:
        """Where the picture is repainted, (1, 1, h, w): what leaves or arrives, with its shadow, and not what stays."""
        size = self.model.processor.size
        stays = _most(self.fields[kept])
        found = torch.zeros_like(stays)
        reach = max(1, round(GROWN * self.picture.shape[2]))
        seen = [(self.fields[k, None], F.adaptive_max_pool2d(self.outlines[k, None], size) > 0) for k in leaving]
        every = self.leaves
        new = self.differing([(every, [*every, self.model.leaf(value[None])]) for value in arriving], NEW)
        seen += [(field, torch.zeros_like(field, dtype=torch.bool)) for field in new[:, None]]
        for field, own in seen:
            found = torch.maximum(found, (own | (field > CHANGED) & (stays <= field.clamp(min=STAYS))).to(found))
        found = F.max_pool2d(found, 2 * reach + 1, 1, reach)
        return found * (F.adaptive_avg_pool2d(_most(self.outlines[kept]), size) < 0.5)

    def repainted(self, shown: Tensor, region: Tensor, held: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """A photo whose region is a sample of the composition of some values, and its sample."""
        start = _with(self.picture, shown - self.photo)
        old = self.model.encode(start)
        codec = self.model.denoiser.codec
        if not bool(region.any()):
            return shown, old
        scene = self.model.compose(values)
        new = repaint(
            AttributeGuidance(self.model.defaults.attribute_guidance).weighted(scene),
            old,
            F.adaptive_max_pool2d(region, old.shape[-2:]),
            restore=None if codec is None else partial(_restored, codec, start, region),
            num_inference_steps=self.steps,
            scheduler=self.model.defaults.scheduler,
            generator=self.generator,
            progress=self.progress,
        )
        decode = finisher(scene, None if codec is None else codec.decode)
        return blended(shown, self.decoded(old), new if decode is None else decode(new), region, held), new

    def scale(self, k: int) -> float:
        """By how much a component is larger where it goes: by how much the model expects one of its looks to be.

        The image says nothing here: it shows the component at its old place, which would look larger or smaller for
        it. At four places, the sizes of `clevr` are those of perspective up to 6 %; measured on the image, up to 40 %.
        """
        # A blank image, as the model predicts it from noise; without u, one of the other components
        denoiser = self.model.denoiser
        others = [] if denoiser.rule == "product" else self.leaves[:k] + self.leaves[k + 1 :]
        noise = draw_noise((DRAWS, *denoiser.sample_shape), generator=self.generator, device=denoiser.device)
        timestep = torch.full((DRAWS,), BLANK * len(denoiser.alphas_cumprod), device=denoiser.device)
        blank = predict(self.composed(others), noise, timestep, prediction_type="sample").mean(0, keepdim=True)
        # How much room it takes at both places
        both = (self.plan.old[k], self.plan.changed[k])
        pairs = [(others, [*others, self.model.leaf(value[None])]) for value in both]
        here, there = self.differing(pairs, NEW, blank)
        return float(((there > EXTENT).sum() / (here > EXTENT).sum().clamp(min=1)).sqrt().clamp(0.25, 4.0))

    def differing(
        self,
        pairs: Sequence[tuple[list[Conditional], list[Conditional]]],
        share: tuple[float, float],
        picture: Tensor | None = None,
    ) -> Tensor:
        """The difference that each of P changes of the components makes, divided by its maximum, (P, 1, h, w).

        Args:
            share: least and greatest share of the schedule of the draws.
            picture: encoded; the given one when left out.
        """
        if not pairs:
            return self.picture[:0, :1]
        denoiser = self.model.denoiser
        T = len(denoiser.alphas_cumprod)
        found = differences(
            [(self.composed(before), self.composed(after)) for before, after in pairs],
            self.given if picture is None else picture,
            timesteps=(share[0] * T, share[1] * T),
            decode=None if denoiser.codec is None else denoiser.codec.decode,
            generator=self.generator,
        )
        return found / found.amax((1, 2, 3), keepdim=True).clamp(min=1e-12)

    def composed(self, leaves: list[Conditional]) -> Composition:
        """The composition of some components, and u of none."""
        return combine(leaves, self.model.denoiser.rule) if leaves else Composition.of(self.model.unconditional)

    def decoded(self, sample: Tensor) -> Tensor:
        codec = self.model.denoiser.codec
        return sample if codec is None else codec.decode(sample)


def make_painter(
    image: Any, model: Model, plan: Plan, *, steps: int, generator: torch.Generator, progress: bool
) -> Painter:
    """A function that samples the changed image, from new noise at each call; outlines are found once for all calls.

    Args:
        image: as the model's processor takes it.
        steps: of the scheduler.
    """
    before = as_picture(image)
    picture = model.processor(image).to(model.denoiser.device)
    frame = model.processor.frame(before)
    photo = from_bytes(torch.from_numpy(np.array(frame))).permute(2, 0, 1)[None].to(picture)
    repainting = Repainting(photo, picture, model, plan, steps, generator, progress)

    def paint(resampled: Collection[int]) -> tuple[Image.Image, Tensor, Tensor]:
        result, sample, mask = repainting.edited(resampled)
        pixels = to_bytes(result)[0].permute(1, 2, 0).cpu().numpy()
        whole = before.copy()
        whole.paste(Image.fromarray(pixels), model.processor.box(whole)[:2])
        return whole, sample, mask

    return paint


def _restored(codec: Codec, picture: Tensor, region: Tensor, x0: Tensor) -> Tensor:
    """Predicted latents with the picture's pixels outside a region; those that hold none of them stay as they are."""
    inside = F.adaptive_max_pool2d(1 - region, x0.shape[-2:]) == 0
    return torch.where(inside, x0, codec.encode(torch.where(region > 0, codec.decode(x0), picture)))


def _step(old: Tensor, new: Tensor, model: Model) -> tuple[float, float] | None:
    """The displacement in widths and heights of the image; None for what is not a place."""
    ends = [model.conditioner.describe(value) for value in (old, new)]
    if not all(isinstance(end, dict) and {"x", "y"} <= end.keys() for end in ends):
        return None
    return ends[1]["x"] - ends[0]["x"], ends[1]["y"] - ends[0]["y"]


def _most(some: Tensor) -> Tensor:
    """The greatest of some maps (N, 1, H, W) at each pixel, (1, 1, H, W); 0 of none."""
    return torch.cat([torch.zeros_like(some.new_empty(1, *some.shape[1:])), some]).amax(0, keepdim=True)


def _with(picture: Tensor, change: Tensor) -> Tensor:
    """A picture with a change of the photo."""
    small = F.interpolate(change, picture.shape[-2:], mode="bilinear", antialias=True)
    return (picture + (small if picture.shape[1] == 3 else small.mean(1, keepdim=True))).clamp(-1, 1)
