"""The command line, one file per command; `--help` imports neither torch nor diffusers.

What the commands of plugins share with ours is importable from here.
"""

from energycomp.cli.app import app, main
from energycomp.cli.files import check_folder, make_folder
from energycomp.cli.lines import append_line, read_lines
from energycomp.cli.options import (
    MODELS_OWN,
    AsJson,
    Concepts,
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
from energycomp.cli.results import Records, model_fingerprint
from energycomp.cli.shards import Shard, ShardOption, local_device, shard_of

__all__ = [
    "MODELS_OWN",
    "AsJson",
    "Concepts",
    "Device",
    "Dtype",
    "ModelName",
    "Options",
    "Records",
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
    "shard_of",
    "takes_words",
    "with_views",
]
