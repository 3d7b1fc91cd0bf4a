"""The README and the pages of docs: their console and Python blocks run as they stand, and links lead somewhere.

The blocks of a page share a working folder and a namespace, as if a reader copied one after another. A page is written
for the reader: what makes its blocks quick enough for a test is here.
"""

import pkgutil
import re
import runpy
import shlex
from functools import cache, partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from benchmarks.common.made import made_with
from energycomp import __version__, load, plugins
from energycomp.denoisers import TwoStageUNet
from energycomp.models import Model
from energycomp.plugins import find, registry
from energycomp_cli import app

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "docs" / "scripts"
READABILITY = runpy.run_path(str(SCRIPTS / "readability.py"))
TUTORIAL = runpy.run_path(str(SCRIPTS / "tutorial.py"))
blocks, commands = TUTORIAL["blocks"], TUTORIAL["commands"]
MOST_MINUTES = 12  # of reading, but for pages of the reference, which nobody reads from beginning to end
CONTRIBUTORS = ["CONTRIBUTING", "SECURITY", "CODE_OF_CONDUCT", "GOVERNANCE", "SUPPORT"]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Pages whose blocks are not run here, and why.
ELSEWHERE = {
    "docs/tutorial.md": "takes minutes; docs/scripts/tutorial.py runs it",
    "docs/gallery.md": "draws figures, most of which take minutes",
    **{f"docs/notebooks/{path.stem}.md": "tests/test_notebooks.py runs it" for path in ROOT.glob("examples/*.ipynb")},
}
# Commands that are not run, by a pattern of their text, and why.
NOT_RUN = {
    r"^(make|git|pip|copier|cd|pytest) ": "downloads or installs packages, or tests what it has installed",
    r"^python benchmarks/": "measures for minutes or longer",
    r"^accelerate launch ": "starts several processes",
    r"^energycomp train ": "trains for minutes or longer",
    r"^energycomp studio\b": "serves a page until it is stopped",
    r"^energycomp \w+ runs/": "reads a model that a command before it trains",
    r" (CLEVR_v1\.0|clevrtex_full|DIR|multi_dsprites\.npz|photos/)": "reads files of the user",
    r"cmaes|lamps|energycomp-random": "needs a package that the page installs or writes",
    r"^energycomp edit clevr scene.png --set": "reads and repaints whole objects, as edit.md does",
}
# What makes the other commands quick: few images and draws, a small model, and no search for the count of
# components.
QUICKER = {
    r"^(energycomp data clevr) -n \d{3,} ": r"\1 -n 1 ",
    r"^(energycomp (?:data|sample) .*?)-n (?:4|8|16|100) ": r"\1-n 2 ",
    r"^(energycomp (?:infer|batch) clevr\S* .*)": r"\1 --count 0 --anyway",
    r"^(energycomp infer (?:faces|cells|dice) .*)": r"\1 --anyway",
    r"^(energycomp rank .*)": r"\1 --draws 4",
    r"^(energycomp sample clevr .*--best-of) 4": r"\1 2 --steps 2",
    r"^(energycomp evaluate clevr\S* .*)-n (?:100|300)": r"\1-n 1 --count 0",
    r"^(energycomp sample clevr .*) (--sampler .*)": r"\1 --steps 2 \2",
    r"^energycomp edit clevr (scene.png .*)": r"energycomp edit clevr-small \1 --count 2 --steps 2 --tries 1",
    r"^energycomp edit clevr (\$scene .*)": r"energycomp edit clevr-small \1 --count 4 --steps 2 --tries 1",
    r"^(energycomp scene .*)": r"\1 --steps 2 --tries 1",
    r"^(energycomp relate .*)": r"\1 --count 0",
    r"^(energycomp data clevr-videos .*)": r"\1 --objects 2:32x32:6f",
    r"^energycomp track clevr (.*)": r"energycomp track clevr-places \1",
    r"^(energycomp film .*)": r"\1 --steps 2 --frames 2",
    r"^(energycomp infer clevr .*) --redraw": r"\1",
    r"^(energycomp evaluate text-composed) -n 200 ": r"\1 -n 1 ",
    r"^(energycomp evaluate faces .*)": r"\1 -n 1",
    r"^(energycomp evaluate decomp .*)-n 100": r"\1-n 1 --option views=1",
    r"^(energycomp traverse decomp .*)": r"\1 --steps 2 --option views=1",
    r"^(energycomp (?:decompose|recombine) decomp .*)": r"\1 --option views=1 --steps 3",
    r"^(energycomp sample (?:clevr|faces|text\S*) (?:(?!--steps).)*)$": r"\1 --steps 3",
}
# The same for Python, and a comment above a block that says why it is not run: <!-- not run: downloads a model -->
QUICKER_PYTHON = {
    r"\(cube & ball\)\.sample\(generator=0\)": "(cube & ball).sample(generator=0, num_inference_steps=4)",
    r"num_inference_steps=(10|20|50)": "num_inference_steps=4",
    r'energycomp\.infer\("graph\.png", clevr, count=3\)': 'energycomp.inference.explain("graph.png", clevr, values[0])',
    r'infer\("scene\.png", clevr\)': r'infer("scene.png", clevr, count=0)',
    r"infer\(image, clevr\)": "infer(image, clevr, count=0)",
    r"infer\(image, clevr, count=2\)": r"infer(image, clevr, count=0)",
    r"infer\(images\[0\], clevr, count=2": r"infer(images[0], clevr, count=0",
    r"noise=0\.1, count=\(1, 4\)": "noise=0.1, count=(1, 4), num_inference_steps=10",
    r"\{2: 0\.7, 3: 0\.3\}": "{2: 1.0}",
    r"clevr = energycomp\.load\(.*\)  # or .*": "from energycomp.testing import tiny_model\nclevr = tiny_model()",
    r"clevr, torch\.rand\(16, 3, 64, 64\)": "clevr, torch.rand(8, 3, 16, 16)",
}
SHIPPED = {*plugins.names("models")}
COMPARED = ("clevr-places", "clevr-places-flow")  # models whose answers a page states
# What a page has found at its end.
FOUND = {
    "decompose.md": "both.shape == mixed.shape == changed.shape == crossed.shape == (1, 3, 32, 32)"
    " and empty.shape == (2, 5) and len(either) == 4",
    "own.md": "image[:, :32].mean() > image[:, 32:].mean() + 0.05",
}


def is_run(command: str) -> bool:
    return not any(re.search(pattern, command) for pattern in NOT_RUN)


def quicker(text: str, patterns: dict[str, str]) -> str:
    for pattern, replacement in patterns.items():
        text = re.sub(pattern, replacement, text)
    return text


def words(command: str, variables: dict[str, str]) -> list[str]:
    """What a shell makes of a command: words with the values of variables, and the names of matching files."""
    valued = re.sub(r"\$(\w+)", lambda match: variables[match[1]], command)
    found: list[str] = []
    for word in shlex.split(valued):
        found += (sorted(map(str, Path().glob(word))) if "*" in word else []) or [word]
    return found


def light(network: Any) -> Any:
    """A `TwoStageUNet` of few weights, all random: what models draw and read is tested elsewhere.

    It predicts a part of the noised sample, so that strong noise leaves more open than weak noise.
    """
    few = {"channels": [8] * len(network.config["channels"]), "head_channels": 8, "groups": 4, "width": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = type(network)(**{**network.config, **few, "blocks": 1, "head_blocks": 1, "skip": True})
        for weight in made.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.05)
    torch.nn.init.constant_(made.skip.bias, 0.5)
    return made.eval()


def quick(source: Any, **options: Any) -> Model:
    """`load`, of a light model that samples in few of its steps, reads with few of its draws, and doubts no answer."""
    return shipped(source, **options) if source in SHIPPED else quicker_model(load(source, **options))


@cache
def shipped(name: str, **options: Any) -> Model:
    """A model of a registered name, which all pages share."""
    return quicker_model(load(name, **options))


def quicker_model(model: Model) -> Model:
    if isinstance(model.denoiser.network, TwoStageUNet) and model.name not in COMPARED:
        model = attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, network=light(model.denoiser.network)))
    usual = model.defaults
    draws = 16 if model.name in COMPARED else 8
    fewer = {"draws": min(draws, usual.draws), "num_inference_steps": min(4, usual.num_inference_steps)}
    solver = "first answer" if usual.solver == "pursuit" else usual.solver
    return attrs.evolve(model, defaults=attrs.evolve(usual, solver=solver, **fewer))


def run_command(command: str, variables: dict[str, str]) -> None:
    if assigned := re.fullmatch(r"(\w+)=(\S+)", command):
        variables[assigned[1]] = assigned[2]
        return
    program, *arguments = words(quicker(command, QUICKER), variables)
    assert program == "energycomp"
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, f"{command}\n{done.output}"


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


BLOCKS = {page: list(blocks(page)) for page in PAGES}
PYTHON = [block.text for every in BLOCKS.values() for block in every if block.language == "python"]
COMMANDS_OF = {
    page: [one for block in every if block.language == "console" for one in commands(block.text)]
    for page, every in BLOCKS.items()
}
COMMANDS = [command for every in COMMANDS_OF.values() for command in every]
ONLY_PARSED = [
    command
    for page, every in COMMANDS_OF.items()
    for command in every
    if command.startswith("energycomp ") and (name(page) in ELSEWHERE or not is_run(command))
]
RUN = [
    page
    for page, every in BLOCKS.items()
    if name(page) not in ELSEWHERE
    and any(
        not block.reason if block.language == "python" else any(map(is_run, commands(block.text))) for block in every
    )
]


@pytest.mark.skipif(
    not {*plugins.first_party()} <= {info.distribution for info in plugins.listing(load=True) if not info.error},
    reason="the pages use all packages of the repository",
)
@pytest.mark.parametrize("page", RUN, ids=name)
def test_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.setattr(registry, "_own", {})
    for where in ("energycomp", "energycomp.models"):  # of Python, and of commands
        monkeypatch.setattr(f"{where}.load", quick)
    plugins.register("solvers", "first answer", partial(find("solvers", "pursuit"), budget=0))
    monkeypatch.setattr("energycomp.inference.judge.FIT_DRAWS", 4)
    torch.manual_seed(0)  # what a page samples without a generator
    variables: dict[str, str] = {}
    names: dict[str, Any] = {"__name__": page.stem}
    for block in BLOCKS[page]:
        if block.reason:
            continue
        if block.language == "console":
            for command in filter(is_run, commands(block.text)):
                run_command(command, variables)
        else:
            lines = "\n" * block.line + quicker(block.text, QUICKER_PYTHON)  # an error shows the line of the page
            exec(compile(lines, str(page), "exec"), names)  # noqa: S102 - the pages are ours
    assert eval(FOUND.get(page.name, "True"), names)  # noqa: S307 - written above


@pytest.mark.parametrize("command", ONLY_PARSED)
def test_the_options_of_a_command_that_is_not_run(command: str) -> None:
    _, *given = words(command, {"SD": "owner/name"})
    group = typer.main.get_command(app)
    name, found, arguments = group.resolve_command(typer.Context(group), given)  # type: ignore[attr-defined]
    found.make_context(name, arguments)


def test_each_step_of_the_tutorial_can_run() -> None:
    """Its Python is compiled, and each of its images is a file that a step writes."""
    page = ROOT / "docs" / "tutorial.md"
    written = {"track.gif"}  # in the folder of `energycomp track`
    for block in blocks(page):
        written |= {Path(found).name for found in re.findall(r"[\w/]+\.(?:png|gif)", block.text)}
        if block.language == "python":
            compile(block.text, str(page), "exec")
    assert {*re.findall(TUTORIAL["SHOWN"], page.read_text(encoding="utf-8"))} <= written


def test_the_tutorial_keeps_what_its_steps_print_and_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a page of two steps: the text below a block is what it prints now, and the image is copied."""
    page = tmp_path / "tutorial.md"
    first = "# Page\n\n<!-- made with lit 0 -->\n"
    first += "\n## 1. Command\n\n```console\n$ energycomp --version\n```\n\n```text\nold\n```\n"
    second = "\n## 2. Python\n\n```python\nopen('a.png', 'w').write('x')\n```\n\n![a](images/tutorial/a.png)\n"
    page.write_text(first + second, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")  # which the script changes
        patch.setattr("sys.argv", ["tutorial.py", "-o", str(tmp_path)])
        TUTORIAL["main"]()
    first = first.replace("old", f"energycomp {__version__}").replace("made with lit 0", made_with("lit"))
    assert page.read_text(encoding="utf-8") == first + second
    assert (tmp_path / "images" / "tutorial" / "a.png").read_text() == "x"
    assert re.findall(r"s of a core  (\S+)", capsys.readouterr().out) == ["energycomp", "open('a.png',", "all"]


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/start.md", "docs/tutorial.md"])
def test_what_a_page_prints_is_of_the_weights_of_today(page: str) -> None:
    """Otherwise run its first reading again, or `python docs/scripts/tutorial.py`, and write today's stamp."""
    stamps = re.findall(TUTORIAL["STAMP"], (ROOT / page).read_text(encoding="utf-8"))
    assert stamps == ["clevr"]
    assert f"<!-- {made_with('clevr')} -->" in (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "images").glob("studio-*.png")), ids=lambda file: file.name)
def test_a_screenshot_is_of_the_weights_of_today(file: Path) -> None:
    """Otherwise run `python docs/scripts/screenshots.py`."""
    with Image.open(file) as image:
        assert image.info.get("Comment") == made_with("clevr")


def test_the_gallery_has_each_figure() -> None:
    """Those of the tutorial and of the notebooks stand below what makes them, on their own pages."""
    folder, text = ROOT / "docs" / "images", (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    figures = {path.name for path in folder.iterdir() if path.is_file()}
    shown = re.findall(r"\]\(images/([\w./-]+)\)\n", text)
    downloads = re.findall(r"\[Download\]\(images/([\w./-]+)\)\{ download \}", text)
    assert sorted(shown) == sorted(downloads)
    assert figures <= {*shown}
    assert text.count("```console\n") == len(shown)


@pytest.mark.parametrize("pattern", [*NOT_RUN, *QUICKER, *QUICKER_PYTHON])
def test_an_exception_is_needed(pattern: str) -> None:
    texts = PYTHON if pattern in QUICKER_PYTHON else COMMANDS
    assert any(re.search(pattern, text) for text in texts)


@pytest.mark.parametrize("page", [*PAGES, *(ROOT / f"{stem}.md" for stem in CONTRIBUTORS)], ids=name)
def test_what_a_page_names_exists(page: Path) -> None:
    """Links and images, and in tables of promises the code and tests: `tests/test_files.py::test_damage_is_named`."""
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)|(?:src|href)=\"([^\"#]+)\"", text):
        path = target[0] or target[1]
        assert path.startswith("http") or (page.parent / path).exists(), path
    for file, test in re.findall(r"\| `((?:energycomp|plugins|tests)/[\w/.-]+\.py)(?:::(\w+))?` (?=\|)", text):
        assert (ROOT / file).is_file(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
    text = " ".join(text.split())
    assert not re.search(r"pip install '?energycomp", text) or "not on a package index yet" in text


def anchors(page: Path) -> set[str]:
    """Where links into a page may lead: its headings as a site and a repository write them, or `{ #names }` of ours."""
    found = set()
    prose = re.sub(READABILITY["CODE"], "", page.read_text(encoding="utf-8"))
    for heading in re.findall(r"(?m)^#+ (.*)", prose):
        named = re.search(r"\{[^}]*#([\w-]+)", heading)
        words = re.sub(r"[^\w\s-]", "", re.sub(r"\]\([^)]*\)", "", heading).lower())
        found.add(named[1] if named else re.sub(r"\s+", "-", words.strip()))
    return found


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name)
def test_a_link_into_a_page_leads_to_a_heading(page: Path) -> None:
    prose = re.sub(READABILITY["CODE"], "", page.read_text(encoding="utf-8"))
    for path, anchor in re.findall(r"\]\((?!http)([^)#\s]*)#([\w-]+)\)", prose):
        target = page.parent / path if path else page
        assert target.suffix != ".md" or anchor in anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "api"], ids=name)
def test_the_names_of_python_on_a_page_exist(page: Path) -> None:
    """Such as `energycomp.images.overlay`; a page shows how to write the package `energycomp_random`."""
    for dotted in set(re.findall(r"\b(energycomp(?:_\w+)?(?:\.[A-Za-z_]\w*)+)\b", page.read_text(encoding="utf-8"))):
        assert dotted.startswith("energycomp_random.") or pkgutil.resolve_name(dotted) is not None


@pytest.mark.parametrize("folder", ["", "docs", "benchmarks", "energycomp", "plugins", "examples"])
def test_the_scripts_that_pages_and_code_name_exist(folder: str) -> None:
    """But for those of which a file says that they are in the history alone."""
    found = (ROOT / folder).rglob("*") if folder else ROOT.glob("*")
    for file in found:
        if file.suffix not in (".md", ".py", ".toml") or file.name == "CHANGELOG.md":
            continue
        text = file.read_text(encoding="utf-8")
        for script in re.findall(r"(?<![\w/.-])((?:benchmarks|docs/scripts)/[\w/.-]+\.py)\b", text):
            assert (ROOT / script).is_file() or "at commit f452804" in " ".join(text.split()), f"{file}: {script}"


def test_a_page_is_read_in_twelve_minutes() -> None:
    """Without its code."""
    for pattern in ("*.md", "docs/*.md", "docs/benchmarks/*.md"):
        for page in ROOT.glob(pattern):
            _, _, minutes = READABILITY["measured"](page.read_text(encoding="utf-8"))
            assert minutes <= MOST_MINUTES or page.name in ("CHANGELOG.md", "cli.md"), page
    text = "A [link](page.md) of `code`.\n\n```python\n" + "x = 1\n" * 500 + "```\n\nIt is read.\n"
    assert READABILITY["measured"](text)[1:] == (3, pytest.approx(6 / 230))
