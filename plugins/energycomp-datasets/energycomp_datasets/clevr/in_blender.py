"""A script for Blender's own Python: JSON lines of scenes in, PNG files out, with the assets of the CLEVR generator.

`energycomp_datasets.clevr.blender` runs it. It imports nothing of energycomp, since Blender has its own environment.
Each line is {"path", "camera", "lights", "objects"}, and is answered by "done PATH".
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

SHAPES = {"cube": "SmoothCube_v2", "sphere": "Sphere", "cylinder": "SmoothCylinder"}
MATERIALS = {"rubber": "Rubber", "metal": "MyMetal"}
LAMPS = ("Lamp_Key", "Lamp_Fill", "Lamp_Back")
FRAME = (480, 320)  # px, whose field of view all sizes have


def prepare(bpy: Any, assets: Path, size: tuple[int, int], samples: int, threads: int) -> tuple[Any, Any]:
    """Opens the base scene; returns the meshes of the shapes and the node groups of the materials."""
    bpy.ops.wm.open_mainfile(filepath=str(assets / "base_scene.blend"))
    meshes, groups = {}, {}
    for shape, name in SHAPES.items():
        with bpy.data.libraries.load(str(assets / "shapes" / f"{name}.blend")) as (_, wanted):
            wanted.objects = [name]
        meshes[shape] = wanted.objects[0].data
    for material, name in MATERIALS.items():
        with bpy.data.libraries.load(str(assets / "materials" / f"{name}.blend")) as (_, wanted):
            wanted.node_groups = [name]
        groups[material] = wanted.node_groups[0]
    scene = bpy.context.scene
    render = scene.render
    cycles = scene.cycles
    render.engine = "CYCLES"
    render.resolution_x, render.resolution_y, render.resolution_percentage = *size, 100
    stretch = (FRAME[0] / size[0]) / (FRAME[1] / size[1])  # pixels that are not square keep the field of view
    render.pixel_aspect_x = max(stretch, 1.0)
    render.pixel_aspect_y = max(1 / stretch, 1.0)
    render.image_settings.file_format = "PNG"
    render.threads_mode = "FIXED"
    render.threads = threads
    cycles.device = "CPU"
    cycles.samples = samples
    cycles.use_denoising = True
    cycles.blur_glossy, cycles.max_bounces, cycles.transparent_max_bounces = 2.0, 8, 8
    render.use_persistent_data = True
    scene.view_settings.view_transform = "Standard"  # the generator's; later versions of Blender have another
    return meshes, groups


def make_material(bpy: Any, group: Any, color: list[float]) -> Any:
    made = bpy.data.materials.new("made")
    made.use_nodes = True
    tree = made.node_tree
    tree.nodes.clear()
    output, node = tree.nodes.new("ShaderNodeOutputMaterial"), tree.nodes.new("ShaderNodeGroup")
    node.node_tree = group
    node.inputs["Color"].default_value = (*color, 1.0)
    tree.links.new(node.outputs["Shader"], output.inputs["Surface"])
    return made


def place_object(bpy: Any, one: dict[str, Any], meshes: Any, groups: Any) -> Any:
    """An object of a line, put into the scene."""
    thing = bpy.data.objects.new("made", meshes[one["shape"]].copy())
    bpy.context.scene.collection.objects.link(thing)
    x, y, _ = one["position"]
    thing.scale = (one["extent"],) * 3
    thing.location = (x, y, one["extent"])
    thing.rotation_euler = (0.0, 0.0, math.radians(one["rotation"]))
    thing.data.materials.clear()
    thing.data.materials.append(make_material(bpy, groups[one["material"]], one["color"]))
    return thing


def main() -> None:
    """Renders what stdin says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--size", type=int, nargs=2, required=True)
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    import bpy  # type: ignore[import-not-found]
    from mathutils import Vector  # type: ignore[import-not-found]

    meshes, groups = prepare(bpy, options.assets, options.size, options.samples, options.threads)
    camera = bpy.data.objects["Camera"]
    lamps = [bpy.data.objects[name] for name in LAMPS]
    homes = [lamp.location.copy() for lamp in lamps]
    for line in sys.stdin:
        scene = json.loads(line)
        camera.location = Vector(scene["camera"])
        for lamp, home, moved in zip(lamps, homes, scene["lights"], strict=True):
            lamp.location = home + Vector(moved)
        things = [place_object(bpy, one, meshes, groups) for one in scene["objects"]]
        part = Path(f"{scene['path']}.part.png")
        bpy.context.scene.render.filepath = str(part)
        bpy.ops.render.render(write_still=True)
        part.replace(scene["path"])
        for thing in things:
            mesh = thing.data
            used = thing.data.materials[0]
            bpy.data.objects.remove(thing)
            bpy.data.meshes.remove(mesh)
            bpy.data.materials.remove(used)
        print(f"done {scene['path']}", flush=True)  # noqa: T201 - what the other side waits for


if __name__ == "__main__":
    main()
