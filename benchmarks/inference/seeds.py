"""Do readings depend on the seed, and is the search or the model wrong? Several readings of each image, and the truth.

python benchmarks/inference/seeds.py [--model clevr] [--data synthetic:3-5] [-n 60] [--seeds 5] [--draws 64] [-o FILE]
python benchmarks/inference/seeds.py --fit FILE ...        # weights of `Calibration.sure`, from readings that were
                                                            # kept; the error of halves, and of files, that are
                                                            # not fitted
python benchmarks/inference/seeds.py --picture PNG FILE ...  # how often answers are right that are as sure as they
                                                            # say, and the calibration error of each FILE and of all

Each image is read with the seeds 0 to N - 1. All answers and the true scene are compared on one bank of fresh draws: an
answer that leaves more than 2 nats more than the truth is a failure of the search, since the model prefers the truth.
With -o, readings are kept in FILE, a line of JSON each, and the command goes on where it stopped.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.options import parser
from benchmarks.sampling.forecast import calibration_error
from energycomp import Model, infer, load
from energycomp.images import to_unit
from energycomp.inference import OutOfDistributionWarning, make_problem, verdict_of
from energycomp.inference.judge import posterior, scaled
from energycomp_cli import append_line, read_lines
from energycomp_lab.evaluation import fit_sure, source_of, true_values

NATS = 2.0  # by which the truth has to be better for the search to have failed
FOUND = 0.002  # of (dx^2 + dy^2) / 2: an object counts as found below it
JUDGED = 977  # the seed of the bank that judges


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads, and prints one line of JSON."""
    options = parser(__doc__, model="clevr", data="synthetic:3-5", n=60, seed=(0, "of the scenes"))
    options.add_argument("--seeds", type=int, default=5, help="readings of an image")
    options.add_argument("--draws", type=int, default=64, help="draws that compare answers with the truth")
    options.add_argument("-o", "--out", type=Path, help="file that keeps the readings")
    options.add_argument("--fit", type=Path, nargs="+", help="files of readings that fit how sure an answer is")
    options.add_argument("--picture", type=Path, nargs="+", help="a PNG to write, and files of readings that it shows")
    given = options.parse_args(arguments)
    if given.fit:
        files = [read_lines(file) for file in given.fit]
        lines = [line for file in files for line in file]
        told = {"sure": [round(each, 2) for each in fitted(lines)], "error_of_halves": round(error_of_halves(lines), 3)}
        print(json.dumps(told | by_other_files(files)))
        return
    if given.picture:
        file, *kept = given.picture
        lines = {each.stem: read_lines(each) for each in kept}
        draw(lines, file)
        lines["all"] = [line for each in lines.values() for line in each]
        print(json.dumps({name: round(calibration(judged(each)), 3) for name, each in lines.items()}))
        return
    model = load(given.model)
    warnings.simplefilter("ignore", OutOfDistributionWarning)
    kept = [] if given.out is None else read_lines(given.out)
    examples = source_of("clevr", model).examples(given.data, count=given.n, seed=given.seed)
    for number in tqdm(range(len(kept), len(examples)), desc="reading"):
        example = examples[number]
        image = to_unit(example.image) if isinstance(example.image, Tensor) else example.image
        line = compared(model, image, true_values(example, model.conditioner), given.seeds, given.draws)
        kept.append(line)
        if given.out is not None:
            append_line(given.out, line)
    print(json.dumps({"model": given.model, "data": given.data, "seeds": given.seeds, **summary(kept)}))


def compared(model: Model, image: Any, true: Tensor, seeds: int, draws: int) -> dict[str, Any]:
    """The readings of one image, and by how many nats each is worse than the truth."""
    found = [infer(image, model, generator=seed, progress=False) for seed in range(seeds)]
    values = [solution.conditions for solution in found]
    problem = make_problem(model.encode(model.given(image)), model)
    bank = problem.draw(draws, torch.Generator().manual_seed(JUDGED))
    with torch.no_grad():
        errors = [problem.errors(one[None], bank)[0] for one in [true, *values]]
    nats = [float(problem.posterior.nats(each.double()).mean()) for each in errors]
    readings = []
    for solution, worth in zip(found, nats[1:], strict=True):
        record = solution.record()
        readings.append(
            {
                "values": solution.conditions.tolist(),
                "nats": worth - nats[0],
                "rows": solution.rows,
                "p_value": record["p_value"],
                "typicality": record["typicality"],
                "sure": record.get("sure"),
                "posterior": posterior(solution, problem),
                "certainty": None if solution.certainty is None else solution.certainty.tolist(),
                "gains": None if solution.component_gain is None else solution.component_gain.tolist(),
                "residual": list(solution.trace.get("residual", ())),
                "difference": solution.difference,
                "difference_stderr": solution.difference_stderr,
                **score(solution.conditions, true),
            }
        )
    return {"true": true.tolist(), "readings": readings, "same": same(values)}


def score(found: Tensor, true: Tensor) -> dict[str, Any]:
    """How many objects are found, how many of these have all words right, and whether the count is right."""
    pairs = matched(found, true)
    near = [(i, j) for i, j in pairs if float((found[i, :2] - true[j, :2]).square().sum() / 2) < FOUND]
    words = sum(bool((found[i, 2:] == true[j, 2:]).all()) for i, j in near)
    return {"found": len(near), "words": words, "count_right": len(found) == len(true)}


def matched(found: Tensor, true: Tensor) -> list[tuple[int, int]]:
    """Pairs of objects, nearest to each other in all."""
    if not len(found) or not len(true):
        return []
    return list(zip(*linear_sum_assignment(torch.cdist(found[:, :2], true[:, :2]).cpu().numpy()), strict=True))


def same(answers: Sequence[Tensor]) -> bool:
    """Whether all answers have the same count and words."""
    first = answers[0]
    for other in answers[1:]:
        if len(other) != len(first):
            return False
        if not all(bool((first[i, 2:] == other[j, 2:]).all()) for i, j in matched(first, other)):
            return False
    return True


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The table of all images."""
    readings = answers_of(lines)
    total = sum(len(line["true"]) * len(line["readings"]) for line in lines)
    significant = [hit for each, hit in readings if each["p_value"] is not None and each["p_value"] < 0.01]
    sure = judged(lines)
    found = {
        "images": len(lines),
        "same": sum(line["same"] for line in lines) / len(lines),
        "search_failed": sum(each["nats"] > NATS for each, _ in readings) / len(readings),
        "count_right": sum(each["count_right"] for each, _ in readings) / len(readings),
        "found": sum(each["found"] for each, _ in readings) / total,
        "words": sum(each["words"] for each, _ in readings) / total,
        "all_right": sum(hit for _, hit in readings) / len(readings),
        "p_below_0.01": len(significant),
        "wrong_of_p_below_0.01": significant.count(False) / max(1, len(significant)),
        "nfe": sum(each["rows"] for each, _ in readings) / len(readings),
    }
    order = sorted(each["rows"] for each, _ in readings)
    found["nfe_easy_half"] = sum(order[: len(order) // 2]) / max(1, len(order) // 2)
    if sure:
        found["sure_calibration_error"] = calibration(sure)
        found["sure_calibration_error_by_chance"] = by_chance(lines)
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in found.items()}
    return rounded | verdicts(sure)


def verdicts(pairs: Sequence[tuple[float, bool]]) -> dict[str, tuple[int, float]]:
    """How many answers have a verdict, and the share of these that is right, by the verdict."""
    by_word: dict[str, list[bool]] = {}
    for sure, hit in sorted(pairs, reverse=True):
        by_word.setdefault(verdict_of(sure), []).append(hit)
    return {word: (len(hits), round(sum(hits) / len(hits), 3)) for word, hits in by_word.items()}


def right(reading: Mapping[str, Any], count: int) -> bool:
    """Whether the whole answer is right."""
    return bool(reading["count_right"]) and reading["found"] == count and reading["words"] == count


def calibration(pairs: Sequence[tuple[float, bool]]) -> float:
    """The mean distance of how sure answers are to the share that is right, in five parts of equally many answers."""
    told, hits = zip(*pairs, strict=True)
    return calibration_error(torch.tensor(told), torch.tensor(hits))


def by_chance(lines: Sequence[Mapping[str, Any]], times: int = 200) -> float:
    """The mean calibration error of answers that are right just as often as they say: it falls with their number only.

    The answers of an image are right or wrong together.
    """
    generator = torch.Generator().manual_seed(0)
    errors = []
    for _ in range(times):
        chances = torch.rand(len(lines), generator=generator).tolist()
        told = [(pair[0], chance) for line, chance in zip(lines, chances, strict=True) for pair in judged([line])]
        errors.append(calibration([(sure, chance < sure) for sure, chance in told]))
    return sum(errors) / times


def answers_of(lines: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], bool]]:
    """All answers, and whether each is right."""
    return [(each, right(each, len(line["true"]))) for line in lines for each in line["readings"]]


def judged(lines: Sequence[Mapping[str, Any]]) -> list[tuple[float, bool]]:
    """How sure each answer is that says so, and whether it is right."""
    return [(each["sure"], hit) for each, hit in answers_of(lines) if each["sure"] is not None]


def fitted(lines: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The weights (a, b) of sigmoid(a + b logit(posterior)) under which the answers are likeliest (Platt, 1999)."""
    readings = answers_of(lines)
    return fit_sure([each["posterior"] for each, _ in readings], [hit for _, hit in readings])


def rescaled(lines: Sequence[Mapping[str, Any]], weights: tuple[float, float]) -> list[dict[str, Any]]:
    """The answers as a model with these weights would give them."""
    found = []
    for line in lines:
        sure = [scaled(each["posterior"], weights) for each in line["readings"]]
        readings = [{**each, "sure": said} for each, said in zip(line["readings"], sure, strict=True)]
        found.append({**line, "readings": readings})
    return found


def error_of_halves(lines: Sequence[Mapping[str, Any]], times: int = 20) -> float:
    """The mean calibration error of images by the weights that the other half of the images has."""
    generator = torch.Generator().manual_seed(0)
    errors = []
    for _ in range(times):
        order = torch.randperm(len(lines), generator=generator).tolist()
        first, second = [lines[k] for k in order[::2]], [lines[k] for k in order[1::2]]
        errors.append(calibration(judged(rescaled(first, fitted(second)) + rescaled(second, fitted(first)))))
    return sum(errors) / times


def by_other_files(files: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """What answers are worth whose weights are those of the other files; nothing of a single file."""
    if len(files) < 2:
        return {}
    answers = []
    for own in files:
        others = [line for file in files if file is not own for line in file]
        answers.append(rescaled(own, fitted(others)))
    found = summary([line for file in answers for line in file])
    return {
        "error_of_files": [round(calibration(judged(file)), 3) for file in answers],
        "error_of_all": found["sure_calibration_error"],
        **{name: found[name] for name in ("p_below_0.01", "wrong_of_p_below_0.01")},
    }


def draw(files: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, bins: int = 5) -> None:
    """The share of right answers beside how sure they are, in parts of equally many answers, with 95 % intervals."""
    figure = Figure(figsize=(4.2, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, lines in files.items():
        pairs = sorted(judged(lines))
        parts = [pairs[len(pairs) * k // bins : len(pairs) * (k + 1) // bins] for k in range(bins)]
        told = [sum(sure for sure, _ in part) / len(part) for part in parts]
        hits = [sum(hit for _, hit in part) for part in parts]
        shares = [hit / len(part) for hit, part in zip(hits, parts, strict=True)]
        limits = [binomtest(hit, len(part)).proportion_ci() for hit, part in zip(hits, parts, strict=True)]
        below = [share - limit.low for share, limit in zip(shares, limits, strict=True)]
        above = [limit.high - share for share, limit in zip(shares, limits, strict=True)]
        axes.errorbar(told, shares, yerr=[below, above], marker="o", capsize=3, label=f"{name}, {len(pairs)} answers")
    axes.set(xlabel="how sure the answers are", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    figure.legend(loc="outside upper center", frameon=False)
    figure.savefig(path, dpi=160)


if __name__ == "__main__":
    main()
