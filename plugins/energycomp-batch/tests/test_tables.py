"""`energycomp batch` on Parquet files and WebDataset archives, and Parquet, CSV and JSON lines as its results."""

import csv
import gc
import io
import json
import re
import sys
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from energycomp.errors import CheckpointError, InputError
from energycomp_batch import places as tables
from energycomp_batch.inputs import Inputs
from energycomp_batch.parts import Parts, parquet_writer, split_unread
from energycomp_cli import Item, identify, image_files

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

Run = Callable[..., tuple[int, str, str]]
Fake = Callable[..., list[Any]]
SUFFIXES = (".parquet", ".tar")
ANSWERS = [(1, 0.95), (1, 0.5), (0, 0.0), (2, 0.99)]  # counts, and how sure they are; the third is no answer


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The builders of datasets keep a lock in their cache."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def files(count: int, *, side: int = 16) -> Iterator[bytes]:
    """Image files of random pixels."""
    draw = np.random.default_rng(0)
    for _ in range(count):
        content = io.BytesIO()
        Image.fromarray(draw.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(content, "PNG")
        yield content.getvalue()


def write(path: Path, contents: Sequence[bytes | None], first: int = 0) -> Path:
    """A table of image files; None is a row without one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        cells = [{"bytes": content, "path": None} for content in contents]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # as Hugging Face Datasets stores images
        parquet.write_table(pa.table({"image": pa.array(cells, kind), "note": [""] * len(cells)}), path)
        return path
    with tarfile.open(path, "w") as archive:
        for number, content in enumerate(contents, start=first):
            for suffix, data in (("png", content), ("json", b'{"note": ""}')):
                if data is not None:
                    member = tarfile.TarInfo(f"sub/{number:04d}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return path


def lines(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_gives_the_answers_of_its_files(run: Run, model: Path, tmp_path: Path, suffix: str) -> None:
    contents = list(files(3))
    table = write(tmp_path / f"shards/a{suffix}", contents)
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.png").write_bytes(content)
    workers = 2 if suffix == ".tar" else 1
    assert run("batch", model, table, "-o", "out", "--count", "0-1", "--workers", workers)[0] == 0
    each = (f"{number}.png" for number in range(3))
    assert run("batch", model, *each, "-o", "each", "--count", "0-1", "--workers", 1)[0] == 0
    rows, alone = ({line["sha256"]: line for line in lines(f"{folder}/results.jsonl")} for folder in ("out", "each"))
    keys = [f"{number}" if suffix == ".parquet" else f"sub/{number:04d}" for number in range(3)]
    assert sorted(line["image"] for line in rows.values()) == [f"{table}#{key}" for key in keys]
    for digest, line in rows.items():
        assert line["objects"] == alone[digest]["objects"]
        marked = Path("out", line["picture"])
        assert marked.parent.name == "a"
        assert marked.read_bytes() == Path("each", alone[digest]["picture"]).read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_bad_row_is_one_line(run: Run, model: Path, tmp_path: Path, fake_infer: Fake, suffix: str) -> None:
    fake_infer()
    good = list(files(3))
    table = write(tmp_path / f"a{suffix}", [good[0], b"no image", good[1], b"", good[2]])
    code, out, err = run("batch", model, table, "--json", "--workers", 1)
    assert code == 1
    assert ["failed" in json.loads(line) for line in out.splitlines()] == [False, True, False, True, False]
    key = "1" if suffix == ".parquet" else "sub/0001"
    assert f"got {table}#{key}, which cannot be decoded" in err
    assert "without an image; expected bytes or a path" in err
    assert "2 of 5 images could not be read" in err


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_damaged_table_does_not_end_the_others(
    run: Run, model: Path, tmp_path: Path, fake_infer: Fake, suffix: str
) -> None:
    calls = fake_infer()
    tables = [write(tmp_path / f"shards/{number}{suffix}", list(files(6)), 6 * number) for number in range(3)]
    whole = tables[1].read_bytes()
    tables[1].write_bytes(whole[: len(whole) // 2])
    code, out, err = run("batch", model, "shards", "--json", "--workers", 1)
    assert code == 1
    assert f"got {Path('shards', tables[1].name)}, " in err
    assert "expected a whole table" in err
    assert "Traceback" not in err
    assert len(calls) >= 12
    assert sum("failed" in json.loads(line) for line in out.splitlines()) == 1


def test_shards_split_rows_and_repeated_commands_read_what_is_missing(
    run: Run, model: Path, tmp_path: Path, fake_infer: Fake
) -> None:
    calls = fake_infer()
    for number in range(2):
        write(tmp_path / f"shards/{number:03d}.parquet", list(files(5)))
    command = ["batch", model, "shards", "-o", "found.parquet", "--workers", 1]
    code, _, err = run(*command, "--shard", "2/3", "--quiet")
    assert code == 0
    assert "read 3 of 10 images, shard 2/3. Once all shards have ended, the same command without --shard compl" in err
    assert not Path("found.parquet").exists()
    assert len(lines("found-2-of-3.jsonl")) == 3
    assert run(*command, "--shard", "1/2", "--quiet")[0] == 0  # another number of shards: what is missing
    assert run(*command)[0] == 0
    assert run(*command)[0] == 0
    assert len(calls) == 10
    found = parquet.read_table("found.parquet").to_pylist()
    assert [row["image"].rpartition("/")[2] for row in found] == [
        f"{number:03d}.parquet#{row}" for number in range(2) for row in range(5)
    ]
    assert {(row["count"], row["rows"], row["failed"]) for row in found} == {(1, 10, "")}
    assert json.loads(found[0]["objects"])[0]["x"] == 0.5
    assert json.loads(found[0]["settings"])["model"] == str(model)
    assert datasets.load_dataset("parquet", data_files="found.parquet", split="train").num_rows == 10


def test_files_of_answers_hold_one_row_per_image(run: Run, model: Path, pictures: Path, fake_infer: Fake) -> None:
    fake_infer()
    (pictures / "a/bad.png").touch()
    for name in ("found.csv", "found.parquet", "found.jsonl"):
        assert run("batch", model, pictures, "-o", name, "--quiet", "--workers", 1)[0] == 1
    with Path("found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(Path(row["image"]).name, row["count"]) for row in rows] == [
        ("bad.png", "-1"), ("one.png", "1"), ("two.jpg", "1"), ("one.png", "1")
    ]  # fmt: skip
    assert "cannot identify image file" in rows[0]["failed"]
    table = parquet.read_table("found.parquet")
    assert table.column_names == list(rows[0])
    assert [Path(name).name for name in table["image"].to_pylist()] == [Path(row["image"]).name for row in rows]
    assert len(lines("found.jsonl")) == 3
    assert not [path for path in Path().iterdir() if path.suffix == ".png"]


def test_an_interrupted_run_leaves_no_table(run: Run, model: Path, pictures: Path, fake_infer: Fake) -> None:
    fake_infer(fail_at=3)
    assert run("batch", model, pictures, "-o", "found.csv")[0] == 130
    assert [path.name for path in Path().glob("*found*")] == ["found.jsonl"]
    calls = fake_infer()
    assert run("batch", model, pictures, "-o", "found.csv")[0] == 0
    assert len(calls) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, suffix: str) -> None:
    contents = list(files(150, side=64))  # 12 KB each
    most = []
    for times in (2, 6):
        path = write(tmp_path / f"{times}{suffix}", times * contents)
        if suffix == ".parquet":
            parquet.write_table(parquet.read_table(path), path, row_group_size=10)
        gc.collect()  # or what earlier tests left is freed while rows are counted
        before, peak = pa.total_allocated_bytes(), 0
        for number, picture in enumerate(Inputs.of([path])):
            assert picture.content == contents[number % 150]
            peak = max(peak, pa.total_allocated_bytes() - before)
        assert number == 150 * times - 1
        most.append(peak)
    assert most[1] < 1.5 * most[0] + 100_000


def test_which_column_holds_the_images(tmp_path: Path) -> None:
    content = next(files(1))
    named = {"left": [content], "right": [b"other"], "number": [1]}
    parquet.write_table(pa.table(named), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"2 columns of images among left, right, number; .*choose it by --column"):
        next(tables.table_rows(tmp_path / "a.parquet"))
    assert next(tables.table_rows(tmp_path / "a.parquet", "right")).content == b"other"
    with pytest.raises(InputError, match=r"got --column top of .*; expected one of its columns: left, right, number"):
        next(tables.table_rows(tmp_path / "a.parquet", "top"))
    (tmp_path / "b.png").write_bytes(content)
    parquet.write_table(pa.table({"image": ["b.png", None]}), tmp_path / "[b].parquet")  # a path, in a name to escape
    assert [row.content for row in tables.table_rows(tmp_path / "[b].parquet")] == [content, None]


def test_archives_have_the_samples_of_webdataset(tmp_path: Path) -> None:
    """Keys end at the first dot, suffixes are in lower case; hidden files and those without a suffix are left out."""
    names = ["a.json", "b.left.PNG", "b.right.png", "b.json", "._b.png", "README", "d/c.Jpg", "d/.c.jpg", "./e.f.png"]
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    found = [(row.row, row.content) for row in tables.table_rows(tmp_path / "a.tar")]
    assert found == [("a", None), ("b", b"b.left.PNG"), ("d/c", b"d/c.Jpg"), ("./e", b"./e.f.png")]
    with pytest.raises(InputError, match=r"got --column png of .*a.tar; expected one of its columns: json"):
        next(tables.table_rows(tmp_path / "a.tar", "png"))
    assert [row.content for row in tables.table_rows(tmp_path / "a.tar", "JSON")] == [b"a.json", b"b.json", None, None]


def test_an_archive_keeps_no_list_of_its_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number in range(1000):
            archive.addfile(tarfile.TarInfo(f"{number}.png"))
    rows = tables.table_rows(tmp_path / "a.tar")
    tracemalloc.start()
    try:
        next(rows)
        before = tracemalloc.get_traced_memory()[0]
        assert sum(1 for _ in islice(rows, 998)) == 998
        assert tracemalloc.get_traced_memory()[0] - before < 100_000  # a list of 998 has 500 kB
    finally:
        tracemalloc.stop()


def test_names_in_a_bucket(tmp_path: Path) -> None:
    """All are read again from their text, as a process of Ray does; hidden ones are left out."""
    import fsspec

    names = [
        *"AÄ日", "_DSC1", "a%20b", "100%25", "b c", "x#y", "q?", "a?token=1", "star*", "br[1]", "a//b", "new\nline"
    ]  # fmt: skip
    for name in (*names, ".hidden", ".cache/c"):
        fsspec.filesystem("memory").pipe(f"/names/{name}.PNG", name.encode())
    found = Inputs.of(["memory://names"]).files
    assert sorted(tables.place_of(str(file), found=True).read_bytes().decode() for file in found) == sorted(names)


@pytest.mark.parametrize("root", ["", "memory://answers"])
def test_answers_among_the_images_are_not_read(tmp_path: Path, root: str) -> None:
    place = tables.place_of(root or tmp_path)
    content = next(files(1))
    (place / "in/found").mkdir(parents=True)
    (place / "in/a.png").write_bytes(content)
    Parts(place / "in/found", {"seed": 0}).known_keys()
    with (place / "in/found.parquet").open("wb") as file, parquet_writer(file) as write:
        write({"image": str(place / "in/a.png"), "count": 0})
    (place / "in/found/part-0.parquet").write_bytes((place / "in/found.parquet").read_bytes())
    image, answers = Inputs.of([str(place / "in")])
    assert (image.name, image.content or (place / "in/a.png").read_bytes()) == ("a.png", content)
    assert "found.parquet, which holds answers; expected images; move it out of the folder" in str(answers.problem)


def test_tables_in_folders(tmp_path: Path) -> None:
    for name in ("a/00.tar", "a/01.tar", "a/02.png", "a/found.parquet"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    given = [tmp_path / "a"]
    assert [path.name for path in Inputs.of(given, without=tmp_path / "a/found.parquet").files] == [
        "00.tar", "01.tar", "02.png"
    ]  # fmt: skip
    assert [path.name for path in image_files(given).values()] == ["02.png"]


def test_paths_of_a_table_stay_in_its_folder(run: Run, model: Path, tmp_path: Path, fake_infer: Fake) -> None:
    calls = fake_infer()
    content = next(files(1))
    for name in ("secret.png", "in/own.png", "in/sub/own.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    inside = ["own.png", "sub/../sub/own.png", str(tmp_path / "in/own.png")]
    outside = ["../secret.png", str(tmp_path / "secret.png"), "sub/../../secret.png", "own.png\0", "/dev/zero"]
    parquet.write_table(pa.table({"image": inside + outside}), tmp_path / "in/a.parquet")
    code, out, err = run("batch", model, "in/a.parquet", "--json", "--workers", 1)
    assert (code, len(calls)) == (1, len(inside))
    assert ["failed" in json.loads(line) for line in out.splitlines()] == [False] * 3 + [True] * 5
    assert "got row 3 of in/a.parquet with the path '../secret.png'; expected one in the folder of the table; " in err


def test_tables_need_no_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    for suffix in SUFFIXES:
        assert len(list(Inputs.of([write(tmp_path / f"a{suffix}", list(files(2)))]))) == 2


def test_results_of_a_url_are_parts(run: Run, model: Path, pictures: Path, fake_infer: Fake) -> None:
    pytest.importorskip("upath", reason="universal-pathlib, which energycomp-batch needs, is not installed")
    import fsspec

    fake_infer(fail_at=3)
    (pictures / "a/bad.png").touch()
    memory = fsspec.filesystem("memory")
    command = ["batch", model, pictures, "-o", "memory://bucket/found", "--workers", 1, "--quiet"]
    assert run(*command)[0] == 130  # what was read before is kept
    assert [len(rows_of(memory, f"/bucket/found{part}")) for part in ("", "/_failed")] == [2, 1]
    calls = fake_infer()
    for _ in range(2):
        code, out, err = run(*command[:-1])
        assert (code, "images, of which 1 could not be read" in err) == (1, True)
        printed = [line.rpartition(":")[0].removeprefix("memory:/") for line in out.splitlines()]
        assert all(memory.exists(part) for part in printed)
    assert len(calls) == 1
    assert [part.rpartition("/")[0] for part in printed] == ["/bucket/found/_failed"]
    found = rows_of(memory, "/bucket/found")
    assert sorted(row["image"] for row in found) == sorted(
        str(pictures / name) for name in ("a/one.png", "a/two.jpg", "b/one.png")
    )
    assert {(row["count"], row["rows"], row["failed"]) for row in found} == {(1, 10, "")}
    failed = rows_of(memory, "/bucket/found/_failed")
    assert [row["image"] for row in failed] == [str(pictures / "a/bad.png")]
    assert "cannot identify image file" in failed[0]["failed"]
    code, _, err = run(*command, "--seed", 1)
    assert (code, "which holds answers with seed 0, and not 1; expected the same options" in err) == (2, True)


@pytest.mark.parametrize(
    ("mode", "error", "line"),
    [
        (
            "find",
            PermissionError("Access Denied"),
            "got memory://in, which cannot be reached (PermissionError: Access Denied)",
        ),
        ("wb", PermissionError("Access Denied"), "Cannot write memory://out/found/part-"),
        (
            "wb",
            OSError(28, "No space left on device"),
            "OSError: [Errno 28] No space left on device. Check the rights to it",
        ),
    ],
    ids=str,
)
def test_a_bucket_without_rights_or_space_is_one_line(
    run: Run, model: Path, fake_infer: Fake, monkeypatch: pytest.MonkeyPatch, mode: str, error: Exception, line: str
) -> None:
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    fake_infer()
    memory = fsspec.filesystem("memory")
    memory.pipe("/in/one.png", next(files(1)))
    opened = MemoryFileSystem._open

    def refuse(self: Any, path: str, *more: Any, **options: Any) -> Any:
        if mode == "find" or (mode in (*more, options.get("mode")) and "part-" in path):
            raise error
        return opened(self, path, *more, **options)

    monkeypatch.setattr(MemoryFileSystem, "find" if mode == "find" else "_open", refuse)
    code, out, err = run("batch", model, "memory://in", "-o", "memory://out/found", "--workers", 1)
    said = [one for one in err.splitlines() if not one.startswith("energycomp: loading")]
    assert (code in {1, 2}, out, len(said)) == (True, "", 1)
    assert line in said[0]
    monkeypatch.undo()
    assert not [path for path in memory.glob("/out/**") if path.endswith(".parquet")]


def test_a_full_disk_leaves_no_half_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    parts = Parts(tmp_path, {"seed": 0})
    parts.known_keys()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        parts.answered([Item(tmp_path / "a.png", content=b"")], lambda tasks: [(task, task.head) for task in tasks])
    assert [path.name for path in tmp_path.iterdir()] == ["_settings.json"]


def test_names_that_are_no_text_are_known_again(tmp_path: Path) -> None:
    item = Item(tmp_path / "a\udcff.png", content=b"")
    parts = Parts(tmp_path, {"seed": 0})

    def run(tasks: Iterable[Any]) -> list[Any]:
        return [(task, {**task.head, "count": 0}) for task in tasks]

    lists = (items for _ in range(2) for items in split_unread([item], parts.known_keys(), 5))
    assert [parts.answered(items, run)["images"] for items in lists] == [1]
    (part,) = tmp_path.glob("*.parquet")
    assert parquet.read_table(part)["image"].to_pylist() == [f"{tmp_path}/a\\udcff.png"]


def test_results_are_read_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("duckdb", "pandas"):
        pytest.importorskip(package, reason=f"no {package}: pip install --group dev")
    monkeypatch.chdir(tmp_path)
    answers = [{"count": n, "objects": [{"x": 0.25, "y": n / 8}] * n, "sure": s, "trusted": True} for n, s in ANSWERS]
    answers[2] = {"failed": "no image"}
    items = [Item(tmp_path / f"{number}.png", content=bytes([number])) for number in range(len(ANSWERS))]
    parts = Parts(tmp_path / "found", {"seed": 0})
    parts.known_keys()
    parts.answered(items, lambda tasks: [(task, {**task.head, **answers[task.index]}) for task in tasks])
    with Path("found.parquet").open("wb") as file, parquet_writer(file) as write:
        for item, answer in zip(items, answers, strict=True):
            write({**identify(item, {}), **answer})
    _, _, text = (Path(__file__).parents[3] / "docs/many.md").read_text().partition("## Reading the results")
    found: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text.partition("\n## ")[0], re.DOTALL):
        exec(block, found)  # noqa: S102 - the page is ours
    images = [f"{tmp_path}/{number}.png" for number in (0, 3, 3)]
    assert found["places"].to_dict("list") == {"image": images, "x": [0.25] * 3, "y": [0.125, 0.25, 0.25]}
    assert found["objects"].to_dict("list") == found["places"].to_dict("list")
    assert found["counts"] == [(1, 2), (2, 1)]
    assert found["failures"] == [("no image", 1)]
    assert found["unsure"].to_pylist() == [{"image": f"{tmp_path}/1.png", "count": 1, "sure": 0.5}]


def rows_of(files: Any, folder: str) -> list[dict[str, Any]]:
    """The rows of the Parquet files in a folder."""
    paths = [path for path in files.ls(folder, detail=False) if path.endswith(".parquet")]
    return [row for path in paths for row in parquet.read_table(io.BytesIO(files.cat(path))).to_pylist()]
