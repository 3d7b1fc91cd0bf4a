"""Files and folders appear whole or not at all, and damage is named."""

import errno
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch

from energycomp.errors import CheckpointError, HubError
from energycomp.files import atomic_directory, atomic_file, read_tensors, remove_stale, write_tensors
from energycomp.manifest import verify


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


WEIGHTS = "parts/weights.bin"


def fill(folder: Path) -> None:
    (folder / "parts").mkdir()
    (folder / "config.json").write_text("{}")
    (folder / WEIGHTS).write_bytes(bytes(100))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As on a full disk, writes beyond `size` bytes fail half-way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    with atomic_directory(tmp_path / "model") as folder:
        fill(folder)
    return tmp_path / "model"


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing file": (lambda model: (model / "config.json").unlink(), "missing file config.json"),
    "an edit": (
        lambda model: (model / "config.json").write_text('{"edited": 1}'),
        "holds an edited config.json.*undo the edit",
    ),
    "no JSON": (lambda model: (model / "config.json").write_text('{"cut'), "is damaged: config.json has 5 bytes"),
    "an extra file": (lambda model: (model / "parts" / "new").touch(), "extra file parts/new"),
    "another size": (lambda model: (model / WEIGHTS).write_bytes(bytes(99)), "parts/weights.bin has 99 bytes"),
    "other bytes": (lambda model: (model / WEIGHTS).write_bytes(b"1" * 100), "parts/weights.bin is altered"),
    "half a manifest": (lambda model: (model / "manifest.json").write_text("{"), "manifest.json cannot be read"),
    "a list as manifest": (lambda model: (model / "manifest.json").write_text("[]"), "manifest.json holds list"),
    "a manifest without sums": (
        lambda model: (model / "manifest.json").write_text(f'{{"config.json": 1, "{WEIGHTS}": {{}}}}'),
        "lacks the size or sha256",
    ),
    "no manifest": (lambda model: (model / "manifest.json").unlink(), "manifest.json cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(model: Path, damage: str) -> None:
    harm, message = DAMAGES[damage]
    harm(model)
    with pytest.raises(CheckpointError, match=message):
        verify(model)


def test_a_folder_is_replaced_whole(model: Path) -> None:
    verify(model)
    assert names(model.parent) == ["model"]
    with atomic_directory(model) as folder:
        (folder / "new.json").write_text("[]")
        assert names(model) == ["config.json", "manifest.json", "parts"]
    verify(model)
    assert names(model) == ["manifest.json", "new.json"]
    assert names(model.parent) == ["model"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_error_leaves_what_was_there(model: Path, error: type[BaseException]) -> None:
    def fill_half(folder: Path) -> None:
        (folder / "half").touch()
        raise error

    def write_half(file: Path) -> None:
        file.write_text("half")
        raise error

    expected = CheckpointError if error is OSError else error
    with pytest.raises(expected), atomic_directory(model) as folder:
        fill_half(folder)
    with pytest.raises(expected), atomic_file(model / "config.json") as file:
        write_half(file)
    verify(model)
    assert names(model.parent) == ["model"]


def test_a_failed_rename_puts_the_old_folder_back(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if ".tmp-" in path.name and target == model:
            raise OSError(errno.EIO, "broken disk")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(CheckpointError, match="broken disk"), atomic_directory(model) as folder:
        (folder / "new").touch()
    verify(model)
    assert names(model.parent) == ["model"]


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    with largest_file(1000):
        with pytest.raises(CheckpointError, match="Cannot write"), atomic_directory(tmp_path / "model") as folder:
            write_tensors(folder / "weights.safetensors", {"weight": torch.zeros(10_000)})
        with pytest.raises(CheckpointError, match="free space"), atomic_file(tmp_path / "file") as file:
            file.write_bytes(bytes(10_000))
    assert names(tmp_path) == []


@pytest.mark.parametrize("write", [atomic_file, atomic_directory])
def test_a_target_that_cannot_be_written(tmp_path: Path, write: Callable[[Path], AbstractContextManager[Path]]) -> None:
    (tmp_path / "file").touch()
    for parent in (tmp_path / "absent", tmp_path / "file", Path("/proc")):
        with pytest.raises(CheckpointError, match="Cannot write"), write(parent / "target"):
            pytest.fail("the block must not start")
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match="Permission denied"), atomic_directory(tmp_path / "model"):
        pytest.fail("the block must not start")


def exit_code(run: Callable[..., object], *arguments: object) -> int | None:
    """Of a process that is a copy of this one, and runs a function."""
    process = multiprocessing.get_context("fork").Process(target=run, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def killed_while_writing(out: Path) -> None:
    with atomic_file(out / "log") as file, atomic_directory(out / "model") as folder:
        file.write_text("half")
        (folder / "half").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def killed_by_the_system(out: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # so that the write beyond the limit kills the process
    with atomic_file(out / "a.safetensors") as file:
        write_tensors(file, {"weight": torch.zeros(10_000)})


@pytest.mark.parametrize(
    ("killed", "code"), [(killed_while_writing, signal.SIGKILL), (killed_by_the_system, signal.SIGXFSZ)]
)
def test_stale_names_of_a_killed_process_go(model: Path, killed: Callable[[Path], None], code: int) -> None:
    """Also what safetensors has half written."""
    out = model.parent
    assert exit_code(killed, out) == -code
    assert len(list(out.rglob(".*tmp*"))) >= 1
    verify(model)
    assert len(remove_stale(out)) == 2
    assert names(out) == ["model"]
    verify(model)


def replaced(out: Path, moment: str, nth: int) -> None:
    """Replaces a model, and is killed after so many file operations of a kind."""
    calls = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal calls
        if event == moment and str(out) in str(arguments[0]):
            calls += 1
            if calls > nth:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    with atomic_directory(out / "model") as folder:
        (folder / "new.json").write_text("[]")


@pytest.mark.parametrize("moment", ["os.rename", "os.mkdir", "open", "shutil.rmtree"])
def test_a_folder_is_old_or_new_wherever_its_replacement_is_killed(model: Path, moment: str) -> None:
    """Killed at each file operation of a kind in turn, until the replacement gets through."""
    out, nth, done = model.parent, 0, False
    while not done:
        done, nth = exit_code(replaced, out, moment, nth) == 0, nth + 1
        remove_stale(out)
        assert names(out) == ["model"]
        verify(model)
        assert names(model) in (["config.json", "manifest.json", "parts"], ["manifest.json", "new.json"])
    assert nth > 1
    assert names(model) == ["manifest.json", "new.json"]


def test_a_folder_moved_aside_comes_back_or_goes(model: Path) -> None:
    aside = model.parent / ".model.old-0123456789abcdef"
    model.rename(aside)
    remove_stale(model.parent)
    verify(model)
    aside.mkdir()
    remove_stale(model.parent)
    assert names(model.parent) == ["model"]


def test_tensors_of_any_layout_come_back(tmp_path: Path) -> None:
    weight = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    tensors = {"weight": weight, "tied": weight, "view": weight[:, :2].mT, "step": torch.tensor(3.0)}
    write_tensors(tmp_path / "a.safetensors", tensors)
    read = read_tensors(tmp_path / "a.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
def test_weights_have_the_mode_of_other_files(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_tensors(tmp_path / "new.safetensors", {"w": torch.zeros(2)})
        (tmp_path / "kept.safetensors").touch()
        (tmp_path / "kept.safetensors").chmod(0o640)
        write_tensors(tmp_path / "kept.safetensors", {"w": torch.zeros(2)})
    finally:
        os.umask(old)
    modes = {path.stem: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"new": 0o644, "kept": 0o640}


def test_a_name_as_long_as_a_name_can_be(tmp_path: Path) -> None:
    with atomic_file(tmp_path / f"{'é' * 125}.png") as temporary:
        temporary.write_bytes(b"whole")
    assert [len(file.name.encode()) for file in tmp_path.iterdir()] == [254]


@pytest.mark.parametrize("error", [BrokenPipeError("the reader has ended"), HubError("refused")])
def test_errors_of_the_block_that_are_no_errors_of_the_file_stay(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)), atomic_file(tmp_path / "answers.csv"):
        raise error
