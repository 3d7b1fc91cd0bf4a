"""The command `energycomp`."""

from __future__ import annotations

import signal
import sys
import threading
from _thread import interrupt_main
from types import FrameType
from typing import cast

AGAIN = 0.05  # s until an interrupt that came during an import is tried again


def main() -> None:
    """Runs the command line, with an answer to Ctrl-C from the first moment on."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, between_imports)
    try:
        from energycomp_cli.commands import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("energycomp: interrupted\n")
        sys.exit(130)


def between_imports(number: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt as Python does, but not within an import, which libraries swallow or leave in halves."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            threading.Timer(AGAIN, _again, (number,)).start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def _again(number: int) -> None:
    if sys.platform != "win32":
        # Which also wakes a thread that waits
        signal.pthread_kill(cast("int", threading.main_thread().ident), number)
    else:
        interrupt_main(signal.Signals(number))


if __name__ == "__main__":
    main()
