"""What an evaluation asks of a model: the conditions of an image, or its parts."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection

from energycomp.components import mixed_of
from energycomp.decomposition import Decomposition, decompose_samples, decomposer_of
from energycomp.errors import InputError
from energycomp.inference import OutOfDistributionWarning, Solution, Solver, read_image
from energycomp.models import Model
from energycomp.plugins import object_of
from energycomp.progress import progress as shown
from energycomp_lab.evaluation.attributes import attribute_metrics
from energycomp_lab.evaluation.data import Example, true_values
from energycomp_lab.evaluation.records import from_bits, from_numbers, to_bits, to_numbers
from energycomp_lab.evaluation.report import Scores


class Conditions:
    """Infers conditions. The metrics compare values; those of attributes are added where the model has attributes."""

    def __init__(
        self,
        model: Model,
        metrics: MetricCollection,
        solver: Solver | type[Solver] | str | None,
        count: int | Sequence[int] | Literal["true"] | None,
    ) -> None:
        self.model = model
        self.count = count
        self.chosen: Solver = object_of("solvers", model.defaults.solver if solver is None else solver)
        self.solver = type(self.chosen).__name__
        self.mixed = mixed_of(model.conditioner)
        self.scores = [Scores(metrics)]
        self.keeps_search = any("record" in inspect.signature(one.update).parameters for one in metrics.values())
        if self.mixed is not None:
            self.scores.append(Scores(attribute_metrics(self.mixed)))

    def true(self, example: Example) -> Tensor:
        return true_values(example, self.model.conditioner)

    def answer(self, example: Example, true: Tensor, generator: torch.Generator, /) -> tuple[Solution, dict[str, Any]]:
        count = len(true) if isinstance(self.count, str) and self.count == "true" else self.count
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutOfDistributionWarning)  # the metrics measure how wrong the answers are
            found = read_image(example.image, self.model, generator, solver=self.chosen, count=count)
        record = {
            "true": to_numbers(true),
            "conditions": to_numbers(found.conditions),
            "probability": to_numbers(found.probability),
            "certainty": to_numbers(found.certainty),
            "rows": found.rows,
        }
        if self.keeps_search:
            record |= {"trace": dict(found.trace), "counts": dict(found.counts)}
        return found, record

    def score(self, true: Tensor, _image: Tensor, record: Mapping[str, Any], /) -> None:
        found = cast("Tensor", from_numbers(record["conditions"], *true.shape[1:], dtype=true.dtype))
        probability = from_numbers(record["probability"])
        if self.mixed is None:
            self.scores[0].update([found], [true], probability=[probability], record=[record])
            return
        split = self.mixed.support.split
        numbers = [split(found)[0]], [split(true)[0]]
        self.scores[0].update(*numbers, probability=[probability], record=[record])
        certainty = from_numbers(record["certainty"], len(self.mixed.attributes))
        self.scores[1].update([found], [true], certainty=[certainty])


class PartsTask:
    """Decomposes images. The metrics compare masks, or latents for examples with factors; pixels are compared, too.

    An image without masks of parts is left out of the metrics of masks.
    """

    def __init__(self, model: Model, metrics: MetricCollection, examples: Sequence[Example], *, progress: bool) -> None:
        self.model = model
        self.decomposer = decomposer_of(model)
        views = getattr(self.decomposer, "views", 1)
        name = type(self.decomposer if model.encoder is None else model.encoder).__name__
        self.solver = name if views == 1 else f"{name}, {views} views"
        errors = [MetricCollection({name: MeanMetric()}) for name in ("mse", "mse_baseline")]
        self.scores = [Scores(metrics), *map(Scores, errors)]
        self.average = torch.zeros(1, 3, *model.processor.size)
        for example in shown(examples, "reading", unit="image", show=progress):
            self.average += model.processor(example.image) / len(examples)

    def true(self, example: Example) -> Tensor:
        """Factors (1, F), or masks (K, H, W), resized as the model's image processor resizes the image."""
        if example.factors is not None:
            return example.factors[None]
        if example.masks is None:
            raise InputError(
                f"got {example.name or 'an example'} without masks and without factors; expected the masks of its "
                "objects (K, H, W), or its factors (F,); use a dataset that has them"
            )
        if example.masks.ndim != 3:
            raise InputError(f"got masks {tuple(example.masks.shape)} of {example.name}; expected (K, H, W)")
        if not len(example.masks):
            return torch.zeros(0, *self.model.processor.size, dtype=torch.bool)
        images = example.masks.float()[:, None].expand(-1, 3, -1, -1) * 2 - 1
        return self.model.processor(images)[:, 0] > 0

    def answer(
        self, example: Example, _true: Tensor, generator: torch.Generator, /
    ) -> tuple[Decomposition, dict[str, Any]]:
        image = self.model.processor(example.image)
        found = decompose_samples(image, self.decomposer, generator=generator)
        masks = found.parts.masks
        masked = example.factors is None
        return found, {
            "masks": to_bits(None if masks is None else masks[0]) if masked else None,
            "latents": None if masked else to_numbers(found.latents[0]),
            "mse": float((found.parts.whole.cpu() - image).square().mean()),
            "rows": found.spent.rows,
        }

    def score(self, true: Tensor, image: Tensor, record: Mapping[str, Any], /) -> None:
        kept = record["latents"]
        found = from_bits(record["masks"]) if kept is None else from_numbers(kept, -1)
        if found is not None:
            self.scores[0].update([found], [true])
        self.scores[1].update(record["mse"])
        self.scores[2].update((self.average - image).square().mean())
