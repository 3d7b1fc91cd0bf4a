"""Progress in a pseudo-terminal, as a person sees it, and in a pipe, as a log file does."""

import os
import pty
import re
import subprocess
import sys
import termios

# Bars are shown, and drawn again, after a tenth of a second.
QUICK = "import time; import energycomp.progress as own; own.DELAY = own.EVERY = 0.1"
SLOW = f"""
{QUICK}
with own.working("loading it ..."):
    time.sleep(0.5)
for _ in own.progress([1], "reading", leave=True):
    time.sleep(0.5)
"""


def shown_in_a_terminal(code: str) -> str:
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (30, 100))
    with subprocess.Popen([sys.executable, "-c", code], stdin=end, stdout=end, stderr=end) as process:
        os.close(end)
        parts = []
        try:
            while part := os.read(terminal, 65536):
                parts.append(part)
        except OSError:  # the end of a terminal without a process (Linux)
            pass
    os.close(terminal)
    assert process.returncode == 0
    return b"".join(parts).decode()


def test_the_clock_of_a_terminal_runs() -> None:
    text = shown_in_a_terminal(SLOW)
    assert len(re.findall(r"loading it \.\.\. 00:0\d", text)) >= 3
    assert len(re.findall(r"reading:   0%.*?00:0\d", text)) >= 3


def test_a_log_has_no_clock() -> None:
    done = subprocess.run([sys.executable, "-c", SLOW], capture_output=True, text=True, check=True)
    assert "loading" not in done.stderr
    assert done.stderr.count("reading:   0%") == 1


NESTED = f"""
{QUICK}
with own.display(show=SHOW), own.working("outer ..."):
    for _ in own.progress(range(2), "inner"):
        time.sleep(0.2)
"""


def test_nothing_is_shown_where_progress_is_off() -> None:
    assert "inner" in shown_in_a_terminal(NESTED.replace("SHOW", "True"))
    assert shown_in_a_terminal(NESTED.replace("SHOW", "False")) == ""


def test_what_is_quick_has_no_bar_and_a_bar_that_was_shown_is_cleared() -> None:
    quick = "from energycomp.progress import progress\nfor _ in progress(range(99), 'quick'): pass"
    assert "quick" not in shown_in_a_terminal(quick)
    text = shown_in_a_terminal(NESTED.replace("SHOW", "True"))
    assert text.rstrip("\r").endswith(" ")


FOLLOWED = f"""
{QUICK}; own.EXPECTED = 0.3; own.EVERY_LINE = 0.3
import itertools
spent = itertools.count(100, 100)
with own.following("reading", lambda: next(spent), unit="evaluation"):
    LOOP
"""


def test_a_number_that_grows_is_shown_and_how_long_it_takes_on_is_said() -> None:
    unknown = FOLLOWED.replace("LOOP", "time.sleep(1)")
    known = FOLLOWED.replace("LOOP", "for _ in own.progress(range(10), 'descent'): time.sleep(0.1)")
    for text in (shown_in_a_terminal(known), logged(known)):
        assert re.search(r"reading: [1-9]\d*00evaluation", text)
        assert re.search(r"energycomp: reading: \d00 evaluations so far; descent takes about 1 s more at most", text)
        assert "descent:" not in text  # the bar inside is not drawn
    said = "evaluations so far; how many it needs is not known; Ctrl-C ends it"
    assert said in logged(unknown)
    assert logged(unknown.replace("with own", "with own.display(show=False), own")) == ""


def logged(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
