"""`energycomp evaluate` on a tiny model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from energycomp.inference import Problem, Solution

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("as_json", [False, True])
def test_evaluate_reports_every_number(run: Run, model: Path, scenes: Path, as_json: bool) -> None:
    arguments = ["--data", f"{scenes}:2-3", "-n", 3, "--source", "clevr", "--count", "true"]
    code, out, _ = run("evaluate", model, *arguments, *(["--json"] if as_json else []))
    assert code == 0
    if not as_json:
        for shown in ("perception rate", "95 % interval", "seconds per image", "3 images", "count accuracy    │ 1"):
            assert shown in out
        return
    report = json.loads(out)
    names = {"perception_rate", "precision", "estimation_error", "count_accuracy"}
    assert names | {"rows_per_image", "seconds_per_image", "images", "intervals"} <= report.keys()
    assert report["intervals"].keys() == names
    assert (report["images"], report["count_accuracy"]) == (3, 1.0)


def test_evaluate_takes_rendered_scenes_and_another_solver(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Middle:
        needs = None

        def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
            return Solution(torch.full((3, 2), 0.5), 3, error=0.0, stderr=0.0, rows=0)

    monkeypatch.setattr("energycomp.plugins.find", finder(solvers={"middle": Middle}))
    arguments = ["--data", "synthetic:3", "-n", 2, "--source", "clevr", "--solver", "middle", "--json"]
    code, out, _ = run("evaluate", model, *arguments)
    assert code == 0
    assert (json.loads(out)["solver"], json.loads(out)["count_accuracy"]) == ("Middle", 1.0)


def finder(**added: dict[str, Any]) -> Callable[[str, str], Any]:
    from energycomp.plugins import find

    return lambda kind, name: added.get(kind, {}).get(name) or find(kind, name)  # type: ignore[arg-type]
