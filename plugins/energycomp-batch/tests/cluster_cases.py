"""`energycomp batch --engine ray`, on two nodes of a cluster, and URLs, of a real S3 server, in both engines.

`test_cluster.py` runs these in a process of its own, which it ends after a time.
"""

import faulthandler
import io
import json
import os
import signal
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from benchmarks.common.instant import Instant, actors_of, image_files, instant_count, two_nodes
from energycomp.errors import InputError
from energycomp_batch import cluster
from energycomp_batch.cluster import Cluster, one_line
from energycomp_batch.inputs import Inputs
from energycomp_batch.parts import Parts

Run = Callable[..., tuple[int, str, str]]
SECONDS = 900.0  # of a test; on an idle machine each takes less than 20, on one that others use, minutes


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    """Ends the process, with the stacks of all threads, where a test waits for ever, also in Ray's own code."""
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """A bucket of a server that fails one request in twenty."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    app, number = DomainDispatcherApplication(create_backend_app), count(1)

    def flaky(request: dict[str, Any], start: Callable[..., Any]) -> Any:
        if next(number) % 20 == 0:
            start("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        return app(request, start)

    server = make_server("127.0.0.1", 0, flaky, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # This process has no other use: what Ray starts has its variables.
    secrets = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update({**secrets, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}"})
    import s3fs

    s3fs.S3FileSystem().mkdir("pictures")
    yield "s3://pictures"
    server.shutdown()


@pytest.fixture(scope="session")
def nodes(bucket: str) -> Iterator[Any]:
    """Two nodes of one core on the loopback address, and a connection to them."""
    import ray

    # A process of Ray takes two seconds to start: none is started before it is needed, or ended while it is idle.
    reused = {"RAY_idle_worker_killing_time_threshold_ms": "600000", "RAY_num_workers_soft_limit": "8"}
    unasked = {"RAY_prestart_worker_first_driver": "0", "RAY_enable_worker_prestart": "0"}
    os.environ.update({**reused, **unasked})
    with two_nodes() as made, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "CORE", 1.0)  # an actor fills a node: each one more would take two processes to start
        try:
            ray.init(made.address, log_to_driver=False, logging_level="ERROR")
            yield made
        finally:
            ray.shutdown()


def answers(folder: Any) -> list[dict[str, Any]]:
    """The rows of all parts, sorted by image, as text, in which NaN is NaN."""
    if not isinstance(folder, Path):
        folder.fs.invalidate_cache()  # others have written there
    parts = [path for path in folder.iterdir() if path.suffix == ".parquet"] if folder.exists() else []
    rows = [row for path in parts for row in parquet.read_table(io.BytesIO(path.read_bytes())).to_pylist()]
    return sorted(({name: repr(value) for name, value in row.items()} for row in rows), key=lambda row: row["image"])


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Files, a Parquet table and an archive, in which two of nine images are damaged."""
    content = list(image_files(7))
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(content[number])
    (folder / "bad.png").write_bytes(b"no image")
    parquet.write_table(pa.table({"image": [*content[3:5], b"no image"]}), folder / "rows.parquet")
    with tarfile.open(folder / "rows.tar", "w") as archive:
        for number in (5, 6):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(content[number])
            archive.addfile(member, io.BytesIO(content[number]))
    return folder


def test_without_ray_or_a_cluster_there_is_one_line(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    command = ["batch", model, "a.parquet", "-o", "found", "--engine", "ray"]
    parquet.write_table(pa.table({"image": list(image_files(1))}), "a.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(ray, "__version__", "2.9.3")
        assert "got Ray 2.9.3; expected 2.49 or later; pip install -U ray" in run(*command)[2]
    with monkeypatch.context() as patch:
        patch.setattr(ray, "init", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("Version mismatch: Ray 2.49.0")))
        code, _, err = run(*command, "--address", "other:6379")
        alone = run(*command)[2]
    assert "does not connect (Version mismatch: Ray 2.49.0); expected the address of a running cluster with this" in err
    assert "got --engine ray, which does not start on this machine (Version mismatch: Ray 2.49.0); expected" in alone
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", cache(set))  # as if there were no other cluster
    code, _, err = run(*command, "--address", "auto")
    assert (code, "got --address auto, to which Ray does not connect (Could not find any running" in err) == (2, True)
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = run(*command)
    assert (code, "expected the package ray; pip install 'energycomp-batch[ray]'" in err) == (2, True)
    assert not Path("found").exists()


def test_what_ends_the_work_is_one_line_unless_it_is_our_own_error() -> None:
    import ray

    absent = "in a task\nModuleNotFoundError: No module named 's3fs'"
    for error in (ray.exceptions.NodeDiedError("a node is lost"), ray.exceptions.UserCodeException(absent)):
        with pytest.raises(InputError, match="; repeat the command to continue") as raised, one_line(ray):
            raise error
        assert f"on which the work ended ({str(error).splitlines()[-1]}); expected machines with" in str(raised.value)
    with pytest.raises(ray.exceptions.UserCodeException, match="ours"), one_line(ray):
        raise ray.exceptions.UserCodeException("ours")


def test_both_engines_give_the_same_answers_from_bucket_to_bucket(
    run: Run, model: Path, mixed: Path, nodes: Any, bucket: str
) -> None:
    from upath import UPath

    place = UPath(bucket)
    for path in mixed.iterdir():
        (place / "in" / path.name).write_bytes(path.read_bytes())
    urls = [f"{bucket}/in/{number}.png" for number in range(3)]
    sink = io.BytesIO()
    parquet.write_table(pa.table({"image": [*urls, "file:///etc/passwd", f"{bucket}/absent.png"]}), sink)
    (place / "list.parquet").write_bytes(sink.getvalue())
    common = ["batch", model, f"{bucket}/in", f"{bucket}/list.parquet", "--count", 0, "--seed", 3]
    code, _, err = run(*common, "-o", f"{bucket}/local", "--quiet", "--workers", 1)
    assert (code, "read 14 images, of which 4 could not be read" in err) == (1, True), err
    assert "got row 3 of s3://pictures/list.parquet with the path 'file:///etc/passwd'; expected one in" in err
    code, out, err = run(*common, "-o", f"{bucket}/ray", "--engine", "ray", "--json", "--part", 4, "--concurrency", 1)
    assert (code, "read 14 images, of which 4 could not be read" in err) == (1, True)
    assert sum(json.loads(line)["images"] for line in out.splitlines()) == 14
    assert len(answers(place / "local")) == 10
    assert answers(place / "local") == answers(place / "ray")
    assert answers(place / "local/_failed") == answers(place / "ray/_failed")
    assert "secret" not in (place / "ray/_settings.json").read_text()
    # The same command tries what failed, and nothing else; other settings are refused.
    code, _, err = run(*common, "-o", f"{bucket}/ray", "--quiet", "--workers", 1)
    assert (code, len(answers(place / "ray")), len(answers(place / "ray/_failed"))) == (1, 10, 4)
    assert "read 4 images, of which 4 could not be read" in err
    code, _, err = run(*common[:-1], 4, "-o", f"{bucket}/ray", "--engine", "ray")
    assert (code, "which holds answers with seed 3, and not 4" in err) == (2, True)


def test_an_evaluation_is_that_of_one_process(run: Run, model: Path, scenes: Path, nodes: Any) -> None:
    command = ["evaluate", model, "--data", f"{scenes}:1-3", "--source", "clevr", "--count", "true", "-n", 2, "--json"]
    found = []
    for name, more in (("local", []), ("ray", ["--engine", "ray", "--concurrency", 1])):
        code, out, err = run(*command, "-o", name, *more)
        assert code == 0, err
        found.append({name: value for name, value in json.loads(out).items() if name != "seconds_per_image"})
    assert found[0] == found[1]
    assert len(Path("ray/evaluation.jsonl").read_text().splitlines()) == 3  # settings, and a line per image


BLENDER = """#!{python}
import json, sys
for line in sys.stdin:
    path = json.loads(line)["path"]
    open(path, "w").write(str(__import__("os").getpid()))
    print("done " + path, flush=True)
"""


def test_blender_renders_on_a_cluster(run: Run, nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blender = pytest.importorskip("energycomp_datasets.clevr.blender")
    stand_in = Path("python").absolute()
    stand_in.write_text(BLENDER.format(python=sys.executable))
    stand_in.chmod(0o755)
    monkeypatch.setenv(blender.VARIABLE, str(stand_in))
    for name in blender.FILES:
        (Path("assets") / name).parent.mkdir(parents=True, exist_ok=True)
        (Path("assets") / name).touch()
    number = blender.TOGETHER + 4
    command = ["data", "clevr", "-n", number, "-o", "made", "--renderer", "blender", "--assets", "assets"]
    code, _, err = run(*command, "--engine", "ray", "--concurrency", 1)
    assert code == 0, err
    assert len({path.read_text() for path in Path("made/images/train").iterdir()}) == 2  # starts of Blender
    assert len(json.loads(Path("made/scenes/CLEVR_train_scenes.json").read_text())["scenes"]) == number
    assert run("data", "clevr", "-o", "own", "--engine", "ray")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["s3://absent/in", "-o", "found"], "got s3://absent/in, which cannot be reached (FileNotFoundError: "),
        (["s3://key:word@bucket/in"], "got a URL with a password or a signature, which would be in the results; "),
        (["nothing://bucket/in"], "got nothing://bucket/in, which cannot be reached (ValueError: "),
        (["a.parquet", "--column", "top"], "got --column top of a.parquet; expected one of its columns: image"),
        (["a.parquet", "--engine", "ray"], "got --engine ray without -o; expected a folder or a URL for Parquet parts"),
        (["a.parquet", "--address", "auto"], "got --address without --engine ray; leave it out"),
        (["a.parquet", "-o", "found", "--engine", "ray", "--shard", "1/2"], "got --shard with --engine ray; leave"),
        (["a.parquet", "-o", "full", "--engine", "ray"], "got -o {here}/full, which holds mine.txt and no _settings"),
        (["a.parquet", "-o", "s3://absent/out"], "Cannot write s3://absent/out/_settings.json: FileNotFoundError: "),
    ],
)
def test_bad_input_is_one_line(run: Run, model: Path, nodes: Any, arguments: list[str], line: str) -> None:
    parquet.write_table(pa.table({"image": list(image_files(1))}), "a.parquet")
    Path("full").mkdir()
    Path("full/mine.txt").touch()
    code, out, err = run("batch", model, *arguments)
    assert (code in {1, 2}, out) == (True, "")
    said = [one for one in err.splitlines() if not one.startswith("energycomp: loading")]
    assert len(said) == 1
    assert said[0].startswith(f"energycomp: {line.replace('{here}', str(Path.cwd()))}")
    assert not Path("found").exists()
    assert [path.name for path in Path("full").iterdir()] == ["mine.txt"]


def test_an_actor_that_never_starts_does_not_end_the_work(nodes: Any, tmp_path: Path) -> None:
    """There is room for two: the third waits, until the work is done and Ray takes it back."""
    (tmp_path / "one.png").write_bytes(next(image_files(1)))
    parts = Parts(tmp_path / "found", {"seed": 0})
    (event,) = Cluster(concurrency=3).read(Inputs.of([tmp_path / "one.png"]), Instant(), parts)
    assert (event["images"], event["failed"]) == (1, [])


def test_an_actor_and_a_node_are_killed_and_a_driver_stops(nodes: Any, tmp_path: Path) -> None:
    """The last case: it leaves one node."""
    folder = tmp_path / "images"
    folder.mkdir()
    wanted = {folder / f"{number}.png": content for number, content in enumerate(image_files(24))}
    for path, content in wanted.items():
        path.write_bytes(content)
    (folder / "deadly.png").write_bytes(next(image_files(1)))
    inputs, parts = Inputs.of([folder]), Parts(tmp_path / "found", {"seed": 0})
    everywhere = Cluster(concurrency=2, part=2)  # each node has one
    events = everywhere.read(inputs, Instant(wait=0.1), parts)
    next(events)
    os.kill(actor_of(nodes.head_node), signal.SIGKILL)
    next(events)
    events.close()  # and the driver stops
    kept = len(answers(tmp_path / "found"))
    assert kept > 0
    # Nothing is answered before both nodes have an actor, and one of these is lost: it starts again on the other node
    events = everywhere.read(inputs, Instant(until=tmp_path / "lost"), parts)
    other = next(iter(nodes.worker_nodes))
    with ThreadPoolExecutor() as threads:
        reading = threads.submit(list, events)
        try:
            assert actor_of(nodes.head_node) != actor_of(other)
            nodes.remove_node(other, allow_graceful=False)
        finally:
            (tmp_path / "lost").touch()  # what reads ends in any case
        done = reading.result()
    assert 0 < sum(event["images"] for event in done) <= 25 - kept  # an actor may have ended a part meanwhile
    found = {row["image"]: row["count"] for row in answers(tmp_path / "found")}
    assert found == {repr(str(path)): repr(instant_count(content)) for path, content in wanted.items()}
    assert len(answers(tmp_path / "found")) == len(wanted)
    (failed,) = answers(tmp_path / "found/_failed")
    deadly = folder / "deadly.png"
    assert failed["image"] == repr(str(deadly))
    assert f"got {deadly}, at which its process ended 2 times (SIGKILL, perhaps out of memory)" in failed["failed"]


def actor_of(node: Any) -> int:
    """The process of an actor on a node, once it is there."""
    end = time.monotonic() + SECONDS / 3
    while time.monotonic() < end:
        if found := actors_of(node):
            return found[0]
        time.sleep(0.1)
    raise LookupError(node)
