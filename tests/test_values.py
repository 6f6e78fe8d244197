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
    cfg = Config.fromfile(short(base, anchor_scale=3, weights="w.pth"))  # MMEngine's
    for dataset in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset):
        assert dataset.metainfo.classes == ("cat", "dog")
        assert dataset.data_prefix.img == "photos/pets/"
        sizes = [
            t[k] for t in dataset.pipeline for k in ("scale", "crop_size") if k in t
        ]
        assert sizes and {*sizes} == {(320, 256)}
    assert cfg.test_evaluator.ann_file == "pets/val.json"
    roi = cfg.model.get("roi_head") or cfg.model
    assert roi.bbox_head.num_classes == 2
    head = cfg.model.get("rpn_head") or cfg.model.bbox_head
    anchors = head.anchor_generator
    expected = 5 if base.startswith("light") else 3
    assert anchors.get("octave_base_scale", anchors.get("scales")) in (expected, [3])
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[1].end == 900
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == 300
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin == 50
    assert cfg.model.backbone.init_cfg.checkpoint == "w.pth"
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult == 0.1


def test_options_do_what_the_file_does(short, tmp_path):
    new = dict(classes=("ant",), image_size=(416, 416), max_iters=90, images="/x/")
    written = load_config(short(**new, weights=None), tmp_path)
    options = {**new, "classes": ["ant"], "image_size": 416, "weights": None}
    given = load_config(short(), tmp_path, cfg_options=options)
    assert not {"init_cfg", "se_gate"} & {*given.model.backbone}  # of these weights
    assert given.to_dict() == written.to_dict()
    given.dump(tmp_path / "dumped.py")
    with pytest.raises(UserError, match="max_iters .* did you mean train_cfg.max_iter"):
        load_config(tmp_path / "dumped.py", cfg_options={"max_iters": 90})


def test_what_the_file_says_itself_stays(short):
    lines = [
        "model = dict(bbox_head=dict(feat_channels=48))",
        "tta_model = dict(type='DetTTAModel')",
        "param_scheduler = _base_.param_scheduler",
        "param_scheduler[0].end = param_scheduler[1].begin = 99",
    ]
    cfg = Config.fromfile(short(lines=lines, test_file="test.json"))
    assert cfg.model.bbox_head.feat_channels == 48
    assert cfg.tta_model == dict(type="DetTTAModel")
    assert cfg.model.bbox_head.num_classes == 2
    assert cfg.test_evaluator.ann_file == "pets/test.json"
    assert cfg.test_dataloader.dataset.ann_file == "pets/test.json"
    assert cfg.val_evaluator.ann_file == "pets/val.json"
    assert [s.end for s in cfg.param_scheduler] == [99, 900]
    other = {"train_cfg.val_interval": 7, "max_iters": 90}
    assert load_config(short(), cfg_options=other).train_cfg.val_interval == 7


def test_classes_of_a_file(short, tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("black cat\n\nDog \n", "utf-8-sig")
    cfg = Config.fromfile(short(classes=str(path)))
    assert cfg.val_dataloader.dataset.metainfo.classes == ("black cat", "Dog")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "classes",
            "no.txt",
            r"classes is 'no.txt', expected as \('object', .* or a f",
        ),
        ("classes", [], r"classes is \[\], expected as"),
        ("classes", [1, 2], r"classes is \[1, 2\], expected as"),
        ("image_size", "big", r"image_size is 'big', expected as \(320, 320\)$"),
        ("image_size", [320], r"image_size is \[320\], expected as"),
        ("image_size", 0, "image_size is 0, expected as"),
        ("max_iters", 0, "max_iters is 0, expected as 450"),
        ("max_iters", "x", "max_iters is 'x', expected as 450"),
        ("weights", 3, "weights is 3, expected as 'backbone"),
        ("classes", ["a", "a"], "expected as .*, all different, or a file"),
        ("data_root", None, "data_root is None, expected as 'data/own/'"),
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


def test_values_of_a_base(tmp_path):
    """A config on one of ours that sets values itself, and options on ours."""
    ours = f"{CONFIGS}/light/light_s_bccd.py"
    (tmp_path / "longer.py").write_text(
        f'_base_ = {ours!r}\nmax_iters = 900\n__import__("ghostdet").derive(globals())'
    )
    base, cfg = load_config(ours), Config.fromfile(tmp_path / "longer.py")
    assert (base.param_scheduler[1].end, cfg.param_scheduler[1].end) == (500, 900)
    assert cfg.val_dataloader == base.val_dataloader and cfg.model == base.model
    assert cfg.model.bbox_head.num_classes == 3
    given = load_config(ours, cfg_options={"max_iters": 900})
    assert given.param_scheduler == cfg.param_scheduler
    assert load_config(ours).param_scheduler == base.param_scheduler


def test_variable_of_a_config_of_coco(tmp_path):
    """The idiom of MMDetection."""
    (tmp_path / "own.py").write_text(
        f"_base_ = {CONFIGS + '/retinanet_ghostnet_fpn.py'!r}\nclasses = ('a', 'b')\n"
        "model = dict(bbox_head=dict(num_classes=2))\ndata = dict(classes=classes)\n"
        "train_dataloader = dict(dataset=dict(metainfo=data))"
    )
    assert load_config(tmp_path / "own.py").model.bbox_head.num_classes == 2


def test_value_that_the_file_does_not_derive_from(tmp_path):
    (tmp_path / "own.py").write_text(
        f"_base_ = {CONFIGS + '/own/light_s.py'!r}\nmax_iters = 900"
    )
    for options in ({}, {"max_iters": 90}):
        with pytest.raises(UserError, match="own.py sets max_iters, which its base"):
            load_config(tmp_path / "own.py", cfg_options=options)
    with pytest.raises(UserError, match="classes changes only a part of .*_fpn.py;"):
        path = f"{CONFIGS}/retinanet_ghostnet_fpn.py"
        load_config(path, cfg_options={"classes": ["a"]})


@pytest.mark.parametrize(
    "config", ["light/light_s_bccd", "demo/retinanet_ghostnet_trees"]
)
def test_folder_without_a_slash(config):
    path = f"{CONFIGS}/{config}.py"
    one, two = (
        load_config(path, cfg_options={"data_root": root}) for root in ("a", "a/")
    )
    for part in ("train_dataloader", "test_dataloader", "test_evaluator"):
        assert one[part] == two[part]
