"""The command line: Typer commands over the public API of energycomp, and what the commands of plugins share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import Add, hookimpl

if TYPE_CHECKING:
    from energycomp_cli.answers import (
        Answer as Answer,
        Answers as Answers,
        answers_in as answers_in,
        identify as identify,
    )
    from energycomp_cli.commands import app as app, main as main
    from energycomp_cli.files import (
        SETTINGS as SETTINGS,
        check_folder as check_folder,
        check_png as check_png,
        make_folder as make_folder,
        result_files as result_files,
    )
    from energycomp_cli.formula import NoMetadata as NoMetadata, formula_of as formula_of, made_by as made_by
    from energycomp_cli.infer import Anyway as Anyway, Format as Format, Redraw as Redraw
    from energycomp_cli.items import (
        Item as Item,
        frames as frames,
        image_files as image_files,
        read_image as read_image,
        sha256_of as sha256_of,
    )
    from energycomp_cli.lines import (
        append_line as append_line,
        claim as claim,
        read_lines as read_lines,
        records_of as records_of,
    )
    from energycomp_cli.names import Names as Names
    from energycomp_cli.options import (
        MODELS_OWN as MODELS_OWN,
        AsJson as AsJson,
        Count as Count,
        ModelName as ModelName,
        Png as Png,
        Run as Run,
        Seed as Seed,
        SolverName as SolverName,
        Steps as Steps,
        load_model as load_model,
        loading as loading,
        parse_count as parse_count,
        parse_options as parse_options,
        read_text as read_text,
        takes_words as takes_words,
        with_words as with_words,
    )
    from energycomp_cli.output import print_json as print_json, print_table as print_table
    from energycomp_cli.reader import (
        ImageReader as ImageReader,
        failure as failure,
        model_fingerprint as model_fingerprint,
    )
    from energycomp_cli.report import (
        exit_code as exit_code,
        kind_of as kind_of,
        printer as printer,
        report_refused as report_refused,
    )
    from energycomp_cli.writers import Output as Output, Write as Write

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register(add: Add) -> None:
    """A format of answers."""
    add.writer("coco", "energycomp_cli.coco:coco")
