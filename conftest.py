"""What tests of commands share: a tiny model, images, and the command line in an empty folder.

Fixtures import what they need: the process that hands the tests out to others needs no torch.
"""

import gc
import json
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from energycomp.plugins import registry

Run = Callable[..., tuple[int, str, str]]
# Files that take ten seconds or more. They come first, so that no worker is alone with one of them at the end.
LONG = {
    "test_attributes", "test_browser", "test_cluster", "test_contract", "test_evaluate_command", "test_examples",
    "test_many_images", "test_moves", "test_notebooks", "test_objects_weights", "test_pages",
    "test_reader", "test_reliability", "test_sampling", "test_site", "test_weights",
}  # fmt: skip


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """What is imported and collected stays: the garbage collector need not go through its million objects again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(autouse=True, scope="module")
def registered() -> Generator[None, Any, Any]:
    """What a module registers is unknown to the next one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_own", {kind: dict(known) for kind, known in registry._own.items()})
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Of torch, so that sums have one order and small tensors no overhead."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no launcher of several processes had started the tests."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def stripes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The names by which a saved model of stripes is rebuilt, with the decomposer of its network, or of the lab."""
    from energycomp.testing import StripesEncoder
    from energycomp.testing.models import Stripes
    from energycomp_lab.checks.painter import StripesPainter

    monkeypatch.setattr(registry, "_own", {})
    registry.register("networks", "stripes", Stripes)
    registry.register("encoders", "stripes", StripesEncoder)
    registry.register("decomposers", "painter", lambda _: StripesPainter())
    yield
    registry.reload()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from energycomp.models import save_pretrained
    from energycomp.testing import tiny_model

    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_pretrained(tiny_model(solver="pursuit", num_inference_steps=3), folder)
    return folder


@pytest.fixture
def rewrite() -> Callable[..., None]:
    """Changes the config and the tensors of a saved model, and gives it an honest manifest."""
    from energycomp.files import atomic_directory, read_tensors, write_tensors

    def change(folder: Path, edit: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
        config = json.loads((folder / "config.json").read_text())
        tensors = read_tensors(folder / "model.safetensors")
        edit(config, tensors)
        with atomic_directory(folder) as temporary:
            (temporary / "config.json").write_text(json.dumps(config))
            write_tensors(temporary / "model.safetensors", tensors)

    return change


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from energycomp_datasets.clevr.layout import write

    folder = tmp_path_factory.mktemp("data") / "scenes"
    write(folder, 36, objects=(1, 3), size=(16, 16))
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs the command line in an empty folder: exit code, stdout and stderr."""
    import energycomp_cli

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["energycomp", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            energycomp_cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def answer(run: Run) -> Callable[..., Any]:
    """The last JSON that a command prints, which succeeds."""

    def call(*arguments: object) -> Any:
        code, out, err = run(*arguments, "--json")
        if code:
            pytest.fail(err)
        return json.loads(out[out.rfind("\n{") + 1 :])

    return call


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two folders that hold a picture of the same name, and one more."""
    from PIL import Image

    for number, name in enumerate(["a/one.png", "a/two.jpg", "b/one.png"]):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 16), (60 * number, 100, 200)).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def fake_infer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Replaces `infer` by one that finds an object in the middle; returns the list of its calls."""
    import torch

    from energycomp.inference import Solution, view_of

    def replace(*, fail_at: int | None = None, foreign: bool = False) -> list[Any]:
        calls: list[Any] = []

        def infer(image: Any, model: Any, **_options: Any) -> Solution:
            calls.append(image)
            if len(calls) == fail_at:
                raise KeyboardInterrupt
            found, rival = torch.tensor([[0.5, 0.25]]), torch.zeros(0, 2)
            return Solution(
                found,
                1,
                error=1.0,
                stderr=float("inf"),
                rows=10,
                runner_up=rival,
                p_value=0.01,
                component_gain=torch.tensor([2.5]),
                fit=0.75,
                typicality=0.001 if foreign else None,
                view=view_of(model, found, runner_up=rival),
            )

        monkeypatch.setattr("energycomp.inference.infer", infer)
        return calls

    return replace
