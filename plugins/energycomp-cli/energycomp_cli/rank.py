"""`energycomp rank`: images and components in; which image shows which component out, the best image first."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from energycomp.errors import InputError
from energycomp.progress import working
from energycomp_cli.items import image_files, read_image
from energycomp_cli.options import Components, ImageFiles, ModelName, Not, Run, import_samplers, loading
from energycomp_cli.output import print_json, print_table, ranking_record, wrong_components


def rank(
    run: Run,
    model: ModelName,
    images: ImageFiles,
    component: Components = None,
    negated: Not = None,
    draws: Annotated[
        int, typer.Option(min=2, help="Draws of noise that a lift averages over. More are slower, and surer.")
    ] = 32,
) -> None:
    """Rank images by how well they show every component of a composition.

    ```sh
    energycomp sample clevr "0.3,0.5" "0.7,0.6" -n 8 -o scenes/scene.png
    energycomp rank clevr scenes --component 0.3,0.5 --component 0.7,0.6
    ```

    The lift of a component is the denoising error without it minus the error with it. An image shows a component if its
    lift is significantly above 0. Images that show every component come first; then the smallest lift decides.
    """
    if not (component or negated):
        raise InputError("got no component; expected --component or --not, such as --component 0.3,0.5")
    paths = list(image_files(images).values())
    pictures: list[Any] = [read_image(path) for path in paths]
    with loading(model):
        from energycomp.sampling import Composer

        samplers = import_samplers()
        loaded = run.load(model, searchable=True, reads={"the component": [*(component or []), *(negated or [])]})
    parts: list[Any] = [loaded.read(text, weight=1.0) for text in component or []]
    parts += [~loaded.read(text, weight=1.0) for text in negated or []]
    with working("energycomp: ranking ..."):
        ranking = samplers.rank(pictures, Composer(parts), model=loaded, draws=draws, generator=run.seed)
    if run.as_json:
        records = [{"image": str(paths[i]), **ranking_record(ranking, i)} for i in ranking.order]
        print_json({"images": records, "draws": draws, "seed": run.seed, "rows": ranking.rows})
        return
    names = [f"not {name}" if no else name for name, no in zip(ranking.components, ranking.negated, strict=True)]
    rows = []
    for i in ranking.order:
        lifts = zip(ranking.lift[i].tolist(), ranking.stderr[i].tolist(), strict=True)
        shown = (f"{lift:.3g} ± {stderr:.2g}" for lift, stderr in lifts)
        rows.append([str(paths[i]), *shown, wrong_components(ranking, i) or "complete"])
    print_table(["image", *(f"lift of {name}" for name in names), "result"], rows)
    complete = int(ranking.complete.sum())
    typer.echo(f"{complete} of {len(paths)} images show every component; {ranking.rows:,} network evaluations")
