import json
import re

import pytest
from mmdet.datasets import CocoDataset
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
        (b'{"images": [\n  1,,]}', r"not JSON: Expecting value: line 2 column 5"),
        (b"", r"the file is empty"),
        (b"PK\x03\x04\xff\xfe", r"not JSON: 'utf-8' codec can't decode"),
        ([1], LOADED + "annotation file format <class 'list'> not supported"),
        ({}, LOADED + "no key 'categories'. Expected COCO annotations: images with"),
        (without("images"), r"no image with objects of .* 0 images and 1 annotations"),
        (without("annotations"), r"is left after .* has 1 images and 0 annotations"),
        (changed(categories={}), r"in the config: cat, tree\n  in the file: \n"),
        (changed(categories=["tree"]), LOADED + "string indices must be integers"),
        (changed(annotations=[dict(caption="x")]), LOADED + r'.*in {"caption": "x"}'),
        (changed(images=[]), r"no image with objects of cat, tree is left"),
        (changed(annotations=[]), r"no image .* is left"),
        (
            changed(images=[*coco()["images"], dict(coco()["images"][0], width=9)]),
            r"several images have the id 1",
        ),
        (changed(annotations=2 * coco()["annotations"]), "ids in .* are not unique"),
        (
            changed(categories=[*coco()["categories"], dict(id=5, name="dog")]),
            "several categories have the id 5. Give each its own",
        ),
        (
            changed(images=[dict(file_name="1.jpg", width=10, height=10)]),
            LOADED + 'no key .id., in {"file_name": "1.jpg"',
        ),
        (image(width="10"), LOADED + "'<' not supported between instances of 'str'"),
        (image(file_name="2.jpg"), r"1 of 1 images cannot be read, such as .*2.jpg"),
        (annotation(bbox=[1, 2]), LOADED + r"not enough values .*\[1, 2\]"),
        (annotation(bbox=["0", 0, 4, 4]), LOADED + r'can only .*in .*\["0", 0, 4, 4\]'),
        (annotation(area=None), LOADED + r'.*"area": null'),
        (annotation(area=float("nan")), "bbox or area is not a usable number .*NaN"),
        (
            changed(categories=[dict(id=5, name=" tree"), dict(id=3, name="cat")]),
            "Remove the spaces: ' tree' should be 'tree'",
        ),
        (
            annotation(bbox=[0, 0, 4, 10**400]),
            r"bbox or area is not a usable number in .*\[0, 0, 4, 1000",
        ),
        (annotation(iscrowd=1), r"no image .* is left after .* 1 images .* crowds"),
        (annotation(bbox=[0, 0, 4, float("nan")]), r"left after .*\[0, 0, 4, NaN\]"),
        (annotation(image_id=None), r"no image .* is left"),
        (annotation(category_id="5"), r'left after .*"category_id": "5"'),
        (
            changed(categories=[*coco()["categories"], dict(id=7, name="cat")]),
            r"in the file: cat, tree, cat\nMerge the categories named cat into",
        ),
        (
            changed(categories=[dict(id=5, name="Tree")]),
            r"in the config: cat, tree\n  in the file: Tree\n.*metainfo",
        ),
        (
            changed(categories=coco()["categories"][::-1]),
            r"in the file: tree, cat\nIn all datasets",
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
            r"train2017/1.jpg .no such file.. Set data_prefix",
        ),
        (dict(metainfo=None), r"\(80 in all.\n  in the file: cat"),
        (
            dict(metainfo=dict(classes=("cat", "dog", "tree"))),
            r"in the file: cat, tree\nAdd the category dog to the file",
        ),
        (dict(metainfo=dict(classes="tree")), r"in the config: t, r, e, e\n"),
        (
            dict(filter_cfg=dict(filter_empty_gt=True, min_size=11)),
            r"left after .*'min_size': 11",
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


class OwnDataset(CocoDataset):
    def __init__(self, ann_file, data_root, data_prefix, metainfo, pipeline):
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            metainfo=metainfo,
            pipeline=pipeline,
        )


def test_own_class(data):
    """One that does not take all of BaseDataset's arguments."""
    names = ("ann_file", "data_root", "data_prefix", "metainfo", "pipeline")
    cfg = {k: v for k, v in data(coco()).items() if k in names}
    check_dataset({**cfg, "type": OwnDataset})


def test_wrappers(data):
    good = data(coco())
    bad = {**good, "ann_file": "annotations/val.json"}
    bad = dict(type="ClassBalancedDataset", oversample_thr=1e-3, dataset=bad)
    bad = dict(type="RepeatDataset", times=2, dataset=bad)
    with pytest.raises(UserError, match="annotations/val.json: no such annotation"):
        check_dataset(dict(type="ConcatDataset", datasets=[good, bad]))


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (dict(iscrowd="0"), "left out: 1 of 1 annotations, such as"),
        (dict(ignore="0"), "left out: 1 of 1 annotations, such as"),
        (dict(iscrowd=1), "1 objects in 1 images; 1 ignored, as crowds"),
        (dict(segmentation=[[1, 1, 3, 3]]), "left out: 1 of 1 annotations, such as"),
        (dict(segmentation=[[0, 0, 4, 0, 4, 4]]), "1 objects in 1 images"),
        (dict(segmentation=[]), "no key 'mask', in .*4, 4"),
        (dict(segmentation=[0, 0, 4, 0, 4, 4]), "has no len.., in .*4, 4"),
    ],
)
def test_what_training_ignores(data, keys, text):
    load = dict(type="LoadAnnotations", with_bbox=True, with_mask="segm" in str(keys))
    cfg = data(annotation(**keys), pipeline=[load], filter_cfg=None)
    with DefaultScope.overwrite_default_scope("mmdet"):
        found = next(iter(DatasetCheck(cfg).findings()))
    assert re.search(text, found.text)


def test_objects_that_are_there_twice(data):
    (one,) = coco()["annotations"]
    with DefaultScope.overwrite_default_scope("mmdet"):
        check = DatasetCheck(data(changed(annotations=[one, {**one, "id": 2}])))
    assert "; 1 are duplicates, with equal boxes" in next(check.findings()).text


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
