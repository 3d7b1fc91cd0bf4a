"""How well a model in training reads the photos that were kept back: while it learns, and at its end."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
import typer
from torch import Tensor, nn

from energycomp.files import atomic_file, fingerprint
from energycomp.models import Calibration, Model, calibration_of, log_errors, plain_card
from energycomp_lab.evaluation import fit_sure, join_counts
from energycomp_lab.evaluation.calibrate import LEAST
from energycomp_lab.training import Finished
from energycomp_objects.conditioner import Objects
from energycomp_objects.photos import TrainingPhotos, split
from energycomp_objects.plan import Plan
from energycomp_objects.score import ReadPhoto, average_precision, fit_held_out, read_photos, score, set_odds

EVALUATED = 16  # photos, of those that were kept back, that are read while a model learns
LISTED = 12  # photos whose marks may be wrong
UNLIKELY = 0.01  # the least probability of what was marked, in a disagreement
SCORES = "scores.json"
DISAGREEMENTS = "disagreements.json"
MEANINGS = {  # of the scores that the card has
    "recall": "marked objects that were found",
    "precision": "objects that are marked",
    "all_attributes": "found objects whose words are right",
    "count_exact": "photos whose count is right",
    "count_error": "mean error of the count",
    "count_in_90": "photos whose count is in its 90 % interval",
    "calibration_error": "mean error of the probability of an object",
    "average_precision": "area under precision over recall",
}


@attrs.frozen(eq=False)
class PhotoValidation:
    """Reads the photos that were kept back.

    Args:
        model: which is trained.
        plan: of its photos.
        names_photos: whether photos are listed whose marks may be wrong.
    """

    model: Model
    photos: TrainingPhotos
    plan: Plan
    names_photos: bool = True

    def measure(self, module: nn.Module, step: int) -> float:
        """The average precision on a few of the photos, for `energycomp_lab.training.Validation`."""
        assert module is self.model.denoiser.network  # noqa: S101 - the recipe trains it in place
        held = self.photos.held
        few = split(held, EVALUATED)[1] if len(held) > EVALUATED else held
        answers = read_photos(self.model, few, show=False)
        value = average_precision(answers)
        typer.echo(f"step {step:,}: {_summarize({**score(self.model, answers), 'average_precision': value})}")
        return value

    def finish(self, out: Path) -> Finished:
        """Fits the odds, scores the model, names photos whose marks may be wrong; the model card, and the calibration.

        A run that has ended before finds all of this in its folder.
        """
        if not self.photos.held:
            typer.echo("no photo was kept back: how likely an object is was not fitted, see --option kept")
            return Finished({"README.md": self.card({})})
        record = self._read_record(out / SCORES)
        if record is None:
            answers = fit_held_out(self.model, self.photos.held)
            scores = {**score(self.model, answers), "average_precision": average_precision(answers)}
            network: Any = self.model.denoiser.network
            fitted = {"odds": network.odds, "spread": network.spread}
            fitted |= {"errors": left_errors(answers), "answers": judged_answers(answers)}
            record = {"key": self._key(), "photos": len(self.photos.train), **fitted, "scores": scores}
            _write(out / DISAGREEMENTS, find_disagreements(self.model, answers))
            _write(out / SCORES, record)
        set_odds(self.model, record["odds"], record["spread"])
        typer.echo(f"{self.photos.source}: {_summarize(record['scores'])}")
        lines = json.loads((out / DISAGREEMENTS).read_text(encoding="utf-8"))
        if lines and self.names_photos:
            typer.echo(f"These photos may be marked wrongly ({out / DISAGREEMENTS}):")
            for one in lines:
                typer.echo(f"  {describe_disagreement(one)}")
        calibration = calibrate_answers(record.get("errors", ()), record.get("answers", ()))
        return Finished({"README.md": self.card(record["scores"])}, calibration)

    def _key(self) -> str:
        """What the scores of a run depend on: the weights, and the photos that were read."""
        shown = repr([(photo.path.name, photo.size, photo.marks) for photo in self.photos.held])
        weights = fingerprint(self.model.denoiser.network.state_dict())
        return f"{weights}-{hashlib.sha256(shown.encode()).hexdigest()[:16]}"

    def _read_record(self, file: Path) -> dict[str, Any] | None:
        if not file.is_file() or not file.with_name(DISAGREEMENTS).is_file():
            return None
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return record if record.get("key") == self._key() else None

    def card(self, scores: Mapping[str, float], curve: str = "") -> str:
        """The model card: photos, scores, and what a learning curve says."""
        plan = self.plan
        kinds = [
            f"{name}: {', '.join(f'{word} {n:,}' for word, n in words.items())}" for name, words in plan.kinds.items()
        ]
        lines = [
            "## Photos",
            f"It learned from {plan.photos:,} photos with {plan.objects:,} marked objects. {'. '.join(kinds)}.",
            "<!-- Say here who took and marked the photos, their licence, and what the model is not for. -->",
            "It knows photos like these: of another camera, or of other things, its answers may be wrong.",
        ]
        if scores:
            table = [f"| {meaning} | {scores[name]:.3f} |" for name, meaning in MEANINGS.items()]
            how = "They chose the weights, and on each half of them the odds were fitted with which the other was read."
            results = [
                "## Results",
                f"On {self.photos.source}. {how}",
                "\n".join(["| measure | value |", "| --- | --- |", *table]),
            ]
        else:
            results = [
                "## Results",
                "No photo was kept back: nothing was measured, and probabilities are not calibrated.",
            ]
        return plain_card(self.model, body="\n\n".join(lines), results="\n\n".join([*results, *filter(None, [curve])]))


def left_errors(answers: Sequence[ReadPhoto]) -> list[tuple[int, list[float]]]:
    """The count of each answer, and the `log_errors` of what it leaves unexplained."""
    forms = [(one.solution.count, one.solution.form) for one in answers]
    return [(count, log_errors(form.explained()[0]).tolist()) for count, form in forms if form is not None]


def judged_answers(answers: Sequence[ReadPhoto]) -> list[tuple[float, bool]]:
    """The posterior of each answer, and whether it is right."""
    known = [(one.solution.answer_posterior, one.is_all_right) for one in answers]
    return [(posterior, is_right) for posterior, is_right in known if posterior is not None]


def calibrate_answers(
    errors: Sequence[tuple[int, Sequence[float]]], answers: Sequence[tuple[float, bool]] = ()
) -> Calibration | None:
    """What tells photos of another kind by the errors of answers, and how sure an answer is; None for too few photos.

    Args:
        errors: counts and `log_errors` of answers.
        answers: the posterior of each, and whether it is right.
    """
    if len(errors) < LEAST:
        return None
    found: dict[int, list[Tensor]] = {}
    for count, each in errors:
        found.setdefault(count, []).append(torch.tensor(each))
    sure = fit_sure(*zip(*answers, strict=True)) if len(answers) >= LEAST else None
    return attrs.evolve(calibration_of(join_counts(found)), sure=sure)


def find_disagreements(model: Model, answers: Sequence[ReadPhoto]) -> list[dict[str, Any]]:
    """The photos whose reading disagrees with their marks most, the most surprising first.

    Surprise is minus the logarithm of the probability that the model gives to what was marked: that an object which it
    reads is none, that a mark which it does not read is one, and that an object has the marked word.
    """
    conditioner = model.conditioner
    assert isinstance(conditioner, Objects)  # noqa: S101 - `read_photos` has checked it
    entries = [_compare(one, conditioner) for one in answers]
    differing = [entry for entry in entries if entry["not_marked"] or entry["not_read"] or entry["other_words"]]
    return sorted(differing, key=lambda entry: -entry["surprise"])[:LISTED]


def _compare(one: ReadPhoto, conditioner: Objects) -> dict[str, Any]:
    solution = one.solution
    length = conditioner.length
    surprise = 0.0
    # Objects without a mark, and marks without an object
    extra = sorted(set(range(solution.count)) - {k for _, k in one.pairs})
    probability = solution.probability
    for k in extra:
        surprise -= math.log(max(UNLIKELY, 1 - float(probability[k] if probability is not None else 1)))
    missed = sorted(set(range(len(one.marked))) - {mark for mark, _ in one.pairs})
    nearest = dict(one.proposals)
    for mark in missed:
        chance = solution.trace["proposed"][nearest[mark]] if mark in nearest else UNLIKELY
        surprise -= math.log(max(UNLIKELY, chance))
    # Objects with another word
    other = []
    for mark, k in one.pairs:
        read, marked = solution.conditions[k], one.marked[mark]
        if (read[length:] == marked[length:]).all():
            continue
        other.append({"read": conditioner.describe(read), "marked": conditioner.describe(marked)})
        for posterior, code in zip(solution.posteriors or (), marked[length:].int().tolist(), strict=False):
            surprise -= math.log(max(UNLIKELY, float(posterior[k, code - 1]))) if code else 0.0
    return {
        "file_name": one.photo.path.name,
        "surprise": round(surprise, 2),
        "read": _count(solution.conditions, conditioner),
        "marked": _count(one.marked, conditioner),
        "not_marked": [conditioner.describe(solution.conditions[k]) for k in extra],
        "not_read": [conditioner.describe(one.marked[mark]) for mark in missed],
        "other_words": other,
    }


def _count(values: Tensor, conditioner: Objects) -> dict[str, int]:
    """How many objects there are of each word of the first attribute."""
    words = next(iter(conditioner.attributes.values()), ())
    codes = values[:, conditioner.length].int().tolist() if words else [0] * len(values)
    counts = Counter(words[code - 1] if code else "object" for code in codes)
    return {word: counts[word] for word in (*words, "object") if counts[word]}


def describe_disagreement(entry: Mapping[str, Any]) -> str:
    """A line of text.

    >>> entry = {"file_name": "a.jpg", "read": {"RBC": 2}, "marked": {}, "not_marked": [1, 2], "not_read": []}
    >>> describe_disagreement({**entry, "other_words": []})
    'a.jpg: read 2 RBC, marked nothing; 2 not marked'
    """
    read, marked = (
        ", ".join(f"{n} {word}" for word, n in entry[name].items()) or "nothing" for name in ("read", "marked")
    )
    named = {"not_marked": "not marked", "not_read": "not read", "other_words": "with another word"}
    differences = [f"{len(entry[name])} {text}" for name, text in named.items() if entry[name]]
    return f"{entry['file_name']}: read {read}, marked {marked}; {', '.join(differences)}"


def _summarize(scores: Mapping[str, float]) -> str:
    return (
        f"found {scores['recall']:.3f} at precision {scores['precision']:.3f}, words {scores['all_attributes']:.3f}, "
        f"count error {scores['count_error']:.2f}, average precision {scores['average_precision']:.3f}"
    )


def _write(file: Path, value: object) -> None:
    with atomic_file(file) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
