import json

import pytest
from mmengine.registry import DefaultScope

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
                pipeline=[dict(type="LoadReadableImage")],
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


LOADED = r"train\.json: CocoDataset cannot load it: "


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"train\.json: no such annotation file(.|\n)*--data-root DIR(.|\n)*"),
        (b'{"images": [\n  1,,]}', r"not JSON: line 2, column 5"),
        (b"", r"not JSON: line 1, column 1"),
        (b"\xef\xbb\xbf{}", r"not JSON: line 1, column 1: Unexpected UTF-8 BOM"),
        (b"PK\x03\x04\xff\xfe", r"not JSON but binary"),
        ([1], LOADED + "annotation file format <class 'list'> not supported"),
        ({}, LOADED + "no key 'categories'. Expected COCO annotations: images with"),
        (without("images"), r"leaves no image with .* 0 images with 1 annotations"),
        (without("annotations"), r"leaves no image with .* 1 images with 0 annotat"),
        (changed(categories={}), r"category_id 5, which is none of the categories"),
        (changed(categories=["tree"]), LOADED + "string indices must be integers"),
        (changed(annotations=[dict(caption="x")]), LOADED + r'.*in {"caption": "x"}'),
        (changed(images=[]), r"leaves no image with objects of the classes cat, tree"),
        (changed(annotations=[]), r"leaves no image"),
        (
            changed(images=[*coco()["images"], dict(coco()["images"][0], width=9)]),
            r"2 of its images have the id 1",
        ),
        (changed(annotations=2 * coco()["annotations"]), "ids in .* are not unique"),
        (image(width="10"), LOADED + "'<' not supported between instances of 'str'"),
        (
            image(file_name="2.jpg"),
            r"none of 1 images it lists is there, such as .*2.jpg",
        ),
        (annotation(bbox=[1, 2]), LOADED + r"not enough values .*\[1, 2\]"),
        (annotation(bbox=["0", 0, 4, 4]), LOADED + r'can only .*in .*\["0", 0, 4, 4\]'),
        (annotation(area=None), LOADED + r'.*"area": null'),
        (annotation(iscrowd=1), r"leaves no image .*objects that are no crowds"),
        (annotation(bbox=[0, 0, 4, 0]), r"leaves no image"),
        (annotation(bbox=[0, 0, 4, float("nan")]), r"has the bbox \[0, 0, 4, NaN\]"),
        (annotation(bbox=[0, 0, 4, 10**400]), r"has the bbox \[0, 0, 4, 1000"),
        (annotation(image_id=None), r"leaves no image"),
        (annotation(category_id="5"), r"the category_id '5', which is none of"),
        (
            changed(categories=[*coco()["categories"], dict(id=7, name="cat")]),
            r"more than one of its categories is called cat",
        ),
        (
            changed(categories=[dict(id=5, name="Tree")]),
            r"configured: cat, tree\n  in the file: Tree\n.*metainfo",
        ),
        (
            changed(categories=coco()["categories"][::-1]),
            r"in another order than .* the file's order: tree, cat$",
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
        (dict(data_prefix=dict(img="train2017/")), r"train2017/1.jpg. Set data_prefix"),
        (
            dict(metainfo=None),
            r"no category person.*79 in all., only cat, so that",
        ),
        (
            dict(metainfo=dict(classes=("cat", "dog", "tree"))),
            r"no category dog, only cat, tree, so that tree is taken for dog. Add the",
        ),
        (
            dict(metainfo=dict(classes="tree")),
            r"the word 'tree', .* classes=\('tree',\)",
        ),
        (
            dict(filter_cfg=dict(filter_empty_gt=True, min_size=11)),
            r"'min_size': 11} leaves no image",
        ),
        (dict(img_dir="images"), r"unexpected keyword argument 'img_dir'"),
        (dict(type="CoccoDataset"), r"CoccoDataset is not in .*dataset.KEY=VALUE"),
        (dict(type="VOCDataset", ann_file="no.txt"), r"no.txt: no such annotation fi"),
        (dict(type=list), "list.. takes no keyword arguments"),
        (dict(pipeline=[dict(type="NoSuch")]), "NoSuch is not in the"),
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
    with DefaultScope.overwrite_default_scope("mmdet"):
        check = DatasetCheck(cfg)
    images = [f for f in check.findings() if f.check == "images"]
    assert [f.status for f in images] == ["pass"]
