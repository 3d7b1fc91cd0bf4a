"""`energycomp studio`."""

from __future__ import annotations

from typing import Annotated

import typer


def studio(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Registered name, folder, or hub id of the model that is shown first."),
    ] = "clevr",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of 127.0.0.1; 0 chooses a free one.")] = 7860,
    device: Annotated[str, typer.Option(help="Torch device that runs the networks, for example cuda.")] = "cpu",
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve a web page on this computer that composes, reads, edits and recombines images.

    The page is served to this computer only. Ctrl-C stops it.

    ```sh
    energycomp studio
    energycomp studio faces --port 8000
    ```
    """
    typer.echo("loading the studio ...", err=True)
    from energycomp_studio.server import serve

    serve(model, port=port, device=device, open_browser=open_browser)
