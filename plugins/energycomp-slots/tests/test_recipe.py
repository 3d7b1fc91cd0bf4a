"""Training: every phase changes what it should, a run shows how it goes, and what cannot be trained is refused."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from energycomp.errors import InputError
from energycomp.images import strip
from energycomp.models import load_weights, save_pretrained
from energycomp.seeds import torch_seed
from energycomp.testing import stripes_model
from energycomp_datasets.rooms.source import arrow_source
from energycomp_slots.networks import SlotVAE
from energycomp_slots.phases import phases
from energycomp_slots.recipe import _train_only, slots

TINY = {"slots": "3", "width": "8", "channels": "8", "global_width": "4", "global_hidden": "16"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rooms")
    arrow_source().write(path, count=24, seed=0, options="", progress=lambda _: None)
    return path


def recipe(folder: Path | None, init: Any = None, **options: str) -> Any:
    return slots(data=folder, init=init, preset="default", cache=Path(), **options)


def test_a_run_goes_through_all_phases(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energycomp_slots.log.strip", partial(strip, side=16))  # to write them takes half of the time
    made = recipe(folder, **TINY)
    before = {name: tensor.clone() for name, tensor in made.model.trained.state_dict().items()}
    scenes: list[int] = []
    result = made.run(tmp_path, steps=20, sample_every=1, on_sample=lambda _, step: scenes.append(step), progress=False)
    assert result.step == 20
    names = ("trial-0", "trial-1", "inference", "generation", "together", "prior")
    counts = dict(zip(names, (1, 1, 4, 2, 3, 9), strict=True))
    assert all((tmp_path / name / f"checkpoint-{count:06d}.safetensors").is_file() for name, count in counts.items())
    lines = [json.loads(line) for line in (tmp_path / "terms.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines] == [name for name, count in counts.items() for _ in range(count)]
    assert {"reconstruction", "kl_slots", "used"} <= lines[0].keys()
    assert {"kl_matched", "kl_scene", "features"} <= lines[6].keys() & lines[9].keys()
    assert lines[11].keys() == {"step", "phase", "prior"}
    assert scenes == list(range(7, 21))
    assert max(path.name for path in (tmp_path / "samples").iterdir()) == "parts-000020.png"
    load_weights(made.model.trained, result.ema_state, "here")
    changed = {
        name.partition(".")[0]
        for name, tensor in made.model.trained.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert {"stem", "attention", "posterior", "decoder", "enter", "leave", "global_head", "prior"} <= changed
    save_pretrained(made.model, tmp_path / "model")
    again = made.run(tmp_path, steps=20, progress=False)  # every phase is done
    assert all(torch.equal(tensor, result.ema_state[name]) for name, tensor in again.ema_state.items())


def test_a_phase_changes_nothing_else() -> None:
    network = SlotVAE(slots=3, width=8, channels=8, global_width=4, global_hidden=16)
    alone = {"generation": {"enter", "leave", "global_head"}, "prior": {"prior"}}
    for phase in phases(network):
        with _train_only(network, phase.learned):
            moved = {name.partition(".")[0] for name, p in network.named_parameters() if p.requires_grad}
        assert moved == alone[phase.name] if phase.name in alone else {"stem", "decoder", "enter"} <= moved
    assert all(p.requires_grad for p in network.parameters())
    normal = SlotVAE(prior="normal")
    assert [phase.name for phase in phases(normal)] == ["trial-0", "trial-1", "inference", "generation", "together"]


def test_other_ways_to_make_scenes_begin_from_the_slots_of_a_model(folder: Path) -> None:
    with torch_seed(7):
        first = recipe(folder, **TINY).model
        for parameter in first.trained.parameters():
            torch.nn.init.normal_(parameter)
    made = recipe(folder, init=first, slots_from="mlp")
    old, new = first.trained.state_dict(), made.model.trained.state_dict()
    assert torch.equal(old["decoder.layers.0.weight"], new["decoder.layers.0.weight"])
    assert torch.equal(old["attention.mean"], new["attention.mean"])
    assert not torch.equal(old["leave.enter.0.weight"], new["leave.enter.0.weight"])
    assert "own.0.weight" in new
    assert recipe(folder, init=first).model is first
    for options in ({"width": "16"}, {"plain": "yes"}):
        with pytest.raises(InputError, match="how scenes are made"):
            recipe(folder, init=first, **options)


def test_another_prior_leaves_the_rest_as_it_is(folder: Path, tmp_path: Path) -> None:
    first = recipe(folder, **TINY).model
    made = recipe(folder, init=first, prior_hidden="24")
    made.run(tmp_path, steps=2, progress=False)
    old, new = first.trained.state_dict(), made.model.trained.state_dict()
    changed = {name.partition(".")[0] for name in old if old[name].shape != new[name].shape}
    assert changed == {"prior"}
    assert all(torch.equal(old[name], new[name]) for name in old if not name.startswith("prior."))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != "samples"] == ["prior"]
    with pytest.raises(InputError, match="no diffusion prior"):
        recipe(folder, init=recipe(folder, **TINY, prior="normal").model, prior_hidden="24")


def test_what_cannot_be_trained_is_refused(folder: Path, tmp_path: Path) -> None:
    for attempt, message in (
        (lambda: recipe(folder, init=stripes_model()), "no slots"),
        (lambda: recipe(None, world="moon"), "world"),
        (lambda: recipe(folder, colour="red"), "option"),
        (lambda: recipe(tmp_path), "without images"),
    ):
        with pytest.raises(InputError, match=message):
            attempt()


def test_a_folder_of_one_image_trains(tmp_path: Path) -> None:
    arrow_source().write(tmp_path / "one", count=1, seed=0, options="", progress=lambda _: None)
    made = recipe(tmp_path / "one", **TINY)
    result = made.run(tmp_path / "run", steps=10, sample_every=10, progress=False)
    assert all(tensor.isfinite().all() for tensor in result.ema_state.values())
