"""What a package index shows of each package, and what its wheel contains."""

import json
import re
import tomllib
import zipfile
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import yaml

import energycomp
from energycomp.plugins import listing

ROOT = Path(__file__).parents[1]
FIRST_PARTY = [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]
ALL = [*FIRST_PARTY, *sorted(ROOT.glob("examples/*/pyproject.toml"))]
REPOSITORY = "https://github.com/energycomp/energycomp"


def metadata(path: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    return project


def named(path: Path) -> str:
    name: str = metadata(path)["name"]
    return name


@pytest.mark.parametrize("path", ALL, ids=named)
def test_licence_and_readme(path: Path) -> None:
    core, project = metadata(ROOT / "pyproject.toml"), metadata(path)
    assert (project["license"], project["license-files"]) == ("MIT", ["LICENSE"])
    assert "readme" in project.get("dynamic", ()) or (path.parent / project["readme"]).is_file()
    assert "Typing :: Typed" in project["classifiers"]
    wheel = tomllib.loads(path.read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert all((path.parent / package / "py.typed").is_file() for package in wheel["packages"])
    assert not [one for one in project["classifiers"] if one.startswith("License ::")]  # `license` takes its place
    if path not in FIRST_PARTY:
        assert (path.parent / "LICENSE").is_file()
        return
    assert (path.parent / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    for field in ("classifiers", "requires-python", "authors"):
        assert project[field] == core[field], field
    assert set(project["urls"]) == {"Homepage", "Documentation", "Repository", "Issues", "Changelog"}
    for url in project["urls"].values():
        assert url.startswith(REPOSITORY)
        file = re.sub(r"^/(tree|blob)/main", "", url.removeprefix(REPOSITORY)).removesuffix("/issues")
        assert (ROOT / file.lstrip("/")).exists(), url


@pytest.mark.parametrize("path", FIRST_PARTY, ids=named)
def test_the_readme_on_an_index_has_no_relative_link(path: Path) -> None:
    hook = tomllib.loads(path.read_text(encoding="utf-8"))["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    shown = (path.parent / hook["fragments"][0]["path"]).read_text(encoding="utf-8")
    for one in hook["substitutions"]:
        shown = re.sub(one["pattern"], one["replacement"], shown)
    targets = re.findall(r"\]\(([^)#]+)", shown)
    assert targets
    for target in targets:
        assert target.startswith("https://"), target
        file = re.sub(f"^({REPOSITORY}/blob|https://raw.githubusercontent.com/energycomp/energycomp)/main/", "", target)
        assert file == target or (ROOT / file).exists(), target


def test_the_extra_all_has_every_package() -> None:
    project = metadata(ROOT / "pyproject.toml")
    needed = project["optional-dependencies"]["all"]
    assert [re.split("[<>=]", one)[0] for one in needed] == sorted(named(path) for path in FIRST_PARTY[1:])


def test_the_library_with_solvers_and_samplers_needs_no_command_line() -> None:
    for folder in ("", "plugins/energycomp-solvers", "plugins/energycomp-samplers"):
        needed = {re.split("[<>=]", one)[0] for one in metadata(ROOT / folder / "pyproject.toml")["dependencies"]}
        assert not {one for one in needed if one.startswith("energycomp-")} | needed & {"typer"}


@pytest.mark.parametrize("folder", ["plugins/energycomp-solvers", "examples/energycomp-lamps"])
def test_a_wheel_holds_the_licence_and_the_types(folder: str, tmp_path: Path) -> None:
    build = pytest.importorskip("hatchling.build")
    pytest.importorskip("hatch_fancy_pypi_readme")
    with chdir(ROOT / folder):
        wheel = tmp_path / build.build_wheel(str(tmp_path))
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        (licence,) = (name for name in names if name.endswith(".dist-info/licenses/LICENSE"))
        (meta,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        assert files.read(licence) == (ROOT / folder / "LICENSE").read_bytes()
        shown = files.read(meta).decode()
    assert [name for name in names if name.endswith("/py.typed")]
    assert "License-Expression: MIT" in shown
    assert "Description-Content-Type: text/markdown" in shown
    assert ("weights/model.safetensors" in " ".join(names)) == ("lamps" in folder)


def test_the_included_weights_are_at_most_102_mb() -> None:  # 86, and those of a training that goes on
    files = list(ROOT.glob("plugins/*/energycomp_*/weights/**/*.safetensors"))
    assert len(files) >= 13
    assert sum(file.stat().st_size for file in files) <= 102_000_000


@pytest.mark.parametrize("package", ["clevr", "decomp", "faces", "slots", "text"])
def test_a_model_needs_the_packages_of_what_it_names_by_default(package: str) -> None:
    folder = ROOT / f"plugins/energycomp-{package}"
    project = metadata(folder / "pyproject.toml")
    requirements = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    needed = {re.split(r"[<>=\[]", requirement)[0] for requirement in requirements}
    configs = [json.loads(path.read_text()) for path in folder.glob("*/weights/**/config.json")]
    solvers = {config["defaults"]["solver"] for config in configs if "defaults" in config}  # others are codecs
    (known,) = (info.registered["solvers"] for info in listing(load=True) if info.distribution == "energycomp-solvers")
    assert set() < solvers <= set(known)
    assert {"energycomp-cli", "energycomp-solvers"} <= needed
    code = "".join(path.read_text() for path in folder.glob("energycomp_*/**/*.py"))
    imported = set(re.findall(r"^ *(?:from|import) (energycomp_\w+)", code, re.MULTILINE)) - {f"energycomp_{package}"}
    assert {name.replace("_", "-") for name in imported} <= needed


@pytest.mark.parametrize("path", sorted([*ROOT.glob(".github/**/*.yml"), ROOT / ".pre-commit-config.yaml"]), ids=str)
def test_a_configuration_is_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_the_workflow_tests_the_versions_that_are_declared() -> None:
    matrix = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["tests"]["strategy"]["matrix"]
    declared = [one.rpartition(" ")[2] for one in metadata(ROOT / "pyproject.toml")["classifiers"] if ":: 3." in one]
    assert matrix["python"] == declared
    assert "lowest-direct" in {one["resolution"] for one in matrix["include"]}


WORKFLOWS = [*ROOT.glob(".github/workflows/*.yml"), *ROOT.glob("examples/template/package/.github/workflows/*.yml")]


def test_actions_are_pinned_by_the_commit_of_one_release() -> None:
    uses = [line for path in WORKFLOWS for line in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))]
    pins = [re.fullmatch(r"([\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line) for line in uses]
    assert len(uses) > 10
    assert None not in pins
    found = {(pin[1], pin[2], pin[3]) for pin in pins if pin}
    assert len(found) == len({action for action, _, _ in found})  # one version of each
    assert len({version for action, _, version in found if action.endswith("load-artifact")}) == 1


def test_a_release_is_started_by_hand_and_approved() -> None:
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    assert list(release[True]) == ["workflow_dispatch"]  # YAML 1.1 reads `on` as true
    publish = release["jobs"]["publish"]
    assert (publish["permissions"], publish["environment"]) == ({"id-token": "write"}, "pypi")
    assert publish["needs"] == "attest"


def test_the_tools_are_dependency_groups_that_make_and_the_workflows_install() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["dependency-groups"]) == {"dev", "docs"}
    assert set(project["project"]["optional-dependencies"]) == {"all", "mp4", "onnx", "openvino"}
    for path in [ROOT / "Makefile", *ROOT.glob(".github/workflows/*.yml")]:
        asked = set(re.findall(r"--group (\w+)", path.read_text(encoding="utf-8")))
        assert asked <= {"dev", "docs"}, path
        assert path.name != "Makefile" or asked == {"dev", "docs"}


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == energycomp.__version__
    assert citation["preferred-citation"]["doi"] in (ROOT / "README.md").read_text(encoding="utf-8")
    codemeta = json.loads((ROOT / "codemeta.json").read_text(encoding="utf-8"))
    assert (codemeta["version"], codemeta["keywords"]) == (citation["version"], citation["keywords"])
    assert codemeta["referencePublication"]["identifier"].endswith(citation["preferred-citation"]["doi"])
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.search(rf"^## \[{re.escape(energycomp.__version__)}\] - (\S+)$", changelog, re.MULTILINE)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", citation["date-released"])
    assert released is None or released[1] == citation["date-released"]


def test_the_paper_cites_what_its_bibliography_has() -> None:
    entries = re.findall(r"^@\w+\{(\w+),$", (ROOT / "paper.bib").read_text(encoding="utf-8"), re.MULTILINE)
    head, text = (ROOT / "paper.md").read_text(encoding="utf-8").split("\n---\n", 1)
    assert yaml.safe_load(head)["bibliography"] == "paper.bib"
    assert set(re.findall(r"@(\w+)", text)) == set(entries)
    assert len(entries) == len(set(entries))
    assert 750 < len(text.split()) < 1750  # what the journal asks for
