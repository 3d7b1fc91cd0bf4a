"""`energycomp scene`: a scene graph in, its picture out. `energycomp relate`: a picture in, relations and answers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.errors import InputError
from energycomp.progress import working
from energycomp_cli import (
    Count,
    ModelName,
    NoMetadata,
    Png,
    Run,
    Steps,
    check_png,
    formula_of,
    loading,
    parse_count,
    print_table,
    read_image,
)

if TYPE_CHECKING:
    from torch import Tensor


LIKELY = 0.5  # probability from which a relation is shown


def scene(
    run: Run,
    model: ModelName,
    graph: Annotated[
        str, typer.Argument(metavar="GRAPH", help="Objects and relations, as in the examples, or a text file of them.")
    ],
    out: Png = Path("scene.png"),
    n: Annotated[int, typer.Option("-n", min=1, help="Number of pictures, shown beside each other.")] = 1,
    tries: Annotated[int, typer.Option(min=1, help="Most samples of a picture; the likeliest is kept.")] = 4,
    steps: Steps = None,
    no_metadata: NoMetadata = False,
) -> None:
    """Draw a scene graph: described objects, and relations that hold of them.

    ```sh
    energycomp scene clevr "a: red cube; b: blue sphere; a left of b" -o scene.png
    energycomp scene clevr "a: cube; b: metal sphere; c: object at 0.3,0.6; not (a behind b or a near c)" -n 4
    energycomp scene clevr graph.txt
    ```

    Relations are left of, right of, in front of, behind, near and in the same row as, joined by and, or, not and
    parentheses. Places are sampled first. A picture in which a word is not seen is drawn again.
    """
    check_png(out)
    with loading(model):
        from energycomp.images import framed, grid, save_image
        from energycomp_scenes import draw
        from energycomp_scenes.graph import scene as parsed

        text = _text(graph)
        asked = parsed(text)
        loaded = run.load(model)
    options: dict[str, Any] = {} if steps is None else {"num_inference_steps": steps}
    pictures = draw(asked, loaded, n, tries=tries, generator=run.seed, **options)
    images = [framed(one.image, loaded.defaults.aspect) for one in pictures]
    described = []
    for one in pictures:
        named = zip(asked.objects, one.values, strict=True)
        described.append([{"name": name, **loaded.conditioner.describe(value)} for name, value in named])
    line = "; ".join(map(str.strip, filter(str.strip, text.splitlines())))
    formula = None if no_metadata else formula_of(run, model, loaded, [line], objects=described)
    save_image(images[0] if n == 1 else grid(images), out, cells=n, formula=formula)
    records = [
        {"objects": objects, "probability": one.probability, "tries": one.tries}
        for objects, one in zip(described, pictures, strict=True)
    ]
    unsure = [k for k, one in enumerate(pictures, 1) if one.probability < 0.5]
    if unsure:
        numbers = ", ".join(map(str, unsure))
        typer.echo(f"energycomp: warning: words may be missing in picture {numbers}; raise --tries", err=True)
    lines = [_line(objects) for objects in described]
    shown = {"objects": dict(asked.objects), "relations": [repr(one) for one in asked.relations]}
    run.show({"path": str(out), "graph": shown, "pictures": records}, [*lines, str(out)])


def relate(
    run: Run,
    model: ModelName,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image file.")],
    ask: Annotated[
        list[str] | None,
        typer.Option(metavar="QUESTION", help="Question, or a JSON file of CLEVR programs. Repeatable."),
    ] = None,
    camera: Annotated[
        bool, typer.Option("--camera", help="Infer the camera, too, and print places in scene units. For clevr.")
    ] = False,
    also: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Second model that reads the words, such as clevr-small.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="PNG file of the image with its objects.")] = None,
    count: Count = None,
) -> None:
    """Read the relations of the objects of an image, each with its probability, and answer questions.

    ```sh
    energycomp relate clevr scene.png -o read.png
    energycomp relate clevr scene.png --ask "how many metal things are left of the red cube?"
    energycomp relate clevr scene.png --ask "what is behind the sphere?" --ask "is there a small cube?" --camera
    ```

    Relations are those of places on the ground, by the posterior of words and places. Questions are answered by CLEVR's
    programs, without a language model; a JSON file has a program, or questions with a "program" each.
    """
    if out is not None:
        check_png(out)
    questions = [one for text in ask or [] for one in _questions(text)]
    with loading(model):
        from energycomp.images import save_image
        from energycomp.inference import OutOfDistributionWarning, infer
        from energycomp_clevr.seen import seen_from
        from energycomp_scenes import answer, belief, joined
        from energycomp_scenes.questions import program_of
        from energycomp_scenes.reading import check_objects

        programs = [(text, program_of(text) if isinstance(given, str) else given) for text, given in questions]
        picture = read_image(image)
        loaded = check_objects(run.load(model), camera=camera)
        other = None if also is None else run.load(also)
    # Read the image, its words with a second model, and its camera
    eye = None
    with working("energycomp: reading ..."), warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfDistributionWarning)  # it is said below
        solution = infer(picture, loaded, count=parse_count(count), generator=run.seed, progress=False)
        if other is not None:
            solution = joined(solution, picture, other, generator=run.seed)
        rows = solution.rows
        if camera:
            seen = seen_from(picture, loaded, solution.conditions, generator=run.seed)
            eye = seen.camera
            rows = rows + seen.rows
    # Relations and answers, of the posterior
    read = belief(solution, camera=eye, generator=run.seed)
    relations = read.relations()
    answers = [(text, answer(program, read)) for text, program in programs]
    if out is not None:
        save_image(solution.picture(), out)
    objects = solution.table()
    if eye is not None:
        for row, place in zip(objects, read.ground.mean(0), strict=True):
            row["right"], row["away"] = _round(place, 3)
    if run.as_json:
        asked = [
            {"question": text, "answer": one.value, "probability": one.probability, "granted": one.granted}
            for text, one in answers
        ]
        record = {"objects": objects, "relations": relations, "warnings": list(solution.warnings), "answers": asked}
        run.show({**record, **({} if eye is None else {"camera": _round(eye, 4)}), "rows": rows}, [])
        return
    heads = ("", "object", "right", "away") if camera else ("", "object")
    print_table(heads, _object_rows(objects, ground=camera))
    print_table(("a", "b", "relations"), [(str(row["a"]), str(row["b"]), _likely(row)) for row in relations])
    for text, one in answers:
        typer.echo(f"{text}  {one}")
    for warning in solution.warnings:
        typer.echo(f"energycomp: warning: {warning}", err=True)
    typer.echo(f"{rows:,} network evaluations{'' if out is None else f', {out}'}")


def _round(numbers: Tensor, digits: int) -> list[float]:
    return [round(one, digits) for one in numbers.tolist()]


def _text(graph: str) -> str:
    """The graph itself, or what a text file of it says."""
    if ":" in graph:
        return graph
    try:
        return Path(graph).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"got the graph {graph!r}; expected objects and relations, such as 'a: red cube; b: sphere; a left of b', "
            "or a text file of them"
        ) from error


def _line(objects: list[dict[str, Any]]) -> str:
    return "; ".join(f"{one['name']}: {_words(one)} at {one['x']:.3f},{one['y']:.3f}" for one in objects)


def _words(row: dict[str, Any]) -> str:
    return " ".join(str(row[name]) for name in ("size", "color", "material", "shape") if name in row) or "object"


def _questions(text: str) -> list[tuple[str, Any]]:
    """A question, or those of a file: a program, or objects with one each, as in CLEVR's files."""
    if not text.endswith(".json"):
        return [(text, text)]
    try:
        given = json.loads(Path(text).read_text(encoding="utf-8"))
        given = given["questions"] if isinstance(given, dict) else given
        if all("program" in one for one in given):
            return [(str(one.get("question", number)), one["program"]) for number, one in enumerate(given, 1)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"got --ask {text} with {type(error).__name__}: {error}; expected CLEVR's questions"
        ) from error
    return [(text, given)]


def _likely(row: dict[str, Any]) -> str:
    from energycomp_scenes.relations import OPPOSITE

    said = []
    for kind, chance in row.items():
        if kind in ("a", "b"):
            continue
        if chance >= LIKELY or kind in OPPOSITE:
            named, sure = (kind, chance) if chance >= LIKELY else (OPPOSITE[kind], 1 - chance)
            said.append(f"{named} ({sure:.0%})")
    return ", ".join(said)


def _object_rows(objects: list[dict[str, Any]], *, ground: bool) -> list[tuple[str, ...]]:
    rows = []
    for k, one in enumerate(objects, 1):
        place = (f"{one['right']:.2f}", f"{one['away']:.2f}") if ground else ()
        rows.append((str(k), f"{_words(one)} at {one['x']:.2f},{one['y']:.2f}", *place))
    return rows
