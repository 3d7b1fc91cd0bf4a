"""Compare fixed numbers of draws with early stopping: network evaluations and accuracy of exact answers.

python benchmarks/inference/early_stopping.py [--model faces] [-n 1000] [--twelve 200] [-o runs/benchmarks]

Half of the images are `synthetic`, half `synthetic:shifted`. The terms of all draws are computed once per image; the
answers of fewer draws, and the stopping point of `Enumerate(p_value=)`, follow from them by arithmetic.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor
from tqdm import tqdm

from benchmarks.common import measure
from benchmarks.common.answers import ATTRIBUTES, candidates_of, fingerprint
from energycomp import Model, load
from energycomp.evaluation import Example, true_values
from energycomp.files import atomic_file, read_tensors, write_tensors
from energycomp.inference import QuadraticForm, make_problem
from energycomp.plugins import find
from energycomp_solvers.enumerate import Enumerate
from energycomp_solvers.shared import all_errors, compare_halves, dictionary, terms_of, unravel

KINDS = ("synthetic", "synthetic:shifted")
HALF = (8, 8, 16, 32, 64)  # banks of each half as Enumerate draws them: their sum doubles
PARTS = ((8, 8, 8, 8, 16, 16), (32, 32), (64, 64))  # those of both halves in turns, a file for each tuple
FIXED = (2, 5, 10, 20, 32, 64, 128, 256)
P_VALUE = 2e-3
MOST = (32, 64, 128)  # draws of each half after which an answer is given, sure or not
WITHIN = 0.005  # of the accuracy at 256 draws
COMMAND = "python benchmarks/inference/early_stopping.py"


@attrs.frozen(eq=False)
class Reading:
    """The terms of one picture over all draws: of the atoms of its slots, one after another; and the true answer."""

    terms: QuadraticForm
    slots: list[list[int]]
    true: list[int]
    kind: str

    def best(self, draws: Tensor | slice) -> list[list[int]]:
        """The best and the second-best answer by the mean over some draws."""
        least = all_errors(drawn(self.terms, draws), self.slots).topk(2, largest=False)
        return [unravel(int(index), self.slots) for index in least.indices]


def drawn(form: QuadraticForm, draws: Tensor | slice) -> QuadraticForm:
    """The form of some of the draws."""
    return QuadraticForm(form.b[draws], form.gram()[draws], form.c[draws])


@attrs.frozen
class Stop:
    """An answer given early, and what it took."""

    answer: list[int]
    draws: int
    rows: int
    p_value: float = 1.0


def stopped(reading: Reading, most: int, p_value: float = P_VALUE) -> Stop:
    """What `Enumerate(draws=most, p_value=)` answers: its banks go to two halves in turns, which judge each other.

    A draw costs a row for each atom and one for u.
    """
    sizes = torch.tensor([size for part in PARTS for size in part])
    turn = (torch.arange(len(sizes)) % 2).repeat_interleave(sizes)[: reading.terms.draws]
    places = [(turn == half).nonzero()[:, 0] for half in range(2)]
    whole = len(reading.terms) + 1
    for looks in range(1, len(HALF) + 1):
        size = sum(HALF[:looks])
        chosen = [place[:size] for place in places]
        halves = [drawn(reading.terms, place) for place in chosen]
        selected = [[(0.0, answer) for answer in reading.best(place)] for place in chosen]
        found = min(1.0, 2.0**looks * compare_halves(halves, selected, lambda _: 1.0, HALF[:looks])[1])
        if found < p_value or size >= most:
            break
    return Stop(reading.best(torch.cat(chosen))[0], 2 * size, 2 * size * whole, found)


def collect(
    model: Model, example: Example, number: int, part: int, *, values: Tensor | None, seed: int
) -> QuadraticForm:
    """The terms of one part of a picture's draws."""
    problem = make_problem(model.encode(example.image), model, candidates=values)
    atoms, _ = dictionary(problem)
    generator = torch.Generator().manual_seed((seed * 100_000 + number) * len(PARTS) + part)
    terms = QuadraticForm.empty(len(atoms))
    for size in PARTS[part]:
        terms = terms.cat(terms_of(problem, atoms, problem.draw(size, generator)))
    return terms


@attrs.frozen(eq=False)
class Store:
    """The terms of all pictures, in files that a run makes and the next one finds."""

    folder: Path
    model: Model
    sources: dict[str, Sequence[Example]]
    values: Tensor  # of the few attributes
    seed: int

    def example(self, number: int) -> tuple[str, Example]:
        """Picture `number` and its kind: both kinds in turns."""
        kind = KINDS[number % len(KINDS)]
        return kind, self.sources[kind][number // len(KINDS)]

    def path(self, number: int, part: int, *, few: bool) -> Path:
        """Where the terms of a part of a picture's draws are."""
        return self.folder / f"{number:05d}-{part}-{'few' if few else 'all'}.safetensors"

    def make(self, number: int, part: int, *, few: bool) -> None:
        """Computes terms that are not there yet."""
        path = self.path(number, part, few=few)
        if not path.exists():
            values = self.values if few else None
            _, example = self.example(number)
            terms = collect(self.model, example, number, part, values=values, seed=self.seed)
            with atomic_file(path) as temporary:
                write_tensors(temporary, {"b": terms.b.float(), "gram": terms.gram().float(), "c": terms.c.float()})

    def reading(self, number: int, *, few: bool, stored_few: bool) -> Reading:
        """A picture's terms, of the few attributes or of all."""
        parts = [read_tensors(self.path(number, part, few=stored_few)) for part in range(len(PARTS))]
        b, gram, c = (torch.cat([part[name] for part in parts]).double() for name in ("b", "gram", "c"))
        kind, example = self.example(number)
        groups = self.model.conditioner.groups
        atoms = self.values if few else torch.cat(groups)
        if few and not stored_few:
            b, gram = b[:, atoms], gram[:, atoms][:, :, atoms]
        place = {value: row for row, value in enumerate(atoms.tolist())}
        slots = [[place[value] for value in group.tolist()] for group in groups if int(group[0]) in place]
        true = [place[value] for value in true_values(example, self.model.conditioner).tolist() if value in place]
        return Reading(QuadraticForm(b, gram, c), slots, true, kind)


@attrs.frozen
class Line:
    """One way of choosing the number of draws, over all pictures."""

    way: str
    draws: float
    rows: float
    accuracy: float
    by_kind: tuple[float, ...]
    unsure: float | None = None
    most: float | None = None  # rows of the greatest number of draws


def line_of(way: str, readings: Sequence[Reading], answers: Sequence[Stop], *, early: bool) -> Line:
    """Means over pictures."""
    right = torch.tensor([float(a.answer == r.true) for a, r in zip(answers, readings, strict=True)])
    kinds = [torch.tensor([r.kind == kind for r in readings]) for kind in KINDS]
    draws, rows = (sum(getattr(a, name) for a in answers) / len(answers) for name in ("draws", "rows"))
    by_kind = tuple(float(right[kind].mean()) for kind in kinds)
    unsure = sum(a.p_value >= P_VALUE for a in answers) / len(answers) if early else None
    most = max(a.rows for a in answers) if early else None
    return Line(way, draws, rows, float(right.mean()), by_kind, unsure, most)


def lines_of(readings: Sequence[Reading]) -> list[Line]:
    """All fixed numbers of draws, then early stopping with each greatest number."""
    lines = []
    for n in FIXED:
        rows = n * (len(readings[0].terms) + 1)
        answers = [Stop(r.best(slice(n))[0], n, rows) for r in tqdm(readings, desc=f"fixed {n}", leave=False)]
        lines.append(line_of(f"fixed, {n}", readings, answers, early=False))
    for most in MOST:
        answers = [stopped(r, most) for r in tqdm(readings, desc=f"early {most}", leave=False)]
        lines.append(line_of(f"early, at most {2 * most}", readings, answers, early=True))
    return lines


def enough(lines: Sequence[Line], *, early: bool) -> Line | None:
    """The fixed number of draws, or the greatest early one, of fewest rows within half a point of the most draws."""
    least = next(line for line in lines if line.way == f"fixed, {FIXED[-1]}").accuracy - WITHIN
    within = [line for line in lines if (line.unsure is not None) == early and line.accuracy >= least]
    return min(within, key=lambda line: line.rows, default=None)


def check(store: Store, readings: Sequence[Reading], *, few: bool) -> None:
    """Raises RuntimeError where the solver itself answers a picture otherwise or spends other rows."""
    for number, reading in enumerate(readings):
        generator = torch.Generator().manual_seed((store.seed * 100_000 + number) * len(PARTS))
        picture = store.model.encode(store.example(number)[1].image)
        problem = make_problem(picture, store.model, candidates=store.values if few else None)
        solution = Enumerate(draws=MOST[0], p_value=P_VALUE).solve(problem, generator=generator)
        stop, atoms = stopped(reading, MOST[0]), dictionary(problem)[0]
        expected = (atoms[stop.answer].tolist(), stop.rows)
        if (solution.conditions.tolist(), solution.rows) != expected:
            raise RuntimeError(f"picture {number}: got {solution.conditions.tolist()}, {solution.rows}; {expected}")


def rows_of(name: str, lines: Sequence[Line]) -> Iterator[list[str]]:
    """Table rows of one set of attributes."""
    chosen = [enough(lines, early=early) for early in (False, True)]
    base = chosen[0] or lines[-1]
    for line in lines:
        kinds = [f"{share:.1%}" for share in line.by_kind]
        unsure = "" if line.unsure is None else f"{line.unsure:.1%}"
        fewer = f"{base.rows / line.rows:.2f}"
        fewer = f"**{fewer}**" if line in chosen else fewer
        of_most = "" if line.most is None else f"{line.most / line.rows:.2f}"
        figures = [f"{line.draws:.1f}", f"{line.rows:,.0f}", f"{line.accuracy:.1%}", *kinds, unsure, fewer, of_most]
        yield [name, line.way, *figures]


def picture_of(found: dict[str, list[Line]]) -> Figure:
    """Accuracy over rows a picture, a panel for each set of attributes."""
    figure = Figure(figsize=(8, 3.2), layout="constrained", facecolor="white")
    for axes, (name, lines) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        groups: tuple[tuple[str, str, Callable[[Line], bool]], ...] = (
            ("fixed", measure.COLOURS[measure.LOOPED], lambda line: line.unsure is None),
            ("early", measure.COLOURS[measure.OURS], lambda line: line.unsure is not None),
        )
        for label, colour, belongs in groups:
            chosen = [line for line in lines if belongs(line)]
            rows, accuracy = [line.rows for line in chosen], [100 * line.accuracy for line in chosen]
            axes.plot(rows, accuracy, "o-", color=colour, label=label)
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(50, 100)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("rows a picture")
        axes.set_ylabel("all right, %")
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Writes early_stopping.md and .png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="faces", help="registered name or folder of a model of faces")
    parser.add_argument("-n", type=int, default=1000, help="pictures, half of each kind")
    parser.add_argument("--twelve", type=int, default=200, help="how many of them are read for all attributes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/benchmarks"), help="a folder; a run goes on there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load(options.model)
    source: Any = find("datasets", "faces")()
    sources = {kind: source.examples(kind, count=options.n, seed=options.seed) for kind in KINDS}
    folder = options.out / "early_stopping" / f"{fingerprint(model)}-{options.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder, model, sources, candidates_of(model, ATTRIBUTES), options.seed)
    pairs = [(number, part) for number in range(options.n) for part in range(len(PARTS))]
    for number, part in tqdm(pairs, desc="terms", mininterval=30):
        store.make(number, part, few=number >= options.twelve)
    found = {}
    for name, few, size in ((f"{len(ATTRIBUTES)} attributes", True, options.n), ("all", False, options.twelve)):
        readings = [store.reading(k, few=few, stored_few=k >= options.twelve) for k in range(size)]
        check(store, readings[:3], few=few)
        found[f"{name}, {size} pictures"] = lines_of(readings)
    head = (
        "attributes",
        "draws",
        "mean draws",
        "rows",
        "all right",
        *KINDS,
        "not sure",
        "fewer rows",
        "than the most",
    )
    note = (
        f"`{COMMAND} -n {options.n} --twelve {options.twelve}`: model `{options.model}`, seed {options.seed}, pictures "
        f"of both kinds in equal numbers. Early: `Enumerate(p_value={P_VALUE})`, from 16 draws on. Fewer rows: against "
        f"the smallest fixed number within {100 * WITHIN:g} points of {FIXED[-1]} draws; bold: that one, and the early "
        "one of fewest rows within the same. Than the most: against the greatest number of draws for every picture. On "
        "3 pictures each the solver itself ran, with the same answers and rows."
    )
    text = measure.table(head, [row for name, lines in found.items() for row in rows_of(name, lines)], note)
    measure.write(options.out / "early_stopping", text, picture_of(found))


if __name__ == "__main__":
    main()
