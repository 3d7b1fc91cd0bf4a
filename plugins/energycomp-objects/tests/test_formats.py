"""Formats of labels: what the original tools write is read, what is written is read back equal, bad files are named."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from energycomp.errors import EnergycompWarning, InputError
from energycomp_objects.formats import Mark, MarkedPhoto, MarkedPhotos, read_marks, write_marks

FORMATS = ("imagefolder", "coco", "yolo", "voc", "csv")
SHARED = Path(__file__).parents[4] / "shared" / "data" / "photos"

# Each by the layout of its tool: one picture of 640x480 with an RBC, whose box is 64, 120 to 192, 216, and a WBC.
COCO_2017 = {
    "info": {"year": 2017}, "licenses": [],
    "images": [{"license": 4, "file_name": "a.jpg", "coco_url": "", "height": 480, "width": 640, "id": 397133}],
    "annotations": [
        {"segmentation": [[64, 120, 192, 120, 192, 216]], "area": 9.5, "iscrowd": 0, "image_id": 397133,
         "bbox": [64, 120, 128, 96], "category_id": 44, "id": 82445},
        {"segmentation": [], "area": 9.5, "iscrowd": 0, "image_id": 397133, "bbox": [320, 240, 64, 48],
         "category_id": 7, "id": 82446},
    ],
    "categories": [{"supercategory": "cell", "id": 44, "name": "RBC"}, {"supercategory": "", "id": 7, "name": "WBC"},
                   {"supercategory": "cell", "id": 8, "name": "Platelets"}],
}  # fmt: skip
HUGGING_FACE = {
    "file_name": "a.jpg", "image_id": 1, "width": 640, "height": 480,
    "objects": {"id": [1, 2], "area": [12288, 3072], "bbox": [[64.0, 120.0, 128.0, 96.0], [320, 240, 64, 48]],
                "categories": ["RBC", "WBC"]},
}  # fmt: skip
OWN = {
    "file_name": "a.jpg",
    "objects": [
        {"x": 0.2, "y": 0.35, "width": 0.2, "height": 0.2, "category": "RBC"},
        {"x": 0.55, "y": 0.55, "width": 0.1, "height": 0.1, "category": "WBC"},
    ],
}
LABEL_IMG = """<annotation>
\t<folder>cells</folder><filename>a.jpg</filename><path>/somewhere/else/a.jpg</path>
\t<source><database>Unknown</database></source>
\t<size><width>640</width><height>480</height><depth>3</depth></size><segmented>0</segmented>
\t<object><name>RBC</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>
\t\t<bndbox><xmin>65</xmin><ymin>121</ymin><xmax>192</xmax><ymax>216</ymax></bndbox></object>
\t<object><name>WBC</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>
\t\t<bndbox><xmin>321</xmin><ymin>241</ymin><xmax>384</xmax><ymax>288</ymax></bndbox></object>
</annotation>
"""
YAML = "path: ../datasets/cells\ntrain: images\nval: images\n\nnames:\n  0: RBC\n  1: WBC\n  2: Platelets\n"
LINES = "0 0.2 0.35 0.2 0.2\n1 0.550000 0.550000 0.100000 0.100000\n"
VGG_HEADER = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
VGG = VGG_HEADER + (
    'a.jpg,9,"{}",2,0,"{""name"":""rect"",""x"":64,""y"":120,""width"":128,""height"":96}","{""label"":""RBC""}"\n'
    'a.jpg,9,"{}",2,1,"{""name"":""rect"",""x"":320,""y"":240,""width"":64,""height"":48}","{""label"":""WBC""}"\n'
)
PIXELS = "filename,x_px,y_px,w_px,h_px,label\na.jpg,128,168,128,96,RBC\na.jpg,352,264,64,48,WBC\n"
SHARES = "\ufefffile,x,y,w,h,label\r\na.jpg,0.2,0.35,0.2,0.2,RBC\r\na.jpg,0.55,0.55,0.1,0.1,WBC\r\n"
CELLS = (
    Mark(0.2, 0.35, 0.2, 0.2, {"category": "RBC"}),
    Mark(0.55, 0.55, 0.1, 0.1, {"category": "WBC"}),
)


def draw(path: Path, size: tuple[int, int] = (640, 480), turn: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.new("RGB", size, "white").save(path, exif=exif)
    return path


def fill(folder: Path, files: dict[str, str | dict]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((content if isinstance(content, str) else json.dumps(content)).encode())
    return folder


@pytest.fixture(autouse=True)
def _no_warning() -> None:
    warnings.simplefilter("error", EnergycompWarning)


@pytest.mark.parametrize(
    ("picture", "files", "path"),
    [
        ("a.jpg", {"metadata.jsonl": HUGGING_FACE}, ""),
        ("a.jpg", {"metadata.jsonl": OWN}, "metadata.jsonl"),
        ("val2017/a.jpg", {"annotations/instances_val2017.json": COCO_2017}, "annotations/instances_val2017.json"),
        ("a.jpg", {"_annotations.coco.json": COCO_2017}, ""),
        ("images/a.jpg", {"data.yaml": YAML, "labels/a.txt": LINES, "labels/classes.txt": "RBC"}, ""),
        ("images/train/a.jpg", {"data.yaml": YAML, "labels/train/a.txt": LINES}, "images/train"),
        ("train/images/a.jpg", {"data.yaml": "names: [RBC, WBC]", "train/labels/a.txt": LINES}, "train"),
        ("a.jpg", {"a.xml": LABEL_IMG}, ""),
        ("JPEGImages/a.jpg", {"Annotations/a.xml": LABEL_IMG.replace("a.jpg</f", "a</f")}, ""),
        ("a.jpg", {"points.csv": VGG}, ""),
        ("a.jpg", {"points.csv": PIXELS}, "points.csv"),
        ("a.jpg", {"points.csv": SHARES}, ""),
    ],
)
def test_files_of_the_original_tools(tmp_path: Path, picture: str, files: dict[str, str | dict], path: str) -> None:
    file = draw(tmp_path / picture)
    photos = read_marks(fill(tmp_path, files) / path)
    assert photos == MarkedPhotos((MarkedPhoto(file, (640, 480), CELLS),), {"category": ("RBC", "WBC")})
    assert photos[0].image().size == (640, 480)


def test_points_of_the_vgg_image_annotator(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    draw(tmp_path / "b.jpg")
    point = 'a.jpg,9,"{}",1,0,"{""name"":""point"",""cx"":320,""cy"":120}","{}"\nb.jpg,9,"{}",0,0,"{}","{}"\n'
    photos = read_marks(fill(tmp_path, {"via.csv": VGG_HEADER + point}))
    assert [photo.marks for photo in photos] == [(Mark(0.5, 0.25, attributes={"category": "object"}),), ()]


WORLDS = {
    "boxes": [CELLS, (), (Mark(0.501, 0.3334, 0.123457, 0.000013, {"category": "a, \"b\" <ü> & 'c': 1"}),)],
    "points": [(Mark(0.0, 1.0, attributes={"category": "no"}), Mark(0.333333, 0.1, attributes={"category": "1"}))],
    "mixed": [(*CELLS, Mark(0.25, 0.75, attributes={"category": "a=b&c"}))],
    "attributes": [
        (
            Mark(0.5, 0.5, 0.25, 0.25, {"color": "red", "shape": "cube"}),
            Mark(0.5, 0.5, 0.25, 0.25, {"color": "red"}),
            Mark(0.1, 0.1, attributes={}),
        ),
        (Mark(0.5, 0.5, attributes={"category": "die", "number": "five"}),),
        (Mark(0.5, 0.5, attributes={"label": "category=x"}),),
    ],
}


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_is_read_back_equal(tmp_path: Path, name: str, world: str, copy: bool) -> None:
    pictures = []
    values: dict[str, set[str]] = {}
    for index, marks in enumerate(WORLDS[world]):
        file = draw(tmp_path / "pictures" / "in" / f"{index}.jpg", size=(97 + index, 61))
        pictures.append(MarkedPhoto(file, (97 + index, 61), marks))
        for mark in marks:
            for key, value in mark.attributes.items():
                values.setdefault(key, set()).add(value)
    photos = MarkedPhotos(tuple(pictures), {key: tuple(sorted(values[key])) for key in sorted(values)})
    write_marks(photos, tmp_path / "out", name, copy=copy)
    read = read_marks(tmp_path / "out", images=None if copy else tmp_path / "pictures" / "in")
    assert [(one.path.name, one.size, one.marks) for one in read] == [
        (one.path.name, one.size, one.marks) for one in photos
    ]
    assert read.attributes == photos.attributes
    assert read[0].path.is_relative_to(tmp_path / "out") == copy
    assert not list(tmp_path.rglob(".*tmp*"))


@pytest.mark.parametrize("name", ["coco", "yolo"])
def test_the_order_of_kinds_is_kept(tmp_path: Path, name: str) -> None:
    file = draw(tmp_path / "a.jpg")
    photos = MarkedPhotos((MarkedPhoto(file, (640, 480), CELLS),), {"category": ("WBC", "RBC")})
    write_marks(photos, tmp_path / "out", name, copy=True)
    assert read_marks(tmp_path / "out").attributes == photos.attributes


@pytest.mark.parametrize("name", FORMATS)
def test_labels_beside_pictures_that_exif_turns(tmp_path: Path, name: str) -> None:
    """Marks are those of the upright picture in all formats."""
    file = draw(tmp_path / "pictures" / "a.jpg", size=(64, 48), turn=6)
    photos = MarkedPhotos((MarkedPhoto(file, (48, 64), CELLS),), {"category": ("RBC", "WBC")})
    write_marks(photos, tmp_path / "out", name)
    read = read_marks(tmp_path / "out", name, images=file.parent)
    assert read == photos
    assert read[0].image().size == (48, 64)


def row(text: str) -> dict[str, str | dict]:
    return {"labels.csv": f"file,x_px,y_px,w_px,h_px,label\n{text}\n"}


@pytest.mark.parametrize(
    ("files", "message", "marks"),
    [
        (
            row("a.jpg,0,240,64,48,RBC"),
            "over the edge of the picture, which are cut off there: 1",
            (Mark(0.025, 0.5, 0.05, 0.1),),
        ),
        (row("a.jpg,640,480,128,96,RBC\na.jpg,0,240,64,48,RBC"), "over the edge .*: 2", None),
        (row("a.jpg,31.8,240,64,48,RBC"), "", (Mark(0.049688, 0.5, 0.1, 0.1),)),
        (row("a.jpg,-64,240,64,48,RBC\na.jpg,9,900,,,RBC"), "has marks outside the picture, which are left out: 2", ()),
        (row("a.jpg,320,240,64,0,RBC"), "a side of 0, .*: 1", ()),
        (
            row("a.jpg,320,240,64,48,RBC\na.jpg,320,240,64,48,RBC"),
            "same place and attributes, .*: 1",
            (Mark(0.5, 0.5, 0.1, 0.1),),
        ),
        (row("a.jpg,320,240,64,48,RBC\na.jpg,320,240,64,48,WBC"), "", None),
        (
            {"a.json": {**COCO_2017, "annotations": [{**COCO_2017["annotations"][0], "iscrowd": 1}]}},
            "groups \\(iscrowd\\), .*: 1",
            (),
        ),
    ],
)
def test_marks_that_are_changed_are_counted(
    tmp_path: Path, files: dict[str, str | dict], message: str, marks: tuple[Mark, ...] | None
) -> None:
    draw(tmp_path / "a.jpg")
    fill(tmp_path, files)
    if message:
        with pytest.warns(EnergycompWarning, match=message) as caught:
            photos = read_marks(tmp_path)
        assert len(caught) == 1
    else:
        photos = read_marks(tmp_path)
    if marks is not None:
        boxes = [(mark.x, mark.y, mark.width, mark.height) for mark in photos[0].marks]
        assert boxes == [(mark.x, mark.y, mark.width, mark.height) for mark in marks]


def own(**box: object) -> dict[str, str | dict]:
    return {"metadata.jsonl": {"file_name": "a.jpg", "objects": [{"x": 0.5, "y": 0.5, "category": "RBC", **box}]}}


def coco(**changes: object) -> dict[str, str | dict]:
    return {"a.json": {**COCO_2017, **changes}}


def lists(**changes: object) -> dict[str, str | dict]:
    return {"metadata.jsonl": {**HUGGING_FACE, "objects": {**HUGGING_FACE["objects"], **changes}}}


LAUGHS = (
    '<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    "<annotation><filename>&b;</filename></annotation>"
)
ALIASES = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nnames: [*b, *b]\n"
A_LINE = '{"file_name": "a.jpg", "objects": []}\n'


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"without labels; expected those of imagefolder, coco"),
        ({"train/metadata.jsonl": A_LINE, "val/metadata.jsonl": A_LINE}, "name one of the folders in it: train, val"),
        ({"metadata.jsonl": A_LINE, **row("a.jpg,,,,,")}, "several labels: metadata.jsonl, labels.csv; expected one"),
        ({"metadata.jsonl": "\n"}, "without a picture"),
        (coco(images=[], annotations=[]), "without a picture"),
        ({"metadata.jsonl": A_LINE * 2}, "a.jpg, which metadata.jsonl, line 1, has, too"),
        (
            {"metadata.jsonl": "".join(f'{{"file_name": "{name}.jpg"}}\n' for name in "abcdef")},
            "5 of 6 pictures missing: b.jpg, c.jpg, d.jpg, ...",
        ),
        ({"metadata.jsonl": {"file_name": "x" * 3000}}, "1 of 1 pictures missing"),
        ({"metadata.jsonl": {"file_name": "broken.jpg"}, "broken.jpg": "no image"}, "broken.jpg, which cannot be dec"),
        ({"metadata.jsonl": {"file_name": "../a.jpg"}}, r"'../a.jpg'; expected a name inside"),
        ({"metadata.jsonl": {"file_name": "/etc/a.jpg"}}, "expected a name inside"),
        ({"metadata.jsonl": {"file_name": r"..\a.jpg"}}, "expected a name inside"),
        (coco(images=[{"id": 397133, "file_name": "sub/../../a.jpg"}]), "expected a name inside"),
        ({"a.xml": LABEL_IMG.replace("a.jpg</f", "../a.jpg</f")}, "expected a name inside"),
        (row("../a.jpg,,,,,"), "expected a name inside"),
        ({"metadata.jsonl": "[" * 100_000}, "metadata.jsonl, line 1, which is no JSON"),
        ({"metadata.jsonl": "[1]"}, r"with \[1\]; expected an object of JSON"),
        ({"metadata.jsonl": "{}"}, 'without "file_name"'),
        ({"metadata.jsonl": {"file_name": "a.jpg", "objects": 3}}, "objects with 3; expected a list"),
        ({"metadata.jsonl": '{"file_name": "a.jpg", "objects": [{"x": NaN, "y": 0}]}'}, "NaN is no number"),
        (own(x="a"), "with 'a'; expected a finite number"),
        (own(x=True), "with True; expected a finite number"),
        (own(x=320, y=240), "at 320, 240; expected shares of the picture, from 0 to 1; divide"),
        (own(width=-0.1, height=0.1), "a box of -0.1 x 0.1; expected no negative size"),
        (own(x=None, width=0.1), "with None; expected a finite number"),
        (own(width=0.1), "with 3 numbers; expected x and y, or x, y, width and height"),
        ({"metadata.jsonl": {"file_name": "a.jpg", "objects": [{"bbox": [1]}]}}, "object of bbox; expected x and y"),
        (lists(categories=["RBC"]), "2 boxes and 1 of categories"),
        (lists(bbox=None), "bbox with None; expected a list"),
        (coco(images=COCO_2017["images"] * 2), "the id 397133; expected each id once"),
        (coco(categories=[]), "annotation 1, with category_id 44; expected the id of an entry"),
        (coco(categories=[{"id": 44}]), "categories, id 44, without name; expected a text"),
        (coco(annotations=[{"image_id": [1]}]), r"annotation 1, with image_id \[1\]"),
        (coco(annotations={}), "annotations, with {}; expected a list"),
        (coco(images=[{"id": 1}], annotations=[]), "images, id 1, without file_name; expected a text"),
        (
            coco(images=[{**COCO_2017["images"][0], "width": 480, "height": 640}]),
            "a picture of 480x640 pixels, and a.jpg of 640x480; expected marks of the upright picture",
        ),
        ({"data.yaml": "nc: 2", "labels/a.txt": LINES}, "data.yaml without names; expected"),
        ({"data.yaml": ALIASES, "labels/a.txt": LINES}, "data.yaml without names; expected"),
        ({"data.yaml": "names: [", "labels/a.txt": LINES}, "data.yaml, which is no YAML"),
        ({"data.yaml": "!!python/object/apply:os.getcwd []", "labels/a.txt": ""}, "which is no YAML"),
        ({"data.yaml": "[" * 20_000, "labels/a.txt": ""}, "which is no YAML"),
        ({"data.yaml": YAML, "labels/a.txt": "9 0.5 0.5 0.1 0.1"}, "a.txt, line 1, with the class 9; expected one of"),
        ({"data.yaml": YAML, "labels/a.txt": "0.5 0.5 0.5 0.1 0.1"}, "with the class 0.5"),
        ({"data.yaml": YAML, "labels/a.txt": "0 0.5 0.5"}, "with 3 numbers; expected class, x, y, width and height"),
        ({"data.yaml": YAML, "labels/a.txt": "0 nan 0.5 0.1 0.1"}, "with 'nan'; expected a finite number"),
        ({"data.yaml": YAML, "labels/z.txt": LINES}, "1 of 1 pictures missing: z.jpg"),
        ({"a.xml": LAUGHS}, "a document type, which labels do not need"),
        ({"a.xml": "<annotation>"}, "a.xml, which is no XML"),
        ({"a.xml": "<html/>"}, "a.xml, with <html>; expected <annotation>"),
        ({"a.xml": LABEL_IMG.replace("<xmin>65</xmin>", "")}, "a.xml, with None; expected a finite number"),
        ({"a.xml": LABEL_IMG.replace("192", "12")}, "no negative size"),
        ({"a.xml": LABEL_IMG, "b.xml": LABEL_IMG}, "a.jpg, which a.xml, has, too"),
        ({"labels.csv": "1,2,3\n"}, "columns 1, 2, 3; expected file,x,y,label"),
        ({"labels.csv": ""}, "columns of no header; expected file,x,y,label"),
        (row("a.jpg,1,2"), "line 2, with another number of cells"),
        (row('"a.jpg'), "which is no CSV"),
        (row("a.jpg,1,inf,,,RBC"), "with 'inf'; expected a finite number"),
        (row("a.jpg,1,,,,RBC"), "with ''; expected a finite number"),
        (row("a.jpg,1,,2,,RBC"), "with ''; expected a finite number"),
        ({"data.yaml": YAML, "labels/b.txt": LINES, "images/b.jpg": "", "images/b.png": ""}, "with b.jpg and b.png"),
        ({"via.csv": VGG.replace("rect", "polygon")}, "the shape polygon; expected one of point, rect"),
    ],
)
def test_bad_input_is_named_in_one_line(tmp_path: Path, files: dict[str, str | dict], message: str) -> None:
    draw(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=message) as caught:
        read_marks(fill(tmp_path, files))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda folder: read_marks(folder / "none"), "none, which does not exist"),
        (lambda folder: read_marks(folder, "cocoa"), "format 'cocoa'; expected one of imagefolder, coco"),
        (lambda folder: read_marks(folder, "voc"), "without labels; expected those of voc; check the path"),
        (lambda folder: read_marks(folder / "a.jpg"), "without labels"),
        (lambda folder: read_marks(folder, schema={"category": ["Rbc", "WBC"]}), r"'RBC' of 1 marks; expected one of"),
        (lambda folder: write_marks(read_marks(folder)[:0], folder, "coco"), "got no photo"),
        (lambda folder: write_marks(read_marks(folder), folder, "png"), "format 'png'"),
        (lambda folder: Mark(float("nan"), 0.5), "expected finite numbers"),
        (lambda folder: Mark(0.5, 0.5, 0.0, 0.1), "sizes over 0"),
    ],
)
def test_bad_arguments(tmp_path: Path, call: Callable[[Path], object], message: str) -> None:
    draw(tmp_path / "a.jpg")
    fill(tmp_path, {"metadata.jsonl": OWN})
    with pytest.raises(InputError, match=message):
        call(tmp_path)


def test_a_picture_over_the_limits_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (8000, 8000)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"64 megapixels|8000x8000"):
        read_marks(fill(tmp_path, {"metadata.jsonl": {"file_name": "a.png"}}))


def test_labels_of_the_raw_picture_are_refused(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg", size=(640, 480), turn=6)
    with pytest.raises(InputError, match=r"of 640x480 pixels, and a.jpg, which EXIF turns, of 480x640"):
        read_marks(fill(tmp_path, {"a.json": COCO_2017}))


def test_a_schema_says_what_is_read(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    fill(tmp_path, own(size="large"))
    photos = read_marks(tmp_path, schema={"category": ("WBC", "RBC")})
    assert photos.attributes == {"category": ("WBC", "RBC")}
    assert photos[0].marks[0].attributes == {"category": "RBC"}
    assert read_marks(tmp_path).attributes == {"category": ("RBC",), "size": ("large",)}
    fill(tmp_path, {"metadata.jsonl": {"file_name": "a.jpg", "objects": [{"x": 0.5, "y": 0.5}]}})
    for kinds, expected in ((("RBC",), {}), (("object",), {"category": "object"})):
        assert read_marks(tmp_path, schema={"category": kinds})[0].marks[0].attributes == expected


@pytest.mark.parametrize("name", ["yolo", "voc"])
def test_a_file_of_labels_is_that_of_one_picture(tmp_path: Path, name: str) -> None:
    photos = [MarkedPhoto(draw(tmp_path / file), (640, 480), CELLS) for file in ("a.jpg", "a.png")]
    with pytest.raises(InputError, match=r"got a.jpg and a picture whose name differs in the end only"):
        write_marks(MarkedPhotos(tuple(photos), {}), tmp_path / "out", name)
    with pytest.raises(InputError, match=r"got the picture a.jpg twice"):
        write_marks(MarkedPhotos((photos[0], photos[0]), {}), tmp_path / "out", name)
    write_marks(MarkedPhotos((photos[0],), {}), tmp_path / "out", name)
    with pytest.raises(InputError, match="which has files; expected a new or empty folder"):
        write_marks(MarkedPhotos((photos[0],), {}), tmp_path / "out", name)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the photos are not here")
@pytest.mark.parametrize(
    ("folder", "pictures", "marks"), [("cells/train", 205, 2805), ("cells/val", 87, 1138), ("dice/train", 200, 1487)]
)
def test_photos_of_others(tmp_path: Path, folder: str, pictures: int, marks: int) -> None:
    photos = read_marks(SHARED / folder)
    assert (len(photos), sum(len(photo.marks) for photo in photos)) == (pictures, marks)
    assert photos[0].image().size == photos[0].size
    for name in ("coco", "csv"):
        write_marks(photos, tmp_path, name)
        assert read_marks(tmp_path, name, images=SHARED / folder) == photos
