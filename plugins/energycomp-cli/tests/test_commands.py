import json
import os
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version

import pytest
import typer
from typer.testing import CliRunner

import energycomp_cli as cli
from energycomp import __version__, plugins
from energycomp.errors import EnergycompWarning, InputError
from energycomp.plugins import registry

runner = CliRunner()
Run = Callable[..., tuple[int, str, str]]


def test_version_is_the_installed_one() -> None:
    result = runner.invoke(cli.app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout == f"energycomp {__version__}\n"
    assert __version__ == version("energycomp")


@pytest.mark.parametrize("command", [[], ["sample"], ["edit"]])  # of this package, and of another
def test_h_is_short_for_help(command: list[str]) -> None:
    short, long = (runner.invoke(cli.app, [*command, option]) for option in ("-h", "--help"))
    assert short.exit_code == 0
    assert short.stdout == long.stdout


def test_help_names_every_command() -> None:
    result = runner.invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    for command in cli.app.registered_commands:
        assert command.callback is not None
        assert (command.name or command.callback.__name__) in result.stdout


def test_a_warning_of_ours_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def app() -> None:
        warnings.warn("something may be missing", EnergycompWarning, stacklevel=1)
        warnings.warn("of a library", UserWarning, stacklevel=1)

    monkeypatch.setitem(cli.main.__globals__, "app", app)
    with pytest.warns(UserWarning, match="of a library"):
        cli.main()
    assert capsys.readouterr().err == "energycomp: warning: something may be missing\n"


def test_plugins_json_is_the_listing() -> None:
    result = runner.invoke(cli.app, ["plugins", "--json"])
    assert result.exit_code == 0
    known = plugins.listing(load=True)
    listed = [(entry["name"], entry["registered"]) for entry in json.loads(result.stdout)]
    assert listed == [(info.name, {kind: list(names) for kind, names in info.registered.items()}) for info in known]


def test_plugins_table_shows_failures_conflicts_and_what_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    infos = (
        plugins.PluginInfo("good", "dist-a", "1.0", {"solvers": ("beam",)}, conflicts=("both claim [beam]",)),
        plugins.PluginInfo("bad", "dist-b", "2.0", error="ImportError: no [gpu]"),
        plugins.PluginInfo("idle", "dist-c", "3.0", off="ENERGYCOMP_PLUGINS"),
    )
    monkeypatch.setattr("energycomp_cli.about.listing", lambda *, load: infos if load else ())
    result = runner.invoke(cli.app, ["plugins"])
    assert result.exit_code == 0
    said = (
        "solvers: beam",
        "conflict: both claim [beam]",
        "dist-b 2.0",
        "failed: ImportError: no [gpu]",
        "switched off by",
    )
    assert [one for one in said if one not in result.stdout] == []


def test_env_reports_the_machine_and_says_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    result = runner.invoke(cli.app, ["env", "--json"])
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert 1 <= report["cores"] <= (os.cpu_count() or 1)
    assert report["memory_gib"] > 0
    assert report["packages"]["torch"] == version("torch")
    assert report["plugins"][0] == f"core (energycomp {__version__})"
    monkeypatch.setattr("energycomp_cli.about.requires", lambda _: ["torch>=2", "a-package-nobody-has>=1"])
    result = runner.invoke(cli.app, ["env"])
    assert (result.exit_code, "a-package-nobody-has not installed" in result.stdout) == (0, True)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("Got 3 channels. Expected 1."), 2, "energycomp: Got 3 channels. Expected 1.\n"),
        (KeyboardInterrupt(), 130, "energycomp: interrupted\n"),
        (RuntimeError("a bug"), None, ""),  # which keeps its traceback
    ],
    ids=["ours", "Ctrl-C", "unforeseen"],
)
def test_errors_are_one_message_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int | None,
    said: str,
) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def run() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["energycomp"])
    monkeypatch.setattr(import_module("energycomp_cli.commands"), "app", app)
    with pytest.raises(SystemExit if code else RuntimeError) as stop:
        cli.main()
    assert code is None or stop.value.code == code
    assert capsys.readouterr() == ("", said)


def test_an_unknown_command_is_exit_code_2(run: Run) -> None:
    code, _, err = run("no-such-command")
    assert code == 2
    assert err.startswith("energycomp: No command is named 'no-such-command'. Known commands: sample, infer")


# Commands of plugins


@pytest.fixture
def hello(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A plugin command `hello`, one of several commands `group`, and two that fail."""

    def hello(name: str = typer.Argument(metavar="NAME"), twice: bool = False) -> None:
        """Greet someone.

        energycomp hello you
        """
        typer.echo(f"hello {name}" * (1 + twice))

    group = typer.Typer()
    for word in ("one", "two"):
        group.command(word)(lambda word=word: typer.echo(word))
    monkeypatch.setattr(registry, "_own", {})
    plugins.register("commands", "hello", hello)
    plugins.register("commands", "group", group)
    plugins.register("commands", "broken", "missing:command")
    plugins.register("commands", "nothing", "sys:maxsize")
    yield
    plugins.reload()


def test_plugin_commands_are_listed_and_run(hello: None) -> None:
    listed, shown = (runner.invoke(cli.app, words) for words in (["--help"], ["hello", "--help"]))
    assert (listed.exit_code, shown.exit_code) == (0, 0)
    assert [name for name in ("hello", "group", "broken") if name not in listed.stdout] == []
    assert [
        word for word in ("Greet someone.", "energycomp hello", "NAME", "--twice") if word not in shown.stdout
    ] == []
    assert runner.invoke(cli.app, ["hello", "you"]).stdout == "hello you\n"
    assert runner.invoke(cli.app, ["group", "two"]).output == "two\n"


def test_a_broken_plugin_command_is_one_message_and_the_others_work(hello: None, run: Run) -> None:
    for name, message in (("broken", "No module named 'missing'"), ("nothing", "Got a int without __call__")):
        code, out, err = run(name)
        assert (code, out) == (2, "")
        assert err.startswith("energycomp: ")
        assert message in err
    assert runner.invoke(cli.app, ["hello", "you"]).exit_code == 0


def test_a_plugin_command_does_not_replace_one_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_own", {})
    plugins.register("commands", "env", lambda: typer.echo("mine"))
    assert json.loads(runner.invoke(cli.app, ["env", "--json"]).stdout)["python"]
