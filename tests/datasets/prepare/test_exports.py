"""Labels as other programs write them; each case has one object, a cat or a dog."""

import json

import pytest
from PIL import Image

from ghostdet.datasets.prepare.exports import part_of, read_export
from ghostdet.errors import UserError

CAT, DOG = ("cat", [10.0, 20.0, 30.0, 40.0]), ("dog", [0.0, 0.0, 50.0, 25.0])
W, H = 100, 80


def write(root, files):
    """Write files: images by None or EXIF's orientation, others by their text."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None or isinstance(content, int):
            exif = Image.Exif()
            exif[0x0112] = content or 1
            Image.new("RGB", (W, H)).save(path, exif=exif)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        else:
            path.write_text(json.dumps(content), encoding="utf-8")


def coco(*images, first=1, categories=None, **keys):
    """COCO JSON of images, each a name and an object or none."""
    names = categories or [dict(id=1, name="cat"), dict(id=2, name="dog")]
    ids = {c["name"]: c["id"] for c in names}
    annotations = [
        dict(id=first + i, image_id=i, category_id=ids[o[0]], bbox=o[1], **keys)
        for i, (_, o) in enumerate(images)
        if o
    ]
    listed = [
        dict(id=i, file_name=name, width=W, height=H)
        for i, (name, _) in enumerate(images)
    ]
    return dict(images=listed, annotations=annotations, categories=names)


def voc(name, *objects, first=1):
    text = f"<annotation><filename>{name}</filename>"
    for label, (x, y, w, h) in objects:
        text += f"<object><name>{label}</name><part><bndbox><xmin>1</xmin></bndbox>"
        text += f"</part><bndbox><xmin>{x + first}</xmin><ymin>{y + first}</ymin>"
        text += f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
    return f"{text}</annotation>"


def yolo(number, box):
    x, y, w, h = box
    return f"{number} {(x + w / 2) / W} {(y + h / 2) / H} {w / W} {h / H}\n"


def labelme(name, *objects, **keys):
    shapes = [
        dict(label=label, points=[[x, y], [x + w, y + h]], shape_type="rectangle")
        for label, (x, y, w, h) in objects
    ]
    return dict(imagePath=name, shapes=[{**shape, **keys} for shape in shapes])


ROOT = dict(id=0, name="pets", supercategory="none")
ROBOFLOW = [
    ROOT,
    *(dict(id=i, name=n, supercategory="pets") for i, n in ((1, "cat"), (2, "dog"))),
]
YAML = "names: [cat, dog]\ntrain: ../train/images\nval: ../valid/images\n"

# Files, and the objects and part of each image.
CASES = {
    "coco": (
        {
            "images/a.jpg": None,
            "b.png": None,
            "all.json": coco(("a.jpg", CAT), ("b.png", None)),
        },
        {"images/a.jpg": ([CAT], ""), "b.png": ([], "")},
    ),
    "coco, a file for each part": (
        {
            **{f"images/{n}.jpg": None for n in "ab"},
            "annotations/instances_train2017.json": coco(("a.jpg", CAT)),
            "annotations/instances_val2017.json": coco(("b.jpg", DOG)),
        },
        {"images/a.jpg": ([CAT], "train"), "images/b.jpg": ([DOG], "val")},
    ),
    "coco of Roboflow": (
        {
            f"{part}/{name}": content
            for part, o in (("train", CAT), ("valid", DOG))
            for name, content in {
                "a.jpg": None,
                "_annotations.coco.json": coco(
                    ("a.jpg", o), first=0, categories=ROBOFLOW
                ),
            }.items()
        },
        {"train/a.jpg": ([CAT], "train"), "valid/a.jpg": ([DOG], "val")},
    ),
    "coco of CVAT": (
        {
            **{f"images/default/{n}/a.jpg": None for n in "xy"},
            "annotations/instances_default.json": coco(
                ("x/a.jpg", CAT), ("y/a.jpg", DOG)
            ),
        },
        {f"images/default/{n}/a.jpg": ([o], "") for n, o in (("x", CAT), ("y", DOG))},
    ),
    "coco of Label Studio": (
        {"images/1-a.jpg": None, "result.json": coco(("images\\1-a.jpg", CAT))},
        {"images/1-a.jpg": ([CAT], "")},
    ),
    "coco, turned by EXIF": (
        {"a.jpg": 6, "a.json": coco(("a.jpg", CAT))},
        {"a.jpg": ([CAT], "")},
    ),
    "voc": (
        {
            "JPEGImages/x/a.JPG": None,
            "JPEGImages/y/a.jpg": None,
            "Annotations/x/a.xml": voc("a.jpg", CAT),
            "Annotations/y/a.xml": voc("a.jpg", DOG, CAT),
        },
        {"JPEGImages/x/a.JPG": ([CAT], ""), "JPEGImages/y/a.jpg": ([CAT, DOG], "")},
    ),
    "voc, with lists of parts": (
        {
            **{f"JPEGImages/{n}.jpg": None for n in "abc"},
            **{f"Annotations/{n}.xml": voc(f"{n}.jpg", CAT) for n in "ab"},
            "ImageSets/Main/train.txt": "a\n",
            "ImageSets/Main/val.txt": "b\n\n",
        },
        {
            f"JPEGImages/{n}.jpg": ([CAT] * (n < "c"), p)
            for n, p in zip("abc", ["train", "val", ""])
        },
    ),
    "voc from pixel 0, in GBK": (
        {
            "a.jpg": None,
            "a.xml": (
                "<?xml version='1.0' encoding='gbk'?>"
                + voc("猫.jpg", CAT, DOG, first=0)
            ).encode("gbk"),
        },
        {"a.jpg": ([CAT, DOG], "")},
    ),
    "yolo": (
        {
            "train/images/a.jpg": None,
            "valid/images/a.jpg": None,
            "valid/images/b.jpg": None,
            "train/labels/a.txt": yolo(0, CAT[1]).replace("\n", "\r\n\r\n"),
            "valid/labels/a.txt": "\ufeff" + yolo(1, DOG[1]),
            "data.yaml": YAML,
        },
        {
            "train/images/a.jpg": ([CAT], "train"),
            "valid/images/a.jpg": ([DOG], "val"),
            "valid/images/b.jpg": ([], "val"),
        },
    ),
    "yolo, polygons and a score": (
        {
            "images/a.jpg": None,
            "labels/a.txt": "1 0 0 0.5 0 0.5 0.3125\n"
            + yolo(0, CAT[1]).strip()
            + " 0.9",
            "classes.txt": "cat\ndog\n",
        },
        {"images/a.jpg": ([CAT, DOG], "")},
    ),
    "yolo, folders of other names": (
        {
            **{f"images/{n}/a.jpg": None for n in "xy"},
            **{f"labels/{n}/a.txt": yolo(0, CAT[1]) for n in "xy"},
            "set.yaml": "path: /data/set\ntrain: images/x\nval: [images/y]\n"
            "names: {0: cat, 5: dog}",
        },
        {"images/x/a.jpg": ([CAT], "train"), "images/y/a.jpg": ([CAT], "val")},
    ),
    "voc, with segmentations": (
        {
            "JPEGImages/a.jpg": None,
            "JPEGImages/b.jpg": None,
            "background/a.jpg": None,
            "SegmentationClass/a.png": None,
            "masks/a.jpg": None,
            "Annotations/a.xml": voc("a.jpg", CAT),
        },
        {
            "JPEGImages/a.jpg": ([CAT], ""),
            "JPEGImages/b.jpg": ([], ""),
            "background/a.jpg": ([], ""),
        },
    ),
    "yolo, lists of images of one name": (
        {
            **{f"images/{n}/a.jpg": None for n in "xy"},
            "labels/x/a.txt": yolo(0, CAT[1]),
            "train.txt": "./images/x/a.jpg\n\n",
            "val.txt": "/data/images/y/a.jpg\n",
            "data.yaml": "names: [cat]\ntrain: /data/train.txt\nval: val.txt",
        },
        {"images/x/a.jpg": ([CAT], "train"), "images/y/a.jpg": ([], "val")},
    ),
    "yolo, boxes with keypoints": (
        {
            "images/a.jpg": None,
            "labels/a.txt": yolo(0, CAT[1]).strip() + " 0.9 0.9 2 1 1 0\n",
            "data.yaml": "names: [cat]\nkpt_shape: [2, 3]",
        },
        {"images/a.jpg": ([CAT], "")},
    ),
    "coco, one name in folders that the files' names say": (
        {
            **{f"{folder}/a.jpg": None for folder in ("crops", "train", "val")},
            "labels/instances_val.json": coco(("a.jpg", CAT)),
            "labels/instances_train.json": coco(("a.jpg", DOG)),
            "labels/instances_crops.json": coco(("a.jpg", None)),
        },
        {
            "crops/a.jpg": ([], ""),
            "train/a.jpg": ([DOG], "train"),
            "val/a.jpg": ([CAT], "val"),
        },
    ),
    "labelme": (
        {
            "a.jpg": None,
            "b.jpg": None,
            "a.json": labelme("C:\\photos\\a.jpg", CAT, DOG),
            "other.json": {"version": 1},
        },
        {"a.jpg": ([CAT, DOG], ""), "b.jpg": ([], "")},
    ),
    "labelme, a group and a circle": (
        {
            "a.jpg": None,
            "a.json": dict(
                imagePath="a.jpg",
                shapes=[
                    dict(label="cat", points=[[10, 20], [40, 30]], group_id=1),
                    dict(label="cat", points=[[10, 30], [20, 60]], group_id=1),
                    dict(label="dog", points=[[30, 30], [30, 40]], shape_type="circle"),
                    dict(label="dog", points=[[1, 1]], shape_type="point"),
                ],
            ),
        },
        {"a.jpg": ([CAT, ("dog", [20.0, 20.0, 20.0, 20.0])], "")},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_lost(tmp_path, case):
    files, expected = CASES[case]
    write(tmp_path, files)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    export = read_export(tmp_path)
    found = {p.path.relative_to(tmp_path).as_posix(): p for p in export.photos}
    assert found.keys() == expected.keys()
    for name, (objects, part) in expected.items():
        photo = found[name]
        assert photo.part == part
        assert photo.size == ((H, W) if "EXIF" in case else (W, H))
        boxes = sorted((o["category"], o["bbox"]) for o in photo.objects)
        assert [box[0] for box in boxes] == [box[0] for box in objects]
        for (_, box), (_, own) in zip(boxes, objects):
            assert box == pytest.approx(own)
    assert set(export.classes) <= {"cat", "dog"}
    if "voc" in case:
        assert export.form.endswith(
            f"counted from {0 if 'from pixel 0' in case else 1}"
        )
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_what_coco_adds_is_kept(tmp_path):
    polygon = [[10, 20, 40, 20, 40, 60]]
    keys = dict(segmentation=polygon, area=600, iscrowd=1)
    write(tmp_path, {"a.jpg": None, "a.json": coco(("a.jpg", CAT), **keys)})
    ((found,),) = [photo.objects for photo in read_export(tmp_path).photos]
    assert keys.items() <= found.items()


MASKS = coco(("a.jpg", CAT), segmentation=[[10, 20, 40, 20, 40, 60]], area=600)


@pytest.mark.parametrize(
    ("files", "note"),
    [
        (
            {"a.json": labelme("a.jpg", CAT, ("dog", [5.0, 5.0, 0.0, 9.0]))},
            "boxes without an area are left out",
        ),
        (
            {"a.json": labelme("a.jpg", CAT, ("dog", [500.0, 5.0, 9.0, 9.0]))},
            "boxes outside their image are left out",
        ),
        (
            {"a.json": labelme("a.jpg", CAT, CAT)},
            "duplicate objects are left out",
        ),
        (
            {"a.json": {**MASKS, "annotations": 2 * MASKS["annotations"]}},
            "duplicate objects are left out",
        ),
        (
            {"a.txt": yolo(0, CAT[1]), "b.txt": yolo(0, CAT[1]), "classes.txt": "cat"},
            "labels have no image, and are left out",
        ),
        (
            {"a.json": coco(("a.jpg", CAT), ("b.jpg", CAT))},
            "labels have no image, and are left out",
        ),
        (
            {"a.txt": yolo(0, CAT[1]) + yolo(7, DOG[1]), "classes.txt": "cat"},
            "objects have an unknown class, and are left out",
        ),
        (
            {
                "a.json": {
                    **coco(("a.jpg", CAT)),
                    "images": [dict(id=0, file_name="a.jpg", width=9, height=9)],
                }
            },
            "images differ in size from what their labels say",
        ),
    ],
)
def test_what_is_said(tmp_path, files, note):
    write(tmp_path, {"a.jpg": None, **files})
    export = read_export(tmp_path)
    assert [*map(len, export.notes.values())] == [1] and note in export.notes
    assert sum(len(photo.objects) for photo in export.photos) == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no image that can be read .*; give the folder of a dataset"),
        (
            {"a.jpg": None},
            "1 images and no labels in a form that ghostdet reads: COCO JSON",
        ),
        (
            {
                "a.jpg": None,
                "a.xml": voc("a.jpg", CAT),
                "a.json": labelme("a.jpg", CAT),
            },
            "labels of several forms: .*a.(xml|json).* and .*give a folder with one",
        ),
        (
            {"a.jpg": None, "a.json": coco(("b.jpg", CAT))},
            "no object for .*; 1 labels have no image, and are left out, such as b.jpg",
        ),
        (
            {"a.jpg": None, "a.json": "{,}"},
            "a.json is not JSON: .*restore or remove it",
        ),
        ({"a.jpg": None, "a.json": {"images": 3, "categories": []}}, "not COCO JSON"),
        ({"a.jpg": None, "a.xml": "<annotation>"}, "a.xml is not XML: .*restore"),
        (
            {"a.jpg": None, "a.xml": '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>'},
            "a.xml is not XML: it declares entities",
        ),
        (
            {
                "a.jpg": None,
                "a.xml": voc("a.jpg", CAT).replace("10.0", "").replace("11.0", ""),
            },
            "an object has no bndbox of four numbers",
        ),
        ({"a.jpg": None, "a.txt": "0 a", "classes.txt": "cat"}, "a.txt:1: could not"),
        (
            {"a.jpg": None, "a.txt": "0 50 40 20 20", "classes.txt": "cat"},
            "a.txt:1: 50, expected shares of the image, 0 to 1; divide by its size",
        ),
        ({"a.jpg": None, "a.txt": "0 1 1", "classes.txt": "cat"}, "a.txt:1: 3 numbers"),
        (
            {"a.jpg": None, "a.txt": "0 5 5 9 5 9 9", "classes.txt": "cat"},
            "a.txt:1: 9, expected shares of the image",
        ),
        ({"a.jpg": None, "data.yaml": "names: [a"}, "data.yaml is not YAML"),
        ({"a.jpg": None, "data.yaml": "names: cat"}, "names is 'cat', expected a list"),
        ({"a.jpg": None, "data.yaml": "names: {cat: 0}"}, "'cat', expected a list of"),
        (
            {"a.jpg": None, "classes.txt": "猫和狗".encode("gbk")},
            "classes.txt is not UTF-8: .*; save it as UTF-8",
        ),
        (
            {"a.jpg": None, "x/classes.txt": "cat", "y/classes.txt": "dog"},
            "x/classes.txt and .*y/classes.txt have different classes",
        ),
        (
            {"a.jpg": None, "a.json": coco(("a.jpg", ("cat", [1.0, 2.0])))},
            "not COCO JSON: IndexError",
        ),
        ({"a.jpg": None, "a.json": {"shapes": [3]}}, "a.json is not labelme's"),
    ],
)
def test_bad(tmp_path, files, message):
    write(tmp_path, files)
    with pytest.raises(UserError, match=message):
        read_export(tmp_path)


def test_large_images(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", W * H // 4)
    write(tmp_path, {"a.jpg": None, "a.json": coco(("a.jpg", CAT))})
    (photo,) = read_export(tmp_path).photos
    assert photo.size == (W, H)


def test_links(tmp_path):
    write(tmp_path, {"real/a.jpg": None, "set/a.json": coco(("a.jpg", CAT))})
    (tmp_path / "set/images").symlink_to(tmp_path / "real")
    (tmp_path / "set/loop").symlink_to(tmp_path / "set")
    (photo,) = read_export(tmp_path / "set").photos
    assert photo.objects


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="no folder at .*nowhere"):
        read_export(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "part"),
    [("valid/a.jpg", "val"), ("training/x/a.jpg", "train"), ("trainer/a.jpg", ""),
     ("test.json", "test"), ("a/contest.jpg", "")],
)  # fmt: skip
def test_part_of(tmp_path, name, part):
    assert part_of((tmp_path / name).relative_to(tmp_path)) == part
