"""What a newcomer tries first: folders of folders, other formats, a sign of life, Ctrl-C at the end."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import energycomp_cli as cli
from energycomp.errors import InputError
from energycomp.images import cell, save_image
from energycomp_cli.files import check_png
from energycomp_cli.items import image_files


def test_folders_are_searched_recursively_without_results_and_hidden_files(tmp_path: Path) -> None:
    kept = ["a.png", "train/b.jpg", "train/deep/c.webp"]
    for name in (*kept, "out/a.png", "old/d.png", "parts/_failed/g.png", ".cache/e.png", "train/.f.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "old" / "results.jsonl").touch()
    (tmp_path / "parts" / "_settings.json").touch()
    (tmp_path / "b.png").symlink_to("a.png")  # the same image, which keeps its first name
    (tmp_path / "linked").symlink_to("train")
    found = image_files([tmp_path], without=tmp_path / "out").values()
    assert [str(path.relative_to(tmp_path)) for path in found] == kept


@pytest.mark.parametrize(("suffix", "form"), [(".png", "PNG"), (".jpg", "JPEG"), (".JPEG", "JPEG"), (".webp", "WEBP")])
def test_an_image_is_written_in_the_format_of_its_name(tmp_path: Path, suffix: str, form: str) -> None:
    save_image(Image.new("RGB", (8, 8), (200, 30, 60)), tmp_path / f"a{suffix}")
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.format == form
        pixel: Any = image.getpixel((4, 4))
        assert all(abs(got - wanted) <= 3 for got, wanted in zip(pixel, (200, 30, 60), strict=True))
    with pytest.raises(InputError, match="such as image"):
        save_image(Image.new("RGB", (8, 8)), tmp_path / "a.gif")
    assert len(list(tmp_path.iterdir())) == 1


def in_a_process(code: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_what_is_loaded_is_said_before_torch_is_imported() -> None:
    code = (
        "import os, sys, typer\nfrom energycomp_cli import main\n"
        "said = typer.echo\n"
        "def echo(text, **options):\n    said(f'{text} {\"torch\" in sys.modules}', **options); os._exit(0)\n"
        "typer.echo = echo\nsys.argv = ['energycomp', 'sample', 'clevr']\nmain()"
    )
    assert in_a_process(code)[2] == "energycomp: loading clevr ... False\n"


def test_a_model_that_is_not_there_and_list_are_answered_without_torch() -> None:
    for words, said in (
        (["sample", "clever"], "energycomp: No model is named 'clever'. Did you mean 'clevr'?"),
        (["list"], "energycomp: No command is named 'list'. `energycomp plugins` lists models and all else."),
    ):
        code = (
            f"import sys\nfrom energycomp_cli import main\nsys.argv = ['energycomp', *{words}]\n"
            "try:\n    main()\nfinally:\n    print('torch' in sys.modules)"
        )
        status, out, err = in_a_process(code)
        assert (status, out) == (2, "False\n")
        assert err.startswith(said)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
def test_ctrl_c_in_an_exit_handler_prints_no_traceback() -> None:
    code = (
        "import atexit, os, signal, sys\nfrom energycomp_cli import main\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"  # as a person does while a library cleans up
        "sys.argv = ['energycomp', '--version']\nmain()"
    )
    assert in_a_process(code)[::2] == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
def test_ctrl_c_during_an_import_waits_for_its_end(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, signal, time\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(0.2)\n"
        "except BaseException:\n    print('swallowed')\n"  # as libraries do
    )
    code = (
        "import sys, types\nfrom energycomp_cli.__main__ import main\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "def run():\n    import slow, time\n    time.sleep(9)\n    print('went on')\n"
        "sys.modules['energycomp_cli'] = types.ModuleType('energycomp_cli')\n"
        "sys.modules['energycomp_cli.commands'] = types.SimpleNamespace(main=run)\nmain()"
    )
    assert in_a_process(code) == (130, "", "energycomp: interrupted\n")


def test_shells_complete_commands_and_a_latent_has_three_digits() -> None:
    assert "--install-completion" in CliRunner().invoke(cli.app, ["--help"]).output
    assert cell([0.123456789, -2.0, 31415.9]) == "0.123, -2, 3.14e+04"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has such a folder")
def test_a_folder_that_takes_no_file_is_refused_before_any_work() -> None:
    with pytest.raises(InputError, match=r"got -o /proc/x\.png; expected a PNG file in a folder that can be written"):
        check_png(Path("/proc/x.png"))
