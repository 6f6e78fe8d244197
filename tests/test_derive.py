"""Configs whose classes, data, image size and length are one value each."""

import pytest
from mmengine.config import Config

from ghostdet import CONFIGS
from ghostdet.config import load_config
from ghostdet.errors import UserError

VALUES = {
    "data_root": "pets/",
    "images": "photos/pets/",
    "classes": ("cat", "dog"),
    "image_size": (320, 256),
    "max_iters": 900,
}


@pytest.fixture
def short(tmp_path):
    """A function that writes a short config on one of ours, and gives its path."""

    def write(base="light_s", lines=(), **values):
        path = tmp_path / "pets.py"
        text = [f'_base_ = __import__("ghostdet").CONFIGS + "/own/{base}.py"']
        text += [f"{key} = {value!r}" for key, value in {**VALUES, **values}.items()]
        text += [*lines, '__import__("ghostdet").derive(globals())']
        path.write_text("\n".join(text))
        return path

    return write


@pytest.mark.parametrize(
    "base", ["light_s", "light_m", "light_l", "retinanet", "faster_rcnn"]
)
def test_values(short, base):
    cfg = Config.fromfile(short(base, anchor_scale=3))  # MMEngine alone
    for dataset in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset):
        assert dataset.metainfo.classes == ("cat", "dog")
        assert dataset.data_prefix.img == "../photos/pets/"  # from data_root
        sizes = [
            t[k] for t in dataset.pipeline for k in ("scale", "crop_size") if k in t
        ]
        assert sizes and {*sizes} == {(320, 256)}
    assert cfg.test_evaluator.ann_file == "pets/val.json"
    roi = cfg.model.get("roi_head") or cfg.model
    assert roi.bbox_head.num_classes == 2
    head = cfg.model.get("rpn_head") or cfg.model.bbox_head
    anchors = head.anchor_generator
    assert anchors.get("octave_base_scale", anchors.get("scales")) in (3, [3])
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[1].end == 900
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == 300
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin == 100
    assert cfg.model.backbone.init_cfg and cfg.optim_wrapper.paramwise_cfg.custom_keys


def test_options_do_what_the_file_does(short, tmp_path):
    new = dict(classes=("ant",), image_size=(416, 416), max_iters=90, images="/x/")
    written = load_config(short(**new, pretrained=False), tmp_path).to_dict()
    options = {**new, "classes": ["ant"], "image_size": 416, "pretrained": False}
    given = load_config(short(pretrained=True), tmp_path, cfg_options=options)
    dumped = tmp_path / "dumped.py"
    given.dump(dumped)
    again = load_config(dumped, tmp_path, cfg_options={"max_iters": 90}).to_dict()
    given = given.to_dict()
    parts = "model train_dataloader test_dataloader test_evaluator train_cfg "
    for key in f"{parts}param_scheduler optim_wrapper default_hooks".split():
        assert written[key] == given[key] == again[key]


def test_what_the_file_says_itself_stays(short):
    lines = [
        "model = dict(bbox_head=dict(feat_channels=48, num_classes=7))",
        'test_dataloader = dict(dataset=dict(ann_file="test.json"))',
    ]
    cfg = Config.fromfile(short(lines=lines))
    assert cfg.model.bbox_head.feat_channels == 48
    assert cfg.model.bbox_head.num_classes == 2
    assert cfg.test_evaluator.ann_file == "pets/test.json"
    assert cfg.val_evaluator.ann_file == "pets/val.json"
    other = {"train_cfg.val_interval": 7, "max_iters": 90}
    assert load_config(short(), cfg_options=other).train_cfg.val_interval == 7


def test_classes_of_a_file(short, tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("black cat\nDog\n")
    cfg = Config.fromfile(short(classes=str(path)))
    assert cfg.val_dataloader.dataset.metainfo.classes == ("black cat", "Dog")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("classes", "nowhere.txt", "classes is 'nowhere.txt', expected names"),
        ("classes", [], r"classes is \[\], expected names"),
        ("classes", [1, 2], r"classes is \[1, 2\], expected names"),
        ("image_size", "big", "image_size is 'big', expected px"),
        ("image_size", [320], r"image_size is \[320\], expected px"),
        ("image_size", 0, "image_size is 0, expected px"),
        ("max_iters", 1, "max_iters is 1, expected 2 iterations or more"),
        ("max_iters", "x", "max_iters is 'x', expected 2 iterations or more"),
        ("clases", ["a"], "has no effect: .* did you mean classes"),
    ],
)
def test_bad_value(short, key, value, message):
    with pytest.raises(UserError, match=message):
        load_config(short(), cfg_options={key: value})


@pytest.mark.parametrize("length", [2, 3, 7])
def test_short(short, length):
    cfg = load_config(short(max_iters=2), cfg_options={"max_iters": length})
    warmup, cosine = cfg.param_scheduler
    assert 0 == warmup.begin < warmup.end == cosine.begin < cosine.end == length


def test_shipped_configs_are_whole():
    cfg = load_config(f"{CONFIGS}/own/light_s.py")
    assert cfg.val_dataloader.dataset.metainfo.classes == ("object",)
