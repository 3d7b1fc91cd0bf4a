"""Sample regions, NOT, best-of and two LoRAs from a pipeline of diffusers in a folder, and judge the samples.

python benchmarks/published/run.py --pipeline runs/published/pipeline --lora runs/published/zog runs/published/mib

With w the weight of a prompt (`--scale`), A and B two of `--prompts`, and S and T the prompts of the LoRAs:

regions     A and B in their halves: by `region` weights, and by `regional`
not         w A & ~(w B), and w "A and B" & ~(w B); right where A is shown and B is not
best-of     w A & w B: one sample, and the best of 4 by `rank`
two loras   S or T alone; in their halves by `regional`; w S & w T; "S and T" by `set_adapters` with weights 1 and 0.5

`right` is the share of prompts that are found, in their half where they have one. Judge "pixels": colours, of the
pipeline that `small.py` trains, without a network; a half shows the prompt whose colours have the most pixels. Of the
LoRAs that it trains, `subjects` is the share of subjects that are seen, not their colours alone: bands in turns. Judge
"model", of other prompts: the pipeline's own errors. A half shows the prompt with the least error in it; an image shows
the prompts with less error than u. Distilled pipelines take `--steps`, `--scale 1` and `--scheduler`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from benchmarks.common.options import parser
from benchmarks.common.ways import PICTURE, SHOWN, mean_interval, write_rows
from benchmarks.published.small import SUBJECTS
from benchmarks.sampling.regions import DRAWS, HALVES, HUES as OF_SOLIDS, errors_of_halves
from energycomp import Composer, Composition, Model, per_sample, region
from energycomp.errors import EnergycompError, InputError, NotFoundError
from energycomp.models import dtype_of
from energycomp_samplers import regional, sample_best
from energycomp_text import from_pipeline

CASES = ("regions", "not", "best-of", "two loras")
SEEN, HUE_ERROR = 10, 0.12  # least pixels of a colour, greatest distance of a hue
BANDS, COLUMNS = 4, 4  # of a subject: bands below one another in a column, of the five it has, and such columns
HUES = {**OF_SOLIDS, "lime": 0.23, "cyan": 0.5, "violet": 0.75}
BEST_OF = 4
Shows = Callable[[str, int | None], bool]  # whether an image shows a prompt, in a half where one is given


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each case and way."""
    parsed = parser(
        __doc__, cases=(list(CASES), "all by default", CASES), n=(32, "samples of each line"), seed=0,
        prompts=(["a red cube", "a blue sphere", "a green cylinder"], "of A and B"),
        subjects=([f"a {name}" for name in SUBJECTS], "prompts of the LoRAs"),
        scale=(0.0, "weight of every prompt; the family's own"), steps=(0, "of the scheduler; the family's own"),
        scheduler=("", "of diffusers; the family's own"), image_size=(0, "in pixels; the family's own"),
        dtype="float32", device="cpu", o=PICTURE,
    )  # fmt: skip
    parsed.add_argument("--pipeline", type=Path, required=True, help="folder of a pipeline of diffusers")
    parsed.add_argument("--lora", type=Path, nargs=2, default=[], help="two LoRAs of it")
    options = parsed.parse_args(arguments)
    try:
        bench = opened(options)
        bench.base(list(dict.fromkeys(options.prompts)))
        if options.lora:
            bench.loras(*options.subjects)
    except EnergycompError as error:
        parsed.error(str(error))
    write_rows(options.o, bench.images, columns=min(SHOWN, options.n), side=96, names=bench.names)


def opened(options: Any) -> Bench:
    """Checks the options and reads the pipeline."""
    if not (options.pipeline / "model_index.json").is_file():
        what = "without model_index.json" if options.pipeline.is_dir() else "which is no folder"
        raise NotFoundError(
            f"got {options.pipeline}, {what}; expected a pipeline as its save_pretrained writes it; download one, or "
            "train one with benchmarks/published/small.py"
        )
    if missing := [path for path in options.lora if not path.exists()]:
        raise NotFoundError(
            f"got the LoRA {missing[0]}, which does not exist; expected what save_lora_weights writes; download it, or "
            "train it with benchmarks/published/small.py"
        )
    if len(set(options.prompts)) < 2 or len(options.subjects) != 2:
        raise InputError(
            f"got --prompts {options.prompts} and --subjects {options.subjects}; expected at least two prompts that "
            "differ, and two subjects; change them"
        )
    reading = {"torch_dtype": dtype_of(options.dtype), "use_safetensors": True, "local_files_only": True}
    pipe = DiffusionPipeline.from_pretrained(options.pipeline, **reading).to(options.device)
    pipe.set_progress_bar_config(disable=True)
    return Bench(pipe, from_pipeline(pipe, image_size=options.image_size or None), options)


@attrs.frozen(eq=False)
class Bench:
    """A pipeline and its model, what was chosen, and the first images of each line so far."""

    pipe: Any
    model: Model
    options: Any
    images: list[Image.Image] = attrs.field(factory=list)
    names: list[str] = attrs.field(factory=list)

    def base(self, prompts: list[str]) -> None:
        """The lines without LoRA."""
        order = list(permutations(prompts, 2))
        chosen = np.random.default_rng(self.options.seed).permutation(np.resize(np.arange(len(order)), self.options.n))
        pairs, w = [order[int(k)] for k in chosen], self.weight
        judge = self.judge({prompt: self.model(prompt) for prompt in prompts})
        made: dict[tuple[str, str], Any] = {
            ("regions", "region"): lambda a, b, _: region(HALVES[0]) * a & region(HALVES[1]) * b,
            ("regions", "regional"): lambda a, b, _: regional(list(zip(HALVES, (a, b), strict=True))),
            ("not", "A & ~B"): lambda a, b, _: a & ~b,
            ("not", '"A and B" & ~B'): lambda _, b, both: both & ~b,
            ("best-of", "one"): lambda a, b, _: a & b,
            ("best-of", f"best of {BEST_OF}"): lambda a, b, _: a & b,
        }
        for (case, way), compose in made.items():
            parts = [[w * self.model(prompt) for prompt in (*pair, " and ".join(pair))] for pair in pairs]
            draw = self.best if way.startswith("best") else self.drawn
            self.line(
                case, way, pairs, judge, lambda of=compose, draw=draw, given=parts: draw([of(*one) for one in given])
            )

    def loras(self, first: str, second: str) -> None:
        """The lines of two LoRAs, which stay active in the pipeline."""
        one, two = (self.model.with_lora(path) for path in self.options.lora)
        s, t = self.weight * one(first), self.weight * two(second)
        judge = self.judge({first: one(first), second: two(second)})
        turns = [k % 2 for k in range(self.options.n)]  # S is left, right, left ...
        pairs = [((first, second), (second, first))[turn] for turn in turns]

        def halves() -> list[Image.Image]:
            return self.drawn([regional(list(zip(HALVES, ((s, t), (t, s))[turn], strict=True))) for turn in turns])

        alone = [((first, first), (second, second))[turn] for turn in turns]
        self.line(
            "two loras", "alone", alone, judge,
            lambda: self.drawn([(s & one.unconditional, t & two.unconditional)[turn] for turn in turns]),
        )  # fmt: skip
        self.line("two loras", "regional", pairs, judge, halves)
        self.line("two loras", "S & T", pairs, judge, lambda: self.drawn([s & t for _ in turns]))
        if "two loras" in self.options.cases:
            for name, path in zip("st", self.options.lora, strict=True):
                self.pipe.load_lora_weights(path, adapter_name=name)
            for weight in (1.0, 0.5):
                self.pipe.set_adapters(["s", "t"], [weight, weight])
                self.line(
                    "two loras", f"set_adapters {weight:g}", pairs, judge, lambda: self.piped(f"{first} and {second}")
                )

    @property
    def weight(self) -> float:
        """Of every prompt."""
        return float(self.options.scale or self.model.defaults.guidance_scale)

    @property
    def sampling(self) -> dict[str, Any]:
        """Steps and scheduler, where they were chosen."""
        chosen = {"num_inference_steps": self.options.steps, "scheduler": self.options.scheduler}
        return {name: value for name, value in chosen.items() if value}

    @property
    def generators(self) -> list[torch.Generator]:
        """One for each sample."""
        return [torch.Generator().manual_seed(self.options.seed + k) for k in range(self.options.n)]

    def drawn(self, compositions: list[Composition]) -> list[Image.Image]:
        """A sample of each, in one batch."""
        options = {"generator": self.generators, "progress": False, **self.sampling}
        return Composer(per_sample(compositions)).sample(len(compositions), **options)

    def best(self, compositions: list[Composition]) -> list[Image.Image]:
        """The best of some samples of each."""
        options = {"best_of": BEST_OF, "model": self.model, "draws": DRAWS, "progress": False, **self.sampling}
        drawn = zip(compositions, self.generators, strict=True)
        return [sample_best(one, generator=generator, **options).images[0] for one, generator in drawn]

    def piped(self, prompt: str) -> list[Image.Image]:
        """Samples of the pipeline itself, under its own scheduler."""
        options = {name: value for name, value in self.sampling.items() if name != "scheduler"}
        if type(self.pipe).__name__.startswith("StableDiffusion"):  # others count the guidance scale otherwise
            options["guidance_scale"] = self.weight
        options["height"] = options["width"] = self.model.processor.size[0]
        return self.pipe([prompt] * self.options.n, generator=self.generators, **options).images

    def judge(self, leaves: Mapping[str, Any]) -> Callable[[Image.Image], Shows]:
        """What reads an image: pixels, where the colours of all prompts are known and differ; else the model."""
        colors = [color for prompt in leaves for color in colors_of(prompt)]
        known = all(map(colors_of, leaves)) and len(set(colors)) == len(colors)
        return partial(pixels, list(leaves)) if known else partial(own_reading, self.model, leaves)

    def line(
        self, case: str, way: str, pairs: Sequence[Any], judge: Any, draw: Callable[[], list[Image.Image]]
    ) -> None:
        """Draws, judges, and prints one line."""
        if case not in self.options.cases:
            return
        rows, started = list[int](), time.perf_counter()
        network = getattr(self.pipe, "unet", None) or self.pipe.transformer
        count = network.register_forward_hook(lambda *given: rows.append(_rows(*given[1:3])), with_kwargs=True)
        images = draw()
        seconds = time.perf_counter() - started
        count.remove()
        halves = (0, 1) if case == "regions" or way == "regional" else (None, None)
        right = []
        for pair, image in zip(pairs, images, strict=True):
            found = list(map(judge(image), pair, halves))
            right.append(float(found[0] and not found[1]) if case == "not" else sum(found) / 2)
        share, interval = mean_interval(torch.tensor(right))
        told = {"case": case, "way": way, "right": share, "interval": interval, "samples": len(images)}
        if case == "two loras" and all(map(subject_of, pairs[0])):
            seen = [
                sum(shows_subject(prompt, half, image) for prompt, half in zip(pair, halves, strict=True)) / 2
                for pair, image in zip(pairs, images, strict=True)
            ]
            told["subjects"], told["subjects_interval"] = mean_interval(torch.tensor(seen))
        told |= {"nfe": round(sum(rows) / len(images), 1), "seconds": round(seconds, 1), "scale": self.weight}
        print(json.dumps({**told, "judge": "pixels" if judge.func is pixels else "model"}), flush=True)
        self.images.extend(images[:SHOWN])
        self.names.append(f"{case}, {way}")


def colors_of(prompt: str) -> tuple[str, ...]:
    """The colours that a prompt names, or that a subject has.

    >>> colors_of("a zog"), colors_of("a red cube"), colors_of("a dog")
    (('red', 'cyan'), ('red',), ())
    """
    return tuple(c for word in prompt.split() for c in SUBJECTS.get(word, (word,)) if c in HUES)


def pixels(prompts: Sequence[str], image: Image.Image) -> Shows:
    """Whether an image has all colours of a prompt; or whether a half has more pixels of them than of other prompts'.

    A pixel has the colour, of all that prompts have, whose hue is nearest.

    >>> image = Image.new("RGB", (32, 32), "grey")
    >>> image.paste((173, 35, 35), (0, 0, 8, 8))
    >>> shows = pixels(["a red cube", "a blue cube"], image)
    >>> shows("a red cube", None), shows("a red cube", 0), shows("a red cube", 1), shows("a blue cube", None)
    (True, True, False, False)
    """
    colors = [color for prompt in prompts for color in colors_of(prompt)]
    halves = np.stack(np.split(nearest_colors(image, colors), 2, axis=1))
    counts = {color: (halves == k).sum((1, 2)) for k, color in enumerate(colors)}  # in each half

    def shows(prompt: str, half: int | None) -> bool:
        if half is None:
            return all(counts[color].sum() >= SEEN for color in colors_of(prompt))
        seen = {other: sum(int(counts[color][half]) for color in colors_of(other)) for other in prompts}
        return seen[prompt] >= SEEN and seen[prompt] == max(seen.values())

    return shows


def nearest_colors(image: Image.Image, colors: Sequence[str]) -> np.ndarray:
    """The colour of each pixel, (H, W): the number of the one whose hue is nearest, or -1."""
    hue, saturation, value = np.asarray(image.convert("HSV"), dtype=float).transpose(2, 0, 1) / 255.0
    away = np.stack([np.abs((hue - HUES[color] + 0.5) % 1.0 - 0.5) for color in colors])
    return np.where((saturation > 0.35) & (value > 0.2) & (away.min(0) < HUE_ERROR), away.argmin(0), -1)


def subject_of(prompt: str) -> str | None:
    """The subject that a prompt names.

    >>> subject_of("a zog"), subject_of("a red cube")
    ('zog', None)
    """
    return next((word for word in prompt.split() if word in SUBJECTS), None)


def shows_subject(prompt: str, half: int | None, image: Image.Image) -> bool:
    """Whether an image, or a half of it, shows a subject: its two colours in turns, down `COLUMNS` columns at least.

    Pixels without a colour are between two bands; any third colour ends the turns.

    >>> image = Image.new("RGB", (32, 32), "grey")
    >>> for row in range(5):
    ...     image.paste([(173, 35, 35), (41, 208, 208)][row % 2], (2, 8 + 2 * row, 12, 10 + 2 * row))
    >>> shows_subject("a zog", 0, image), shows_subject("a zog", 1, image), shows_subject("a mib", 0, image)
    (True, False, False)
    """
    names = list(HUES)
    own = {names.index(color) for color in SUBJECTS[subject_of(prompt) or prompt]}
    colors = nearest_colors(image, names)
    seen = colors if half is None else np.split(colors, 2, axis=1)[half]
    columns = 0
    for column in seen.T:
        # Count the changes from one own colour to the other, until another colour comes.
        most = turns = 0
        last = -1
        for color in column[column >= 0]:
            if color not in own:
                turns = 0
            elif color != last:
                turns = turns + 1 if last in own else 1
            most = max(most, turns)
            last = color
        columns += most >= BANDS
    return columns >= COLUMNS


def own_reading(model: Model, leaves: Mapping[str, Any], image: Image.Image) -> Shows:
    """Whether a prompt has the least error in a half of an image; or less than u, in the whole image."""
    errors = errors_of_halves(model, image, [*leaves.values(), model.unconditional])
    names = list(leaves)

    def shows(prompt: str, half: int | None) -> bool:
        if half is None:
            return bool(errors[:, names.index(prompt)].sum() < errors[:, -1].sum())
        return names[int(errors[half, :-1].argmin())] == prompt

    return shows


def _rows(given: Any, named: Mapping[str, Any]) -> int:
    return len(named["hidden_states"] if "hidden_states" in named else given[0])


if __name__ == "__main__":
    main()
