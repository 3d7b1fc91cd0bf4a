"""`energycomp track` and `energycomp film`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from energycomp.errors import InputError
from energycomp.progress import progress
from energycomp_cli import (
    ModelName,
    NoMetadata,
    Run,
    Steps,
    append_line,
    check_folder,
    formula_of,
    image_files,
    loading,
    make_folder,
    model_fingerprint,
    read_lines,
    sha256_of,
)

LINES = "track.jsonl"
PICTURE = "track.gif"


def track(
    run: Run,
    model: ModelName,
    frames: Annotated[
        list[Path], typer.Argument(metavar="FRAMES", help="Image files, a folder of them, or one GIF or MP4 file.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help=f"Folder for {LINES} and {PICTURE}.")],
) -> None:
    """Follow the objects of a video: their places, words and identities in every frame.

    ```sh
    energycomp data clevr-videos -n 1 -o videos
    energycomp track clevr videos/video_0000 -o out
    energycomp track clevr clip.gif -o out
    ```

    A later frame takes about a tenth of the network evaluations of the first one. A hidden object keeps its identity,
    in brackets on the images, where it is expected. An interrupted run continues. --json prints one line per frame.
    """
    check_folder(out, "-o")
    from energycomp.images import MOVIES, read_frames

    movie = len(frames) == 1 and frames[0].suffix.lower() in MOVIES
    files = frames if movie else list(image_files(frames, without=out).values())
    with loading(model):
        from energycomp_scenes.tracking import Track, TrackedFrame, check_model, track_frame

        images = list(read_frames(files))
        loaded = check_model(run.load(model, searchable=True))
    file = make_folder(out, "-o") / LINES
    settings = {"model": model, "seed": run.seed, "fingerprint": model_fingerprint(loaded)}
    found: list[TrackedFrame] = []
    records = read_lines(file)
    for image, record in zip(images, records, strict=False):
        if (record.get("settings"), record.get("sha256")) != (settings, sha256_of(image.tobytes())):
            raise InputError(f"got -o {out}, where {LINES} is of other frames or settings; expected another folder")
        found.append(TrackedFrame.of(record))
    for image in progress(images[len(found) :], "tracking", unit="frame", leave=True):
        found.append(track_frame(image, loaded, found[-1] if found else None, seed=run.seed))
        append_line(file, {**found[-1].record(), "sha256": sha256_of(image.tobytes()), "settings": settings})
    result = Track(tuple(found), tuple(loaded.shown(image) for image in images))
    result.save(out / PICTURE)
    if run.as_json:
        for each in found:
            typer.echo(json.dumps({"frame": each.frame, "rows": each.rows, "objects": each.objects}))
        return
    typer.echo(f"{result}\n{out / PICTURE}")


def film(
    run: Run,
    model: ModelName,
    script: Annotated[
        list[str],
        typer.Argument(metavar="OBJECT", help="Object with its places: 'red cube at 0.2,0.5 -> 0.7,0.5'."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="GIF or MP4 file to write.")] = Path("film.gif"),
    frames: Annotated[int, typer.Option(min=2, max=1000, help="Number of frames.")] = 16,
    camera: Annotated[
        str | None,
        typer.Option(help="Path of the camera: offsets to the right, up and forward in scene units, '0,0,0 -> 1,0,0'."),
    ] = None,
    steps: Steps = None,
    fps: Annotated[float, typer.Option(min=0.1, max=50, help="Frames per second.")] = 8.0,
    no_metadata: NoMetadata = False,
) -> None:
    """Draw a video of objects that move from place to place.

    ```sh
    energycomp film clevr "large red rubber cube at 0.2,0.5 -> 0.7,0.5" "small blue metal sphere at 0.5,0.7" -o film.gif
    energycomp film clevr "large red metal cube at 0.4,0.5" --camera "-1,0,0 -> 1,0,0" -o film.mp4
    ```

    Places take equal times. All frames share their noise, so that what does not move stays as it is. Name all
    attributes: colours and materials that are left open may change between frames. MP4 needs energycomp[mp4].
    """
    check_folder(out.parent, "-o", path=out)
    from energycomp.images import MOVIES, save_frames

    if out.suffix.lower() not in MOVIES:
        raise InputError(f"got -o {out}; expected the name of a GIF or MP4 file, such as {out.with_suffix('.gif')}")
    with loading(model):
        from energycomp_scenes.films import film as made

        loaded = run.load(model)
    images = made(loaded, script, frames=frames, camera=camera, generator=run.seed, num_inference_steps=steps)
    formula = None if no_metadata else formula_of(run, model, loaded, script)
    save_frames(images, out, fps=fps, formula=formula)
    run.show({"path": str(out), "frames": len(images)}, [str(out)])
