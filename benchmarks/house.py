"""Measure the structure of the code: lines, long files, rooms, floors, imports between rooms, circles.

python benchmarks/house.py [TREE ...] [--json]

A room is a folder or a module directly inside a package. Imports are counted once per pair of rooms, those for type
checking and inside functions included. Floors are the rooms on the longest chain of imports. Circles are counted
without the top-level `__init__`, whose names are resolved on first use. Options are those of all commands that the tree
and the installed plugins have, without help and completion; those that all commands of a model share count once. A
comment over a step is a line of a function that holds a comment alone. A tuple assignment is `a, b = x, y`. Both are
counted per 1,000 lines of files, docstrings and empty lines included. With several trees, for example two checkouts,
each gets a column. Takes a few seconds per tree.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

CORE = "energycomp"
KERNEL = ("components", "denoisers", "models", "sampling", "inference", "decomposition")
LONG = 300  # lines
ALGORITHMS = {  # rooms of algorithms, whose steps have comments
    "samplers": "plugins/energycomp-samplers/energycomp_samplers",
    "solvers": "plugins/energycomp-solvers/energycomp_solvers",
    "inference": "energycomp/inference",
    "sampling": "energycomp/sampling",
}

OPTIONS = """
import typer
from energycomp_cli import app
group = typer.main.get_command(app)
context = group.make_context("energycomp", [], resilient_parsing=True)
own, shared = 0, set()
for command in (group.get_command(context, name) for name in group.list_commands(context)):
    kept = [one for one in command.params if one.param_type_name == "option" and not one.hidden and one.name != "help"]
    own += len(kept)
    every = command.get_params(command.context_class(command))
    shared |= {one.name for one in every if one not in command.params} - {"help"}
print(own + len(shared))
"""

Edges = set[tuple[str, str]]


def packages(tree: Path) -> dict[str, Path]:
    """Import names of a tree and the folders that hold them: the core first, then the plugins."""
    found = {CORE: tree}
    for folder in sorted(tree.glob(f"plugins/*/{CORE}_*")):
        if (folder / "__init__.py").is_file():
            found[folder.name] = folder.parent
    return found


def imports(tree: Path) -> tuple[set[str], Edges]:
    """Modules of a tree and the imports between them."""
    found = packages(tree)
    kept = list(sys.path)
    sys.path[:0] = list(dict.fromkeys(map(str, found.values())))
    try:
        graph = grimp.build_graph(*found, cache_dir=None)
    finally:
        sys.path[:] = kept
    modules = set(graph.modules)
    return modules, {(module, other) for module in modules for other in graph.find_modules_directly_imported_by(module)}


def room(module: str) -> str:
    """The first two parts of a module's name."""
    return ".".join(module.split(".")[:2])


def between(edges: Edges) -> Edges:
    """Imports between different rooms, once per pair."""
    return {(room(a), room(b)) for a, b in edges if room(a) != room(b)}


def components(nodes: set[str], edges: Edges) -> list[list[str]]:
    """Strongly connected components."""
    index = {node: number for number, node in enumerate(sorted(nodes))}
    starts, ends = ([index[pair[k]] for pair in edges] for k in (0, 1))
    graph = csr_array(([1] * len(edges), (starts, ends)), shape=(len(nodes), len(nodes)))
    found = defaultdict(list)
    for node, label in zip(index, connected_components(graph, connection="strong")[1].tolist(), strict=True):
        found[label].append(node)
    return list(found.values())


def floors(nodes: set[str], edges: Edges) -> int:
    """Length of the longest chain of imports that visits no node twice."""
    targets = defaultdict(list)
    for a, b in edges:
        targets[a].append(b)
    group = {node: number for number, found in enumerate(components(nodes, edges)) for node in found}

    @cache
    def longest(node: str, visited: frozenset[str]) -> int:
        """From one node on; `visited` are the nodes of its circle that the chain has passed."""
        lengths = [0]
        for other in targets[node]:
            if group[other] != group[node]:
                lengths.append(longest(other, frozenset((other,))))
            elif other not in visited:
                lengths.append(longest(other, visited | {other}))
        return 1 + max(lengths)

    return max(longest(node, frozenset((node,))) for node in nodes)


def circles(nodes: set[str], edges: Edges) -> list[str]:
    """Groups that import each other."""
    return [" - ".join(sorted(group)) for group in components(nodes, edges) if len(group) > 1]


def lines(files: list[Path]) -> int:
    """Lines of all files."""
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def nodes_of(files: list[Path]) -> Iterator[ast.AST]:
    """All nodes of the syntax trees of files."""
    for file in files:
        yield from ast.walk(ast.parse(file.read_text(encoding="utf-8")))


def comments(file: Path) -> int:
    """Lines inside functions that hold a comment alone. In a string such a line is taken for one, too."""
    text = file.read_text(encoding="utf-8")
    inside: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node) is not None
            start = node.body[0].end_lineno if documented else node.lineno
            inside.update(range(start or 0, (node.end_lineno or 0) + 1))
    return sum(line.lstrip().startswith("#") for number, line in enumerate(text.splitlines(), 1) if number in inside)


def is_unlike(node: ast.AST) -> bool:
    """Whether a statement assigns several values to as many names."""
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)


def asks(node: ast.AST, name: str) -> bool:
    """Whether a call is `hasattr(.., "..")` or `getattr(.., "..")`, by which `name` says, of an attribute by name."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name):
        return False
    return len(node.args) > 1 and isinstance(node.args[1], ast.Constant)


def options(tree: Path) -> int:
    """Options of the commands of a tree, in a process that imports its packages."""
    paths = os.pathsep.join(dict.fromkeys(map(str, packages(tree).values())))
    command, environment = [sys.executable, "-c", OPTIONS], {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    return int(done.stdout)


def measured(tree: Path) -> dict[str, object]:
    """The figures of one tree."""
    modules, edges = imports(tree)
    core = {module for module in modules if module.partition(".")[0] == CORE}
    core_edges = {(a, b) for a, b in edges if a in core and b in core}
    rooms, walls = {room(module) for module in core}, between(core_edges)
    files = sorted((tree / CORE).rglob("*.py"))
    outside = {name: folder for name, folder in packages(tree).items() if name != CORE}
    plugins = [file for name, folder in outside.items() for file in (folder / name).rglob("*.py")]
    kernel = [file for name in KERNEL for file in sorted((tree / CORE / name).rglob("*.py"))]
    inner, inner_edges = modules - {CORE}, {(a, b) for a, b in edges if CORE not in (a, b)}
    apart, lazy = rooms - {CORE}, {(a, b) for a, b in walls if CORE not in (a, b)}
    product = [*nodes_of(files), *nodes_of(plugins)]
    steps = {name: sorted((tree / folder).rglob("*.py")) for name, folder in ALGORITHMS.items()}
    return {
        "core: lines": lines(files),
        "kernel: lines": lines(kernel) if kernel else "-",
        "plugins: lines": lines(plugins),
        "options of the commands": options(tree),
        "core: modules": len(files),
        f"core: files over {LONG} lines": sum(lines([file]) > LONG for file in files),
        f"plugins: files over {LONG} lines": sum(lines([file]) > LONG for file in plugins),
        "core: longest file": max(lines([file]) for file in files),
        **{
            f"{name}: comments over steps per 1,000 lines": round(1000 * sum(map(comments, found)) / lines(found), 1)
            for name, found in steps.items()
            if found
        },
        "core: tuple assignments per 1,000 lines": round(1000 * sum(map(is_unlike, nodes_of(files))) / lines(files), 1),
        "`hasattr` of a name": sum(asks(node, "hasattr") for node in product),
        "`getattr` of a name": sum(asks(node, "getattr") for node in product),
        "core: rooms": len(rooms),
        "core: floors": floors(rooms, walls),
        "core: imports between rooms": len(walls),
        "core without `__init__`: floors": floors(apart, lazy),
        "core without `__init__`: imports between rooms": len(lazy),
        "core: circles of rooms": circles(apart, lazy),
        "core: modules on the longest chain": floors(core, core_edges),
        "whole tree: modules": len(modules),
        "whole tree: imports between modules": len(edges),
        "whole tree: circles of modules": circles(inner, inner_edges),
    }


def main() -> None:
    """Prints a markdown table, a column per tree, then the circles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="*", type=Path, default=[Path()], metavar="TREE", help="checkouts")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    results = {str(tree): measured(tree.resolve()) for tree in options.trees}
    if options.json:
        print(json.dumps(results, indent=1))
        return
    print("| | " + " | ".join(results) + " |\n| --- |" + " --- |" * len(results))
    for key in next(iter(results.values())):
        values = [result[key] for result in results.values()]
        print(f"| {key} | " + " | ".join(str(len(v)) if isinstance(v, list) else str(v) for v in values) + " |")
    for tree, result in results.items():
        for key, value in result.items():
            if isinstance(value, list):
                for circle in value:
                    print(f"\n{tree}: {key}: {circle}")


if __name__ == "__main__":
    main()
