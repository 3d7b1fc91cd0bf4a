"""Files of JSON lines."""

import signal
import sys
from pathlib import Path

import pytest

from energycomp.errors import CheckpointError
from energycomp_cli import append_line, read_lines


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of files")
def test_a_full_disk_is_an_error_and_loses_no_earlier_line(tmp_path: Path) -> None:
    import resource

    file, limits = tmp_path / "a.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    append_line(file, {"key": "a"})
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 5, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"Cannot write .*a.jsonl: no space for \d+ bytes"):
            append_line(file, {"key": "b"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(read_lines(file)) == 1  # which cuts off what is incomplete
    append_line(file, {"key": "b"})
    assert [record["key"] for record in read_lines(file)] == ["a", "b"]
