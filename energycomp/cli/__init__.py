"""The command line, one file per command; `--help` imports neither torch nor diffusers.

What the commands of plugins share with ours is importable from here.
"""

from energycomp.cli.app import app, main
from energycomp.cli.files import RESULTS, check_folder, image_files, make_folder
from energycomp.cli.infer import Format, JsonLines, Printer, Redraw, sha256_of
from energycomp.cli.lines import Lines, append_line, claimed, read_lines, records_of
from energycomp.cli.options import (
    MODELS_OWN,
    AsJson,
    Concepts,
    Count,
    Device,
    Dtype,
    ModelName,
    Options,
    Seed,
    SolverName,
    Source,
    Template,
    Views,
    load_model,
    loading,
    model_options,
    over,
    parse_count,
    parse_options,
    takes_words,
    with_views,
)
from energycomp.cli.output import print_json, print_table
from energycomp.cli.reading import Reading
from energycomp.cli.results import Results, model_fingerprint, result_files, result_key
from energycomp.cli.shards import Shard, ShardOption, local_device, shard_of, shards_of

__all__ = [
    "MODELS_OWN",
    "RESULTS",
    "AsJson",
    "Concepts",
    "Count",
    "Device",
    "Dtype",
    "Format",
    "JsonLines",
    "Lines",
    "ModelName",
    "Options",
    "Printer",
    "Reading",
    "Redraw",
    "Results",
    "Seed",
    "Shard",
    "ShardOption",
    "SolverName",
    "Source",
    "Template",
    "Views",
    "app",
    "append_line",
    "check_folder",
    "claimed",
    "image_files",
    "load_model",
    "loading",
    "local_device",
    "main",
    "make_folder",
    "model_fingerprint",
    "model_options",
    "over",
    "parse_count",
    "parse_options",
    "print_json",
    "print_table",
    "read_lines",
    "records_of",
    "result_files",
    "result_key",
    "sha256_of",
    "shard_of",
    "shards_of",
    "takes_words",
    "with_views",
]
