"""The page "Command line" of the documentation, from the commands themselves.

`python -m energycomp.cli.reference > docs/cli.md` writes it, and a test compares the two.
"""

from __future__ import annotations

import re
from textwrap import fill, wrap
from typing import Any

import typer

from energycomp.cli.app import app

WIDTH = 74  # characters of a line of an example

HEAD = """# Command line

Every command of `energycomp`, as `energycomp COMMAND --help` prints it. This page is generated:
`python -m energycomp.cli.reference > docs/cli.md`.

| command | what it does |
| --- | --- |
{commands}

`--version` prints the version. A command ends with exit code 0 for success, 1 where some of several images or checks
failed, 2 for input that is refused, with the reason in one line, and 130 after Ctrl-C. Plugins add commands;
`energycomp --help` lists them, too.
"""


def reference() -> str:
    """The page in Markdown: one section per command of this package, without those of plugins."""
    group = typer.main.get_command(app)
    parent = group.make_context("energycomp", [], resilient_parsing=True)
    commands: dict[str, Any] = group.commands  # type: ignore[attr-defined]
    lines = [f"| [`{name}`](#{name}) | {_paragraphs(command)[0]} |" for name, command in commands.items()]
    sections = [_section(name, command, parent) for name, command in commands.items()]
    return "\n".join([HEAD.format(commands="\n".join(lines)), *sections])


def _section(name: str, command: Any, parent: Any) -> str:
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    paragraphs = _paragraphs(command)
    examples = [text for text in paragraphs if text.startswith("energycomp ")]
    prose = "\n\n".join(fill(_marked(text), 120) for text in paragraphs if text not in examples)
    pieces = " ".join(command.collect_usage_pieces(context))
    usage = "\n".join([f"energycomp {name} {pieces}", "", *map(_broken, examples)])
    rows = [_row(parameter, context) for parameter in command.get_params(context) if "--help" not in parameter.opts]
    table = "\n".join(["| argument or option | meaning | default |", "| --- | --- | --- |", *filter(None, rows)])
    return f"## {name}\n\n{prose}\n\n```text\n{usage}\n```\n\n{table}\n"


def _paragraphs(command: Any) -> list[str]:
    """The paragraphs of a help text, each as one line."""
    return [" ".join(text.split()) for text in re.split(r"\n\s*\n", command.help or "") if text.strip()]


def _marked(text: str) -> str:
    """Options as code, so that they are not broken at their hyphens."""
    return re.sub(r"(?<![\w`-])--?[a-z][a-z-]*\b", r"`\g<0>`", text)


def _broken(example: str) -> str:
    """A command on lines that a page shows without scrolling."""
    quoted = re.sub(r'"[^"]*"', lambda found: found[0].replace(" ", "\0"), example)
    glued = re.sub(r" (-\S+) (?=[^-])", " \\1\0", quoted)  # an option stays with its value
    lines = wrap(glued, WIDTH, break_long_words=False, break_on_hyphens=False)
    return " \\\n    ".join(lines).replace("\0", " ")


def _row(parameter: Any, context: Any) -> str | None:
    """A row of the table, such as "| `-n INT` | Number of samples. | 1 |"; None for an option that is hidden."""
    record = parameter.get_help_record(context)
    if record is None:
        return None
    names, _, kind = record[0].partition(" <")
    text, _, brackets = record[1].partition("  [")
    kind = kind.removesuffix(">").removeprefix("list[").removesuffix("]").removesuffix(" range")
    if kind and parameter.param_type_name == "option":
        names += f" {'{' + kind.replace('|', ',') + '}' if '|' in kind else kind.upper()}"
    notes = [note.strip() for note in brackets.removesuffix("]").split(";")]
    default = next((note for note in notes if not re.search("[<>]=?", note)), "").removeprefix("default: ")
    cells = f"`{names}`", _marked(text).replace("*", r"\*"), default.removeprefix("(").removesuffix(")")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    typer.echo(reference(), nl=False)
