"""The command line with models of text: what it answers, and what it refuses in one line."""

import shlex
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
import huggingface_hub
import numpy as np
import pytest
from PIL import Image

import energycomp
from energycomp.models import Model, save_pretrained
from energycomp.seeds import seeded
from energycomp.testing import tiny_model
from energycomp_text import with_concepts
from energycomp_text.model import small
from energycomp_text.testing import TINY

Run = Callable[..., tuple[int, str, str]]
PETS = "cat,dog,rabbit"
LOADED: dict[tuple[Any, ...], Model] = {}


@pytest.fixture(scope="module")
def quick(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pipeline as a model that reads with few draws."""
    made = tmp_path_factory.mktemp("models") / "quick"
    save_pretrained(with_draws(energycomp.load(folder), 3), made)
    return made


def with_draws(model: Model, draws: int) -> Model:
    return attrs.evolve(model, defaults=attrs.evolve(model.defaults, draws=draws, num_inference_steps=2))


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registered model with random weights, few draws and few steps."""
    monkeypatch.setattr("energycomp_text.model.text", lambda **_: with_draws(small(), 2))


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line in an empty folder, for which models are read once for all tests."""
    monkeypatch.setattr(import_module("energycomp.inference.judge"), "FIT_DRAWS", 2)
    load = energycomp.load

    def read_once(source: str, **options: Any) -> Model:
        key = (source, *sorted(options.items()))
        if Path(options.get("model", source)).is_absolute():
            return LOADED.get(key) or LOADED.setdefault(key, load(source, **options))
        return load(source, **options)

    monkeypatch.setattr("energycomp.models.load", read_once)

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(40, 48, 3), dtype=np.uint8)).save(file)
    return file


def line(err: str) -> str:
    """The one line of an error; what is loaded, and bars of libraries that read files, come before it."""
    lines = [text for text in err.replace("\r", "\n").splitlines() if text.startswith("energycomp: ")]
    lines = [text for text in lines if not text.startswith("energycomp: loading ")]
    assert len(lines) == 1
    assert err.rstrip().endswith(lines[0])
    return lines[0]


def test_infer_agrees_with_the_function(answer: Any, quick: Path, photo: Path) -> None:
    options = ["--option", f"model={quick}", "--option", f"concepts={PETS}"]
    record = answer("infer", "text", photo, *options, "--count", 2, "--seed", 3, "-o", "out")
    model = with_concepts(energycomp.load(quick), PETS.split(","))
    expected = energycomp.infer(photo, model, count=2, generator=seeded(3))
    named = [model.conditioner.describe(value)["concept"] for value in expected.conditions]
    assert [entry["concept"] for entry in record["objects"]] == named
    assert (record["count"], record["rows"]) == (2, expected.rows)
    assert (record["error"], record["p_value"]) == pytest.approx((expected.error, expected.p_value))
    assert {"concept"} <= record["runner_up"][0].keys()
    assert record["settings"]["options"]["model"] == str(quick)


def test_answers_to_other_questions_are_not_mixed(run: Run, answer: Any, quick: Path, photo: Path) -> None:
    def asked(concepts: str, template: str, out: str) -> list[object]:
        options = ["--option", f"concepts={concepts}", "--option", f"template={template}"]
        return ["infer", quick, photo, *options, "--count", 1, "-o", out]

    first, again = (answer(*asked(PETS, "a {}", "one")) for _ in range(2))
    assert first == again
    for concepts, template, out in (("cat,dog", "a {}", "two"), (PETS, "the {}", "three")):
        other = answer(*asked(concepts, template, out))
        assert other["settings"]["conditioner"]["concepts"] == concepts.split(",")
    code, said, err = run(*asked(PETS, "the {}", "one"), "--json")
    assert (code, said) == (2, "")
    assert "got -o one, which holds answers with options" in err


def test_the_small_model_reads_samples_and_is_evaluated(run: Run, answer: Any, words: None, photo: Path) -> None:
    record = answer("infer", "text", photo, "--option", "concepts=red cube,blue sphere", "--count", "1-2")
    assert {entry["concept"] for entry in record["objects"]} <= {"red cube", "blue sphere"}
    code, out, _ = run("sample", "text", "a red cube", "a blue sphere", "--not", "green", "-n", 2, "-o", "both.png")
    said = "-2 u + 3 text(a red cube) + 3 text(a blue sphere) - 3 text(green)"
    assert (code, out.splitlines()) == (0, [said, "16 network evaluations", "both-1.png", "both-2.png"])
    report = answer("evaluate", "text", "-n", 1, "--count", "true")
    assert (report["images"], report["data"], report["solver"]) == (1, "synthetic", "Enumerate")
    assert report["rows_per_image"] >= 2 * 13


@pytest.mark.parametrize(
    ("arguments", "composition"),
    [
        (["a cat"], "-6.5 u + 7.5 text(a cat)"),
        (["a cat", "a dog"], "-14 u + 7.5 text(a cat) + 7.5 text(a dog)"),
        (["a cat", "--not", "rain"], "u + 7.5 text(a cat) - 7.5 text(rain)"),
        (["a cat * 2", "a dog * 3"], "-4 u + 2 text(a cat) + 3 text(a dog)"),
        (["a cat * 1"], "text(a cat)"),
        (["a cat*2", "--not", "a dog * 3"], "2 u + 2 text(a cat) - 3 text(a dog)"),
        (["--not", "rain"], "8.5 u - 7.5 text(rain)"),
        ([], "u"),
    ],
    ids=str,
)
def test_sample_composes_prompts(answer: Any, quick: Path, arguments: list[Any], composition: str) -> None:
    assert answer("sample", quick, *arguments, "--raw", "-o", "made.png")["composition"] == composition
    with Image.open("made.png") as image:
        assert image.size == (32, 32)


@pytest.mark.parametrize("name", ["sdxl", "flux"])  # with a UNet, and with a transformer
def test_sample_infer_and_rank_with_other_families(run: Run, answer: Any, name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    TINY[name]().save_pretrained(folder)
    given = ["--option", "image_size=32"] + ([] if name == "sdxl" else ["--option", "max_sequence_length=32"])
    both = ["a cat @ left half", "a dog @ right half", *given, "--option", "dtype=bfloat16"]
    code, out, _ = run("sample", folder, *both, "-n", 2, "--steps", 2, "-o", "both.png")
    assert (code, out.splitlines()[-2:]) == (0, ["both-1.png", "both-2.png"])
    scale = energycomp.load(folder, image_size=32).defaults.guidance_scale
    expected = "text(a cat)" if scale == 1 else f"-{scale - 1:g} u + {scale:g} text(a cat)"
    assert answer("sample", folder, "a cat", *given, "--steps", 2, "-o", "one.png")["composition"] == expected
    record = answer("infer", folder, "both-1.png", "--option", "concepts=cat,dog", "--count", 1, *given)
    assert record["objects"][0]["concept"] in ("cat", "dog")
    ranked = ["--component", "a cat", "--component", "a dog", "--draws", 2]
    rows = answer("rank", folder, "both-1.png", "both-2.png", *ranked, *given)["rows"]
    assert rows == 2 * 2 * 3  # images, draws, two prompts and u


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(("cat,dog/1.png", "rabbit/1.png", "rabbit/2.png")):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (80 * number, 100, 200)).save(file)
    return tmp_path / "photos"


def test_evaluate_against_the_answers_of_infer(answer: Any, quick: Path, photos: Path) -> None:
    from energycomp_datasets.solids.source import TextSource
    from energycomp_lab.evaluation import evaluate, true_values

    report = answer("evaluate", quick, "--data", photos, "-n", 200, "--option", "template=the {}")
    assert {"recall", "rows_per_image", "seconds_per_image"} <= report.keys()
    assert report["images"] == 3
    model = with_concepts(energycomp.load(quick), ["cat", "dog", "rabbit"], template="the {}")
    source = TextSource()
    found: list[bool] = []

    def judge(_: int, example: Any, solution: Any) -> None:
        found.append(sorted(solution.conditions.tolist()) == sorted(true_values(example, model.conditioner).tolist()))

    evaluate(model, source.examples(str(photos), count=9, seed=0), source.metrics(), progress=False, on_result=judge)
    assert report["exact_match"] == pytest.approx(sum(found) / 3)


REFUSED = [
    ("infer text photo.png --option model=empty --option concepts=cat", "without model_index.json"),
    ("infer text photo.png --option model={folder}", "--option concepts=cat,dog,rabbit"),
    ("infer {quick} photo.png --option concepts=,", "expected at least one"),
    ("infer {quick} photo.png --option concepts=cat,dog,rabbit --count 4", "expected as many"),
    ("infer {quick} photo.png --option 'template=the {{}}'", "expected at least one"),
    ("infer places photo.png --option concepts=cat", "concepts with tiny, whose components are not said in words"),
    ("infer places photo.png --option 'template=a {{}}'", "template with tiny"),
    ("infer places photo.png --option model=here", "model with places; expected options with a registered model"),
    ("sample places 'a cat'", "got the component 'a cat', which is not a component of tiny"),
    ("evaluate places --source clevr --option concepts=cat", "concepts with tiny"),
    ("evaluate {quick} --data nowhere", "which is not a folder"),
    ("evaluate {quick} --data empty", "without folders of images"),
]


@pytest.mark.parametrize(("command", "expected"), REFUSED)
def test_what_is_refused_in_one_line(
    run: Run, folder: Path, quick: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, command: str, expected: str
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    Path("empty").mkdir()
    save_pretrained(tiny_model(), "places")
    code, _, err = run(*shlex.split(command.format(folder=folder, quick=quick)))
    assert code == 2
    assert expected.format() in line(err)


@pytest.mark.parametrize(
    "command",
    [
        "infer text photo.png --option 'concepts=red cube,rabbit'",
        "sample text 'a red cube' 'a rabbit'",
        "sample text 'a red cube' --not 'a rabbit'",
        "evaluate text --data photos --option concepts=rabbit",
    ],
)
def test_a_word_that_the_small_model_does_not_know(
    run: Run, words: None, photo: Path, photos: Path, command: str
) -> None:
    code, out, err = run(*shlex.split(command))
    assert (code, out) == (2, "")
    assert "'rabbit'" in line(err)
    assert "--option model=" in line(err)
    assert not Path("sample.png").exists()
