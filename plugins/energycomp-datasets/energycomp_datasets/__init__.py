"""Data sources: rendered images and readers of public datasets; and the writer of CLEVR's scene records."""

from energycomp.plugins import Add, hookimpl


@hookimpl
def energycomp_register(add: Add) -> None:
    """Data sources, each under the name of the model that is evaluated on it; answers as scene records of CLEVR."""
    add.dataset("clevr", "energycomp_datasets.clevr.source:ClevrSource")
    add.dataset("clevr-videos", "energycomp_datasets.clevr.videos:VideosSource")
    add.dataset("comet", "energycomp_datasets.shapes.source:shapes_source")
    add.dataset("decomp", "energycomp_datasets.shapes.source:shapes_source")
    add.dataset("decomp-b", "energycomp_datasets.shapes.source:shapes_b_source")
    add.dataset("faces", "energycomp_datasets.faces.source:FacesSource")
    add.dataset("lit", "energycomp_datasets.shapes.lit:LitSource")
    add.dataset("slots", "energycomp_datasets.rooms.source:arrow_source")
    add.dataset("slots-rooms", "energycomp_datasets.rooms.source:rooms_source")
    add.dataset("slots-sprites", "energycomp_datasets.rooms.source:sprites_source")
    add.dataset("text", "energycomp_datasets.solids.source:TextSource")
    add.writer("clevr", "energycomp_datasets.clevr.writer:scene_records")
