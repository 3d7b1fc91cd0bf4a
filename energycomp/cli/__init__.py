"""The command line, one file per command; `--help` imports neither torch nor diffusers.

What the commands of plugins share with ours is importable from here.
"""

from energycomp.cli.app import (
    app as app,
    main as main,
)
from energycomp.cli.files import (
    RESULTS as RESULTS,
    check_folder as check_folder,
    image_files as image_files,
    make_folder as make_folder,
)
from energycomp.cli.infer import (
    Format as Format,
    JsonLines as JsonLines,
    Redraw as Redraw,
)
from energycomp.cli.lines import (
    Lines as Lines,
    append_line as append_line,
    claimed as claimed,
    read_lines as read_lines,
    records_of as records_of,
)
from energycomp.cli.options import (
    MODELS_OWN as MODELS_OWN,
    AsJson as AsJson,
    Count as Count,
    Device as Device,
    ModelName as ModelName,
    Options as Options,
    Seed as Seed,
    SolverName as SolverName,
    Views as Views,
    load_model as load_model,
    loading as loading,
    over as over,
    parse_count as parse_count,
    parse_options as parse_options,
    takes_words as takes_words,
    with_views as with_views,
)
from energycomp.cli.output import (
    Printer as Printer,
    print_json as print_json,
    print_table as print_table,
)
from energycomp.cli.reading import (
    Reading as Reading,
)
from energycomp.cli.results import (
    Results as Results,
    model_fingerprint as model_fingerprint,
    result_files as result_files,
    result_key as result_key,
    sha256_of as sha256_of,
)
from energycomp.cli.shards import (
    Shard as Shard,
    ShardOption as ShardOption,
    local_device as local_device,
    shard_of as shard_of,
)
