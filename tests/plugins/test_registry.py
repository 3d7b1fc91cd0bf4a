"""Discovery and look-up with distributions on disk: each fault of a plugin, next to a plugin that works."""

import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from energycomp import plugins
from energycomp.errors import InputError, NotFoundError, PluginError
from energycomp.plugins import Add, Imported, discovery, registry

GOOD = """
    from energycomp.plugins import hookimpl

    @hookimpl
    def energycomp_register(add):
        add.solver("fractional", "fractions:Fraction")
"""

Install = Callable[..., None]


def hook(body: str, signature: str = "energycomp_register(add)") -> str:
    return f"""
        from energycomp.plugins import hookimpl

        @hookimpl
        def {signature}:
            {body}
    """


BROKEN = {
    "raises": ("raise RuntimeError('no such device')", "RuntimeError: no such device"),
    "syntax": ("def", "SyntaxError"),
    "exits": ("raise SystemExit('wrong platform')", "SystemExit: wrong platform"),
    "dependency": ("import a_module_nobody_has", "ModuleNotFoundError: No module named 'a_module_nobody_has'"),
    "unshown": (
        "class Odd(BaseException):\n    def __str__(self): raise ValueError\nraise Odd",
        "Odd: (its message cannot be shown)",
    ),
    "signature": (hook("pass", "energycomp_register(registry)"), "registry"),
    "former_hook": (
        hook("return {'fractional': print}", "energycomp_register_solvers()"),
        "energycomp_register_solvers, of an earlier energycomp. Expected one hook for all kinds: @energycomp.hookimpl",
    ),
    "unknown_kind": (hook("add.sovler('fractional', print)"), "Got add.sovler, which is no kind. Expected add.solver."),
    "no_kind": (hook("add.x('fractional', print)"), "Expected add.codec or add.command or"),
    "not_decorated": ("def energycomp_register(add):\n    pass", "lacks the decorator"),
    "no_hook": ("x = 1", "implements no hook"),
    "hook_raises": (hook("raise OSError('disk')"), "OSError: disk"),
    "hook_exits": (hook("raise SystemExit(3)"), "SystemExit: 3"),
    "returns": (hook("return {'fractional': print}"), "returned {'fractional': <built-in function print>}"),
    "one_of_two": (hook("add.solver('fractional', print); add.model('own', None)"), "Got 'own': None"),
    "not_callable": (hook("add.solver('beam', 'a.module.Beam')"), "'a.module.Beam'. Expected a callable, or"),
    "not_a_name": (hook("add.solver(3, print)"), "Got the name 3 for one of the solvers"),
}


def info_of(name: str) -> plugins.PluginInfo:
    (info,) = [info for info in plugins.listing(load=True) if info.name == name]
    return info


def test_a_plugin_is_listed_and_found(install: Install) -> None:
    install("good", GOOD, version="2.3")
    assert "fractional" in plugins.names("solvers")
    expected = plugins.PluginInfo("good", "energycomp-good", "2.3", {"solvers": ("fractional",)}, module="fake_good")
    assert info_of("good") == expected
    (described,) = [info for info in plugins.listing() if info.name == "good"]
    assert described == attrs.evolve(expected, registered={})
    assert repr(plugins.find("solvers", "fractional")) == "fractions:Fraction"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_listed_with_its_reason_and_the_rest_works(install: Install, name: str) -> None:
    """One bad hook fails the whole plugin."""
    source, reason = BROKEN[name]
    install("good", hook("add.solver('even', print)"))
    install(name, source)
    info = info_of(name)
    assert reason in str(info.error)
    assert (info.distribution, info.registered) == (f"energycomp-{name}", {})
    assert repr(plugins.find("solvers", "even")) == repr(print)
    with pytest.raises(NotFoundError, match=re.escape(f"{name} (energycomp-{name} 1.0): {info.error}")):
        plugins.find("solvers", "fractional")


def test_ctrl_c_during_discovery_is_not_swallowed(install: Install) -> None:
    install("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        plugins.names("solvers")


def test_two_distributions_with_one_name(install: Install) -> None:
    install("one", GOOD, distribution="solvers-of-ann")
    install("two", GOOD + "        add.model('own', print)\n")
    with pytest.raises(PluginError, match=r"one \(solvers-of-ann 1\.0\)") as caught:
        plugins.find("solvers", "fractional")
    assert "two (energycomp-two 1.0)" in str(caught.value)
    assert "fractional" not in plugins.names("solvers")
    assert repr(plugins.find("models", "own")) == repr(print)
    for info in plugins.listing(load=True)[-2:]:
        assert info.error is None
        assert info.registered["solvers"] == ("fractional",)
        assert info.conflicts == (str(caught.value),)
    for distribution in ("solvers-of-ann", "energycomp-two"):
        assert plugins.find("solvers", f"{distribution}:fractional") is not None
    with pytest.raises(NotFoundError):
        plugins.find("solvers", "energycomp-none:fractional")


def test_one_name_for_two_kinds_is_no_conflict(install: Install) -> None:
    install("one", GOOD)
    install("two", hook("add.model('fractional', print)"))
    assert repr(plugins.find("models", "fractional")) == repr(print)
    assert repr(plugins.find("solvers", "fractional")) == "fractions:Fraction"


def test_what_a_plugin_prints_stays_out_of_stdout(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("loud", "print('hello from import')" + textwrap.dedent(hook("print('hello from hook')")))
    assert info_of("loud").error is None
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hello from import" in captured.err
    assert "hello from hook" in captured.err


CHOICES = {
    "by_name": ("ENERGYCOMP_PLUGINS", "good", {"good", "core"}),
    "by_distribution": ("ENERGYCOMP_PLUGINS", "energycomp-good", {"good", "core"}),
    "in_any_spelling": ("ENERGYCOMP_PLUGINS", "Energycomp.Good", {"good", "core"}),
    "of_several": ("ENERGYCOMP_PLUGINS", " other , good ", {"good", "core"}),
    "none": ("ENERGYCOMP_PLUGINS", "", {"core"}),
    "without_a_name": ("ENERGYCOMP_DISABLE_PLUGINS", "raises", {"good", "core"}),
    "without_a_distribution": ("ENERGYCOMP_DISABLE_PLUGINS", "energycomp_good", {"raises", "core"}),
    "never_without_the_core": ("ENERGYCOMP_DISABLE_PLUGINS", "core,good", {"raises", "core"}),
}


@pytest.mark.parametrize("case", CHOICES)
def test_the_environment_chooses_plugins(install: Install, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    variable, value, expected = CHOICES[case]
    monkeypatch.setenv(variable, value)
    install("good", GOOD)
    install("raises", BROKEN["raises"][0])
    infos = {info.name: info for info in plugins.listing(load=True) if info.name in ("good", "raises", "core")}
    assert {name for name, info in infos.items() if not info.off} == expected
    for name in {*infos} - expected:
        assert (infos[name].off, infos[name].error, infos[name].registered) == (variable, None, {})
    if "good" not in expected:
        with pytest.raises(NotFoundError, match=rf"good \(energycomp-good 1\.0\): {variable}"):
            plugins.find("solvers", "fractional")


def test_an_unknown_name_lists_the_known_ones_and_the_close_ones(install: Install) -> None:
    install("good", GOOD)
    with pytest.raises(NotFoundError, match=r"No solver is named 'fractoinal'. Did you mean 'fractional'\?") as caught:
        plugins.find("solvers", "fractoinal")
    assert f"Known solvers: {', '.join(plugins.names('solvers'))}." in str(caught.value)


def test_an_unknown_kind_names_the_kinds() -> None:
    with pytest.raises(InputError, match=r"'solver'\. Expected one of models, networks"):
        plugins.find("solver", "pursuit")  # type: ignore[arg-type]


def test_a_plugin_is_loaded_once_until_reload_and_a_listing_loads_none(install: Install, tmp_path: Path) -> None:
    install("good", GOOD + f"\n    open({str(tmp_path / 'imports')!r}, 'a').write('x')\n")
    plugins.listing()
    assert "fake_good" not in sys.modules
    plugins.names("solvers")
    plugins.find("solvers", "fractional")
    assert (tmp_path / "imports").read_text() == "x"


def test_the_core_is_listed_first() -> None:
    core = plugins.listing(load=True)[0]
    assert (core.name, core.distribution) == ("core", "energycomp")
    assert core.registered == {
        "networks": ("two_stage", "unet2d", "unet2d_condition"), "conditioners": ("classes", "latents"),
        "codecs": ("numbers", "vae"), "processors": ("image", "numbers"),
        "guidances": ("attributes", "cfg", "interval"), "samplers": ("scheduler",),
        "engines": ("bf16", "compile", "onnx", "openvino"),
    }  # fmt: skip


@pytest.mark.parametrize("target", ["module", "module:", ":attribute", "a/b:c", "a.b:c d"])
def test_a_text_that_names_no_callable_is_refused(target: str) -> None:
    with pytest.raises(PluginError, match=r"Expected a callable, or 'package\.module:attribute'"):
        Add({}).solver("mine", target)


@pytest.mark.parametrize("target", ["a_module_nobody_has:x", "fractions:Fracture"])
def test_the_error_says_what_did_not_import(target: str) -> None:
    with pytest.raises(PluginError, match=target):
        Imported(target)()


def test_an_imported_factory_has_the_signature_and_the_errors_of_its_target() -> None:
    assert "init" in inspect.signature(plugins.find("recipes", "clevr")).parameters
    with pytest.raises(ZeroDivisionError):
        Imported("fractions:Fraction")(1, 0)


def test_a_command_is_the_function_itself(install: Install) -> None:
    install("own", hook("add.command('shout', print); add.command('whisper', 'builtins:print')"))
    assert plugins.find("commands", "shout")() is plugins.find("commands", "whisper")() is print


def test_an_import_that_is_slow_or_heavy_is_a_warning(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "SLOW", 0.0)
    monkeypatch.setattr(discovery, "HEAVY", frozenset({"this"}))
    monkeypatch.delitem(sys.modules, "this", raising=False)
    install("large", "import this" + textwrap.dedent(hook("pass")))
    slow, heavy = info_of("large").warnings
    assert "s to import, in every command that looks up a name" in slow
    assert heavy.startswith("imports this; give add 'package.module:attribute' instead")


@pytest.mark.parametrize("damage", ["missing", "binary", "no name", "no version"])
def test_damaged_metadata_stop_no_other_plugin(install: Install, tmp_path: Path, damage: str) -> None:
    install("good", GOOD)
    install("odd", hook("add.solver('even', print)"))
    metadata = tmp_path / "energycomp_odd-1.0.dist-info" / "METADATA"
    if damage == "missing":
        metadata.unlink()
    elif damage == "binary":
        metadata.write_bytes(b"\xff\xfe" + metadata.read_bytes())
    else:
        lines = metadata.read_text().splitlines(keepends=True)
        metadata.write_text("".join(line for line in lines if not line.startswith(damage[3:].title())))
    plugins.reload()
    assert plugins.find("solvers", "fractional")
    info = info_of("odd")
    assert info.error is None or "metadata that cannot be read" in info.error


def test_entry_points_that_cannot_be_read(install: Install, tmp_path: Path) -> None:
    """One that is no module is a fault of its plugin; a file that is damaged is one error."""
    install("odd", GOOD)
    file = tmp_path / "energycomp_odd-1.0.dist-info" / "entry_points.txt"
    file.write_text("[energycomp]\nodd = not a module\n")
    plugins.reload()
    assert "Got the entry point 'odd' = 'not a module'. Expected a module" in str(info_of("odd").error)
    file.write_bytes(b"\xff\xfe")
    plugins.reload()
    with pytest.raises(PluginError, match="Reinstall the package whose file is damaged"):
        plugins.find("solvers", "fractional")


@pytest.mark.parametrize("folder", ["energycomp_good-1.0.dist-info", "energycomp.good.egg-info", "x.egg/EGG-INFO"])
def test_a_copy_further_down_the_path_does_not_count(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    install("good", GOOD, version="2.0")
    below = tmp_path / "below" / folder
    below.mkdir(parents=True)
    for name in ("METADATA", "PKG-INFO"):
        (below / name).write_text("Name: energycomp-good\nVersion: 1.0\n")
    (below / "entry_points.txt").write_text("[energycomp]\ngood = fake_good\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "below"), str(below.parent)])
    plugins.reload()
    assert info_of("good").version == "2.0"


FACTORIES = {
    "raises": ("def make(): raise OSError('no such device')", r"Got OSError from {}: no such device"),
    "exits": ("def make(): raise SystemExit(3)", r"Got SystemExit from {}: 3\."),
    "options": ("def make(width): pass", r"Got TypeError from {}: .*'width'"),
    "none": ("def make(): pass", r"Got a NoneType without needs, solve from {}\. Expected a solver"),
    "half": ("class make: needs = None", r"Got a make without solve from {}\."),
    "import": ("make = 'nobody:X'", r"{}: Got ModuleNotFoundError"),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_what_a_factory_does_wrong_is_laid_to_its_plugin(install: Install, name: str) -> None:
    code, message = FACTORIES[name]
    install(name, code + textwrap.dedent(hook("add.solver('new', make)")))
    source = rf"the solver 'new' of the plugin {name} \(energycomp-{name} 1\.0\)"
    with pytest.raises(PluginError, match=message.format(source)) as caught:
        plugins.find("solvers", "new")()
    assert name != "raises" or str(caught.value.__cause__) == "no such device"


def test_what_a_factory_says_about_its_arguments_passes(install: Install) -> None:
    refuse = "def make(): from energycomp.errors import InputError; raise InputError('got 3; expected 4')"
    install("strict", refuse + textwrap.dedent(hook("add.solver('strict', make)")))
    with pytest.raises(InputError, match=r"^got 3; expected 4$"):
        plugins.find("solvers", "strict")()


def test_every_kind_has_a_method() -> None:
    methods = {name for name in vars(Add) if not name.startswith("_")}
    assert methods == {plugins.singular_of(kind) for kind in plugins.KINDS}


def test_packages_of_the_project_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = registry._discover()
    assert registry.first_party() == tuple(
        sorted(path.parent.name for path in (Path(__file__).parents[2] / "plugins").glob("*/pyproject.toml"))
    )
    for kept, hint in (
        (lambda info: info.distribution != "energycomp-lab", "energycomp-lab; pip install energycomp-lab, or"),
        (lambda info: info.name == "core", r"energycomp-adopt, .*; pip install one of them, or"),
    ):
        monkeypatch.setattr(registry, "_discover", lambda kept=kept: tuple(one for one in whole if kept(one.info)))
        with pytest.raises(NotFoundError, match=rf"Known solvers: .*\. Not installed: {hint} 'energycomp\[all\]'$"):
            plugins.find("solvers", "annealing")
    monkeypatch.setattr(registry, "_discover", lambda: whole)
    with pytest.raises(NotFoundError, match=r"Known models: cells, clevr, .*(?<!all\]')$"):
        plugins.find("models", "annealing")


def test_a_name_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_own", {})
    plugins.register("conditioners", "mine", dict)
    plugins.register("conditioners", "mine", list)  # a cell of a notebook that is run again
    assert plugins.find("conditioners", "mine") is list
    assert "mine" in plugins.names("conditioners")
    assert not any("mine" in names for info in plugins.listing(load=True) for names in info.registered.values())
    with pytest.raises(PluginError, match="which a plugin registers"):
        plugins.register("networks", "two_stage", dict)
    plugins.register("networks", "linear", "torch.nn:Linear")
    assert repr(plugins.find("networks", "linear")) == "torch.nn:Linear"
    with pytest.raises(PluginError, match="Got 'mine': 3"):
        plugins.register("networks", "mine", 3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="kind"):
        plugins.register("colours", "mine", dict)  # type: ignore[arg-type]
    assert "mine" not in plugins.names("networks")
