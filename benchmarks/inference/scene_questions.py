"""Relations and questions of CLEVR's form, read from pictures by their posterior.

python benchmarks/inference/scene_questions.py --data DIR:3-8 [-n 60] [--model clevr] [--seed 0] [--each 4]
    [--also clevr-small] [--examples]

Relations: for all pairs of objects that were found, left of / right of, and in front of / behind, by the truth of the
official records (places on the ground along the directions of the camera). Accuracy, and the calibration error of the
probabilities (10 bins of equal size). `recall` counts pairs of which an object was not found as wrong.

Questions: `--each` random programs of every type and image that have an answer in the true scene: single objects are
described by words that only they have, through up to two relations, through what they have in common, and with both or
either of two relations. Questions with yes or no have either answer half of the time. Intervals are 95 % bootstrap
intervals over images. Answers of `infer` in `--records` are taken up again; `--examples` prints wrong answers.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.options import parser
from benchmarks.common.ways import identity
from energycomp import Model, infer, load
from energycomp.images import to_unit
from energycomp.inference import OutOfDistributionWarning, Solution
from energycomp.seeds import derived_seed
from energycomp_clevr.codes import ATTRIBUTES
from energycomp_cli import append_line, read_lines
from energycomp_datasets.clevr.layout import record_of, scene_of
from energycomp_datasets.clevr.requests import parse_request
from energycomp_datasets.synthetic import HELD_OUT, synthetic
from energycomp_lab.evaluation import Example, source_of, true_values
from energycomp_scenes.answers import answer
from energycomp_scenes.reading import SIZES, Belief, belief, joined

FOUND = 0.08  # of the picture: an object that was read is that of the record
TRIED, RESAMPLES, BINS = 300, 1000, 10
DIRECTIONS, WORDS = ("left", "right", "front", "behind"), list(ATTRIBUTES)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for relations, and one for questions."""
    options = parser(
        __doc__, model="clevr", data="synthetic:3-8:128x128", n=60, seed=0, each=(4, "questions of a type and image"),
        also=("", "another model that reads words, too"), records="runs/scene_questions",
        examples=(False, "prints wrong answers"),
    ).parse_args(arguments)  # fmt: skip
    model = load(options.model)
    examples = source_of("clevr", model).examples(options.data, count=options.n, seed=options.seed)
    truths = [true_belief(options.data, k, one, options.seed, model.conditioner) for k, one in enumerate(examples)]
    other = load(options.also) if options.also else None
    solutions = [
        read_by(model, other, options.records, options, k, one) for k, one in enumerate(tqdm(examples, desc="reading"))
    ]
    head: dict[str, Any] = {
        "model": " and ".join(filter(None, [options.model, options.also])),
        "data": options.data,
        "images": len(examples),
        "seed": options.seed,
    }
    beliefs = [belief(one) for one in solutions]
    places = [true_values(one, model.conditioner)[:, :2] for one in examples]
    print(json.dumps(head | relations(beliefs, solutions, truths, places)), flush=True)
    line: dict[str, Any] = {}
    for kind, make in TYPES.items():
        right: list[list[bool]] = []
        for k, (truth, read) in enumerate(zip(truths, beliefs, strict=True)):
            right.append([])
            for number in range(options.each):
                random = torch.Generator().manual_seed(derived_seed(options.seed, kind, k * options.each + number))
                program = question(make, truth, random, number)
                if program is None:
                    continue
                said, true = answer(program, read), answer(program, truth).value
                right[-1].append(said.value == true)
                if options.examples and said.value != true:
                    print(k, kind, [(s["function"], *s["value_inputs"]) for s in program], said, true)
        line[kind] = interval([torch.tensor(one).float() for one in right])
        line[f"{kind}_n"] = sum(map(len, right))
    print(json.dumps(head | line), flush=True)


def true_belief(data: str, index: int, example: Example, seed: int, conditioner: Any) -> Belief:
    """The one true scene of an example of `ClevrSource`."""
    options = synthetic(data)
    if options is not None:
        wanted = parse_request(options, (64, 64))
        scene = scene_of(HELD_OUT + seed, index, wanted.objects, wanted.textured, wanted.variety)
        record = record_of(scene, "", index, "")
    else:
        folder = Path(example.image).parents[2]
        files = sorted((folder / "scenes").glob("CLEVR_*_scenes.json"))
        scenes = [scene for file in files for scene in json.loads(file.read_text())["scenes"]]
        record = next(scene for scene in scenes if scene["image_filename"] == example.name)
    points = torch.tensor([one["3d_coords"] for one in record["objects"]])
    axes = torch.tensor([record["directions"]["right"], record["directions"]["behind"]])
    codes = true_values(example, conditioner)[:, 2:].long()
    return Belief((points @ axes.T)[None], codes[None])


def read_by(model: Model, other: Model | None, records: Path, options: Any, index: int, example: Example) -> Solution:
    """The reading of an example by a model, and by another one beside it; both are recorded."""
    image = to_unit(example.image) if isinstance(example.image, Tensor) else example.image
    seed = derived_seed(options.seed, "example", index)
    file = records / f"{identity(options.model, model)}.jsonl"

    def reading() -> Solution:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutOfDistributionWarning)
            return infer(image, model, generator=seed, progress=False)

    read = _recorded(file, {"data": options.data, "seed": options.seed, "index": index}, reading)
    if other is None:
        return read
    both = records / f"{file.stem}+{identity(options.also, other)}.jsonl"
    key = {"data": options.data, "seed": options.seed, "index": index}
    return _recorded(both, key, lambda: joined(read, image, other, generator=seed))


def _recorded(file: Path, key: Mapping[str, Any], reading: Callable[[], Solution]) -> Solution:
    """A reading from a file, or a new one, which is kept there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    known = next((one for one in read_lines(file) if key.items() <= one.items()), None)
    if known is None:
        read = reading()
        known = {**key, "rows": read.rows, "found": read.conditions.tolist()}
        known["words"] = [] if read.posteriors is None else torch.cat(read.posteriors, dim=1).tolist()
        append_line(file, known)
    values, words = torch.tensor(known["found"]).reshape(-1, 6), torch.tensor(known["words"]).reshape(-1, 15)
    return Solution(values, len(values), 0.0, 0.0, known["rows"], posteriors=words.split(SIZES, dim=1))


def relations(
    beliefs: Sequence[Belief], solutions: Sequence[Solution], truths: Sequence[Belief], places: Sequence[Tensor]
) -> dict[str, Any]:
    """Accuracy and calibration of the relations of pairs that were found."""
    right, chances, every, lost, rows, moved = [], [], [], [], [], []
    for read, solution, truth, at in zip(beliefs, solutions, truths, places, strict=True):
        apart = torch.cdist(solution.conditions[:, :2], at)
        mine, own = map(torch.as_tensor, linear_sum_assignment(apart.numpy()))
        keep = apart[mine, own] < FOUND
        mine, own = mine[keep], own[keep]
        moved.append(solution.conditions[mine, :2] - at[own])
        i, j = torch.triu_indices(len(mine), len(mine), 1)
        margin = read.ground[:, mine[i]] - read.ground[:, mine[j]]
        likely = (margin > 0).float().mean(0).flatten()  # of "right of" and "behind"
        true = (truth.ground[0, own[i]] - truth.ground[0, own[j]]).flatten()
        said = (likely > 0.5) == (true > 0)
        right.append(said.float())
        chances.append(torch.where(likely > 0.5, likely, 1 - likely))
        pairs = len(at) * (len(at) - 1)
        every.append(torch.cat([said.float(), torch.zeros(pairs - len(said))]))
        lost.append(pairs - len(said))
        rows.append(solution.rows)
    sure, correct = torch.cat(chances), torch.cat(right)
    order = sure.argsort()
    bins = [(sure[part].mean() - correct[part].mean()).abs() * len(part) for part in order.chunk(BINS)]
    return {
        "relations": len(correct), "accuracy": interval(right),
        "calibration_error": round(float(sum(bins) / len(sure)), 4), "recall": interval(every), "lost": sum(lost),
        "place_std": [round(float(x), 5) for x in torch.cat(moved).std(0)], "nfe": round(sum(rows) / len(rows)),
    }  # fmt: skip


def interval(values: Sequence[Tensor]) -> list[float]:
    """The mean of values of several images, and its bootstrap interval over images."""
    total = torch.tensor([[float(one.sum()), len(one)] for one in values], dtype=torch.float64)
    drawn = torch.randint(len(total), (RESAMPLES, len(total)), generator=torch.Generator().manual_seed(0))
    sums = total[drawn].sum(1)
    ends = (sums[:, 0] / sums[:, 1].clamp(min=1)).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return [round(float(x), 4) for x in (total[:, 0].sum() / total[:, 1].sum().clamp(min=1), *ends)]


class Draft:
    """A program in the making, on a true scene."""

    def __init__(self, truth: Belief, random: torch.Generator) -> None:
        self.truth, self.random, self.steps = truth, random, list[dict[str, Any]]()

    def pick(self, items: Sequence[Any]) -> Any:
        """One of them."""
        return items[int(torch.randint(len(items), (), generator=self.random))]

    def add(self, function: str, *inputs: int, word: str | None = None) -> int:
        """A step, as in CLEVR's question files."""
        self.steps.append({"function": function, "inputs": list(inputs), "value_inputs": [word] if word else []})
        return len(self.steps) - 1

    def filtered(self, found: int, skip: str = "") -> int:
        """One to three words of a random object, which the set then has."""
        names = [name for name in WORDS if name != skip]
        order = torch.randperm(len(names), generator=self.random)[: int(torch.randint(1, 4, (), generator=self.random))]
        codes = self.truth.codes[0, self.pick(range(self.truth.codes.shape[1]))]
        for name in [names[int(k)] for k in order]:
            found = self.add(f"filter_{name}", found, word=ATTRIBUTES[name][int(codes[WORDS.index(name)]) - 1])
        return found

    def objects(self, skip: str = "", *, words: bool = True) -> int:
        """A set, by one of CLEVR's chains."""
        kind = self.pick(["plain", "plain", "one hop", "two hops", "same", "and", "or"])
        if kind in ("and", "or"):
            both = [self.add("relate", self.one("plain"), word=self.pick(DIRECTIONS)) for _ in range(2)]
            found = self.add("intersect" if kind == "and" else "union", *both)
        elif kind == "same":
            name = self.pick([name for name in WORDS if name != skip])
            found = self.add(f"same_{name}", self.one("plain"))
        elif kind == "plain":
            found = self.add("scene")
        else:
            found = self.add("relate", self.one("plain" if kind == "one hop" else "hop"), word=self.pick(DIRECTIONS))
        return self.filtered(found, skip) if words and kind != "same" else found

    def one(self, kind: str, skip: str = "") -> int:
        """A single object."""
        found = self.add("scene")
        if kind == "hop":
            found = self.add("relate", self.one("plain"), word=self.pick(DIRECTIONS))
        return self.add("unique", self.filtered(found, skip))


def _query(draft: Draft, name: str) -> int:
    return draft.add(f"query_{name}", draft.add("unique", draft.objects(name)))


def _compare_integer(draft: Draft) -> int:
    both = [draft.add("count", draft.objects()) for _ in range(2)]
    return draft.add(draft.pick(["equal_integer", "less_than", "greater_than"]), *both)


def _compare_attribute(draft: Draft) -> int:
    name = draft.pick(WORDS)
    both = [draft.add(f"query_{name}", draft.one(draft.pick(["plain", "hop"]), name)) for _ in range(2)]
    return draft.add(f"equal_{name}", *both)


TYPES: dict[str, Callable[[Draft], int]] = {
    "count": lambda draft: draft.add("count", draft.objects()),
    "exist": lambda draft: draft.add("exist", draft.objects()),
    "compare_integer": _compare_integer,
    **{f"query_{name}": lambda draft, name=name: _query(draft, name) for name in WORDS},  # type: ignore[misc]
    "compare_attribute": _compare_attribute,
}


def question(
    make: Callable[[Draft], int], truth: Belief, random: torch.Generator, number: int
) -> list[dict[str, Any]] | None:
    """A program with an answer in the true scene; of yes and no, the one that the number asks for."""
    for _ in range(TRIED):
        draft = Draft(truth, random)
        make(draft)
        true = answer(draft.steps, truth)
        wanted = true.value not in ("yes", "no") or true.value == ("no", "yes")[number % 2]
        if true.granted == 1.0 and wanted:
            return draft.steps
    return None


if __name__ == "__main__":
    main()
