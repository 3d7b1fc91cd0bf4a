"""Adopt small networks wrongly, and see whether `check_adoption` catches the mistake, names it, and what it proposes.

python benchmarks/adoption/mistakes.py [--models table] [--names ""] [--seed 0] [--runs runs/adoption]
    [--rows 64,256,1000] [--evaluations 1000] [--training 0] [-o FILE]

The networks are trained at the first call. The thresholds of the check were fixed on those of `--models repaired`, and
once, on seeing the figures, on those of `table` and `development`; those of `blind` have other architectures and
data. A right adoption is checked on held-out samples and on several numbers of all. A mistake in the data, the weights
or the call that no option undoes is named by "none of them is right: data, weights or call="; another option that is
proposed and is not the right one is a wrong cure. "One of several" is a mistake that is named beside others which the
samples cannot tell from it; none of them is applied then.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import attrs
import torch
from torch import Tensor
from tqdm import tqdm

import energycomp
from benchmarks.adoption.strangers import BLIND, DEVELOPMENT, REPAIRED, TABLE, Stranger
from benchmarks.adoption.wrong import Mistake, mistakes
from benchmarks.common.options import parser
from energycomp_adopt import Adoption, check_adoption
from energycomp_cli import append_line, read_lines


def is_named(found: Adoption, mistake: Mistake) -> bool:
    """Whether a wrong finding, or the better option, says what is wrong and what is right."""
    said = [f"{one.what}: {one.measured}; {one.change}" for one in found.findings if one.verdict == "wrong"]
    if found.near_miss is not None:
        said = [str(found.near_miss)]
    option, *right = mistake.named
    if mistake.order is not None:
        given = None if found.near_miss is None else found.near_miss.labels
        return given is not None and torch.equal(given, mistake.order)
    return any(text.startswith(option) and any(word in text for word in right) for text in said)


def is_among(found: Adoption, mistake: Mistake) -> bool:
    """Whether what is right is one of several options that cannot be told apart, so that none was taken."""
    option, *right = mistake.named
    said = [text for one in found.findings if one.what == "other options" for text in one.measured.split("; or ")]
    return any(text.startswith(option) and any(word in text for word in right) for text in said)


def read(model: energycomp.Model, x: Tensor, y: Tensor) -> float:
    """The share of samples whose label is found."""
    answers = [energycomp.infer(one, model, count=1, progress=False).conditions for one in x]
    return float((torch.cat(answers) == y).double().mean())


def checked(one: Stranger, model: energycomp.Model, x: Tensor, y: Tensor, **options: Any) -> Adoption:
    """With labels where the network has any."""
    return check_adoption(model, x, y if one.options.get("classes") else None, **options)


def outcome(found: Adoption, mistake: Mistake) -> str:
    """missed, named, "one of several" that are named, caught without a name, or with another option: a wrong cure."""
    if found.ok:
        return "missed"
    if is_named(found, mistake):
        return "named"
    if found.near_miss is not None:
        return "wrong cure"
    return "one of several" if is_among(found, mistake) else "caught"


Key = tuple[str, str, int, int, int]  # a network and its adoption, under which seed, evaluations and samples


def key_of(record: dict[str, Any]) -> Key:
    """By which an adoption that was tried before is known."""
    return tuple(record[name] for name in ("network", "adoption", "seed", "evaluations", "training"))  # type: ignore[return-value]


def tried(one: Stranger, options: argparse.Namespace, known: Collection[Key]) -> Iterator[dict[str, Any]]:
    """What the check says of each adoption of a network that is not known yet: right ones first, then each mistake."""
    folder, words = Path(options.runs), options.mistakes.split(",")
    given = {"network": one.name, "seed": options.seed, "evaluations": options.evaluations}
    for seed, of in enumerate([None, *(slice(0, int(n)) for n in options.rows.split(",") if n)]):
        name = "right, held-out samples" if of is None else f"right, {of.stop} samples"
        record = {**given, "adoption": name, "training": 0}
        if key_of(record) not in known:
            model = one.adopted(folder)
            found = checked(one, model, *one.samples(of), evaluations=options.evaluations, seed=seed)
            yield {**record, "outcome": "ok" if found.ok else "accused", **said(found)}
    samples = one.samples(slice(0, options.training) if options.training else None)
    for mistake in mistakes(one):
        record = {**given, "adoption": mistake.name, "training": options.training}
        if key_of(record) not in known and any(word in mistake.name for word in words):
            model = one.adopted(folder, **mistake.options)
            mistake.after(model)
            found = checked(one, model, *mistake.change(*samples), evaluations=options.evaluations)
            yield {**record, "outcome": outcome(found, mistake), **said(found)}


def said(found: Adoption) -> dict[str, Any]:
    """What a check cost, and what it says is wrong."""
    wrong = [f"{f.what}: {f.measured}; {f.change}" for f in found.findings if f.verdict == "wrong"]
    return {"spent": found.evaluations, "wrong": wrong}


def main() -> None:
    """Prints what is not named, the table, then how many are caught, named, cured wrongly and accused."""
    known = {"table": TABLE, "development": DEVELOPMENT, "blind": BLIND, "repaired": REPAIRED}
    parsed = parser(
        __doc__, models=("table", f"one of {', '.join(known)}"), names=("", "only these, with commas between them"),
        seed=(0, "of the training"), mistakes=("", "only those that have one of these words, with commas between them"),
        runs=("runs/adoption", "folder of the networks"),
        rows=("64,256,1000", "of samples of right adoptions"), evaluations=(1000, "of each check"),
        training=(0, "samples of the training that are given instead of held-out ones for each mistake, if not 0"),
        out=(None, "file of JSON lines, one for each adoption, where a run that was stopped goes on"),
    )  # fmt: skip
    options = parsed.parse_args()
    torch.set_num_threads(1)
    records = [] if options.out is None else read_lines(options.out)
    some = options.names.split(",") if options.names else [one.name for one in known[options.models]]
    strangers = [attrs.evolve(one, seed=options.seed) for one in known[options.models] if one.name in some]
    for one in strangers:
        for record in tqdm(tried(one, options, set(map(key_of, records))), desc=one.name):
            records.append(record)
            if options.out is not None:
                append_line(options.out, record)
    summary(records)


def summary(records: Sequence[dict[str, Any]]) -> None:
    """What is not named, the table of outcomes, and how many there are of each."""
    right = [one for one in records if one["adoption"].startswith("right")]
    wrong = [one for one in records if not one["adoption"].startswith("right")]
    for one in records:
        if one["outcome"] not in ("ok", "named"):
            print(f"{one['network']}, {one['adoption']}, {one['outcome']}: {one['wrong']}")
    names = list(dict.fromkeys(one["network"] for one in records))
    table: dict[str, dict[str, str]] = {}
    for one in wrong:
        table.setdefault(one["adoption"], {})[one["network"]] = one["outcome"]
    print(f"| mistake | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}")
    for name, cells in table.items():
        print(f"| {name} | {' | '.join(cells.get(one, '') for one in names)} |")
    counts = Counter(one["outcome"] for one in records)
    print(
        f"{len(wrong)} adoptions with {len(table)} mistakes: {len(wrong) - counts['missed']} caught, "
        f"{counts['named']} named, {counts['one of several']} named as one of several options, "
        f"{counts['wrong cure']} cured wrongly; {counts['accused']} of {len(right)} right ones accused"
    )
    spent = [mean([one["spent"] for one in some] or [0]) for some in (right, wrong)]
    print(f"network evaluations: {spent[0]:,.0f} where right, {spent[1]:,.0f} where wrong, on average")


if __name__ == "__main__":
    main()
