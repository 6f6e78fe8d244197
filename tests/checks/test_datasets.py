import json

import pytest
from mmdet.datasets import CocoDataset

from ghostdet.checks import check_dataset
from ghostdet.checks.datasets import DatasetCheck
from ghostdet.errors import UserError


def coco() -> dict:
    return dict(
        images=[dict(id=1, file_name="1.jpg", width=10, height=10)],
        annotations=[dict(id=1, image_id=1, category_id=5, bbox=[0, 0, 4, 4], area=16)],
        categories=[dict(id=3, name="cat"), dict(id=5, name="tree")],
    )


@pytest.fixture
def data(tmp_path):
    """A dataset's configuration, after writing it; content None writes no file."""

    def write(content, **options) -> dict:
        (tmp_path / "images").mkdir()
        (tmp_path / "images/1.jpg").touch()
        (tmp_path / "annotations").mkdir()
        path = tmp_path / "annotations" / "train.json"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            path.write_text(json.dumps(content))
        return (
            dict(
                type="CocoDataset",
                data_root=str(tmp_path),
                ann_file="annotations/train.json",
                data_prefix=dict(img="images/"),
                metainfo=dict(classes=("cat", "tree")),
                pipeline=[dict(type="NoSuchTransform")],
                filter_cfg=dict(filter_empty_gt=True),
            )
            | options
        )

    return write


def test_good(data):
    cfg = data(coco())
    before = json.dumps(cfg)
    assert check_dataset(cfg) is None
    assert json.dumps(cfg) == before


def changed(**lists) -> dict:
    return {**coco(), **lists}


def image(**keys) -> dict:
    return changed(images=[{**coco()["images"][0], **keys}])


def annotation(**keys) -> dict:
    return changed(annotations=[{**coco()["annotations"][0], **keys}])


def without(key) -> dict:
    return {k: v for k, v in coco().items() if k != key}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"train\.json: no such annotation file(.|\n)*--data-root DIR(.|\n)*"),
        (b'{"images": [\n  1,,]}', r"not JSON: line 2, column 5"),
        (b"", r"not JSON: line 1, column 1"),
        (b"PK\x03\x04\xff\xfe", r"not JSON but binary"),
        ([1], r"not COCO.*no list images, annotations, categories \(found list\)"),
        ({}, r"not COCO.*found dict"),
        (without("images"), r"no list images \(found keys annotations, categories"),
        (without("annotations"), r"no list annotations"),
        (changed(categories={}), r"no list categories"),
        (changed(categories=["tree"]), r'categories\[0\] is "tree".*id, name'),
        (changed(annotations=[dict(caption="x")]), r"annotations\[0\].*area, bbox"),
        (changed(images=[]), r"lists no images"),
        (changed(annotations=[]), r"none of its 0 annotations"),
        (
            changed(images=[*coco()["images"], dict(coco()["images"][0], width=9)]),
            r"two of its images have the id 1",
        ),
        (changed(annotations=2 * coco()["annotations"]), "two of its annotations"),
        (image(width="10"), r"width and height of image 1 are '10' and 10"),
        (
            image(file_name="2.jpg"),
            r"none of 1 images it lists is there, such as .*2.jpg",
        ),
        (annotation(bbox=[1, 2]), r"annotation 1 has bbox \[1, 2\] and area 16"),
        (annotation(bbox=["0", 0, 4, 4]), r'annotation 1 has bbox \["0", 0, 4, 4\]'),
        (annotation(area=None), r"and area null"),
        (annotation(iscrowd=1), r"is an object of .*\(1 crowds or boxes of less"),
        (annotation(bbox=[0, 0, 4, 0]), r"is an object of .*\(1 crowds"),
        (annotation(bbox=[0, 0, 4, float("nan")]), r"has bbox \[0, 0, 4, NaN\]"),
        (annotation(image_id=None), r"image_id of an entry in annotations is null"),
        (annotation(category_id="5"), r"the category_id '5', which is none of"),
        (
            changed(categories=[*coco()["categories"], dict(id=7, name="cat")]),
            r"more than one of its categories is called cat",
        ),
        (
            changed(categories=[dict(id=5, name="Tree")]),
            r"configured: cat, tree\n  in the file: Tree\n.*metainfo",
        ),
    ],
)
def test_bad(data, content, message):
    with pytest.raises(UserError, match=message) as caught:
        check_dataset(data(content))
    assert "train.json" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(data_prefix=dict(img="train2017/")),
            r"train2017/: no such image directory(.|\n)*"
            r"  DIR/annotations/train.json\n  DIR/train2017/",
        ),
        (dict(metainfo=None), r"no category person, bicycle.*79 in all"),
        (
            dict(metainfo=dict(classes=("cat", "dog", "tree"))),
            r"no category dog.*order: cat, tree$",
        ),
        (
            dict(metainfo=dict(classes="tree")),
            r"the word 'tree', .* classes=\('tree',\)",
        ),
        (
            dict(filter_cfg=dict(filter_empty_gt=True, min_size=11)),
            r"no image with objects is left.*min_size=11",
        ),
        (dict(img_dir="images"), r"unexpected keyword argument 'img_dir'"),
        (
            dict(file_client_args="images"),
            r"cannot be built: .*`file_client_args` is deprecated",
        ),
        (dict(type="CoccoDataset"), r"type 'CoccoDataset', .* dataset.type=NAME"),
    ],
)
def test_bad_configuration(data, options, message):
    with pytest.raises(UserError, match=message):
        check_dataset(data(coco(), **options))


def test_wrappers(data):
    good = data(coco())
    bad = {**good, "ann_file": "annotations/val.json"}
    bad = dict(type="ClassBalancedDataset", oversample_thr=1e-3, dataset=bad)
    bad = dict(type="RepeatDataset", times=2, dataset=bad)
    with pytest.raises(UserError, match="annotations/val.json: no such annotation"):
        check_dataset(dict(type="ConcatDataset", datasets=[good, bad]))


@pytest.mark.parametrize("change", [dict(test_mode=True), dict(filter_cfg=None)])
@pytest.mark.parametrize(
    "content", [without("annotations"), changed(annotations=[]), annotation(iscrowd=1)]
)
def test_objects_are_not_needed_where_images_are_not_filtered(data, change, content):
    check_dataset(data(content, **change))


def test_file_of_classes(data, tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ntree\n")
    metainfo = dict(classes=str(tmp_path / "classes.txt"))
    check_dataset(data(coco(), metainfo=metainfo))


@pytest.mark.parametrize(
    "cfg",
    [
        dict(type="VOCDataset", data_root="VOC2007"),
        dict(type=list),
        dict(type="LVISV1Dataset", ann_file="nowhere.json"),
        dict(type="Objects365V1Dataset", ann_file="nowhere.json"),
    ],
)
def test_other_kinds_are_not_checked(cfg):
    check_dataset(cfg)


@pytest.mark.parametrize(
    "method, read",
    [
        (None, True),
        ("get_cat_ids", True),
        ("full_init", False),
        ("get_data_info", False),
        ("prepare_data", False),
        ("_join_prefix", False),
    ],
)
def test_subclass_that_reads_in_its_own_way(data, method, read):
    kind = type("Own", (CocoDataset,), {method: lambda self: None} if method else {})
    check = DatasetCheck(data(coco(), type=kind), {})
    assert (check.dataset is not None) == read


def test_images_of_a_server_are_not_asked_for(address):
    url, folder = address
    (folder / "train.json").write_text(json.dumps(coco()))
    cfg = dict(
        type="CocoDataset",
        ann_file=f"{url}/train.json",
        data_prefix=dict(img=f"{url}/images"),
        metainfo=dict(classes=("cat", "tree")),
        pipeline=[dict(type="LoadReadableImage")],
    )
    images = [f for f in DatasetCheck(cfg, {}).findings() if f.check == "images"]
    assert [f.status for f in images] == ["pass"]
    assert "1 elsewhere, not looked for" in images[0].text
    assert [f for f in DatasetCheck(cfg, {}).findings(None) if f.status == "fail"]
