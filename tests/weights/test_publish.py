"""Published weights: used as the checkpoint is, and nothing in them runs."""

import ast
import inspect
import json
import os
import random
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import safetensors.torch
import torch
from coco_dataset import IN_PROCESS
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.hooks import EMAHook
from safetensors import safe_open
from unchecked import train

from ghostdet import CONFIGS, apis
from ghostdet.apis import infer, load_detector, load_model
from ghostdet.apis.model import build_model, latest_checkpoint
from ghostdet.config import load_config
from ghostdet.errors import UserError
from ghostdet.weights.checkpoint import read_file
from ghostdet.weights.publish import publish, published_parts
from ghostdet.weights.published import _decoded, check_description, checksum, encoded

CONFIG = f"{CONFIGS}/bccd/retinanet_ghostnet_small_bccd.py"
DIGITS = f"{CONFIGS}/classification/ghostnet_digits.py"
TEST_IN_PROCESS = {k: v for k, v in IN_PROCESS.items() if k.startswith("test_")}


@pytest.fixture(scope="module")
def cfg():
    """The config of the short run, for scores of an untrained detector."""
    return load_config(CONFIG, cfg_options={"model.test_cfg.score_thr": 0.0})


@pytest.fixture(scope="module")
def published(trained, cfg, tmp_path_factory):
    """Weights of the short run, which nobody writes to."""
    out = tmp_path_factory.mktemp("published") / "blood.safetensors"
    return publish(str(trained / "iter_4.pth"), str(out), cfg)


@pytest.fixture
def own(published, tmp_path):
    """A copy of the two files, to be changed."""
    for path in published.parent.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path / published.name


def change(own, edit):
    path = own.with_suffix(".json")
    content = json.loads(path.read_text())
    edit(content)
    content["description_sha256"] = checksum(content)  # as who forges it would
    path.write_text(json.dumps(content))
    return path


def test_what_is_written(published, trained):
    content = json.loads(published.with_suffix(".json").read_text())
    assert content.keys() == {
        *("published", "ghostdet", "classes", "model", "pipeline", "sha256"),
        *("description_sha256", "metrics"),
    }
    assert content["classes"] == ["RBC", "WBC", "Platelets"]
    found = json.loads((trained / "run.json").read_text())["evaluations"][-1]
    assert content["metrics"]["coco/bbox_mAP"] == found["coco/bbox_mAP"]
    expected = read_file(trained / "iter_4.pth")["state_dict"]
    weights = safetensors.torch.load_file(published)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())
    with safe_open(published, "pt") as file:
        assert len(file.metadata()) == 1  # the order of more is random
    assert len(list(published.parent.iterdir())) == 2


def in_layout_of(cells):
    """Options for data in another layout than COCO's."""
    return {
        **TEST_IN_PROCESS,
        "test_dataloader.dataset.ann_file": "annotations/test.json",
        "test_dataloader.dataset.data_prefix.img": "images/",
        "test_dataloader.dataset.indices": 4,
        "test_evaluator.ann_file": str(cells / "annotations/test.json"),
    }


def test_evaluates_and_detects_as_the_checkpoint(
    published, trained, tiny, cfg, cells, tmp_path, new_run
):
    expected = apis.test(tiny(), trained / "iter_4.pth")
    new_run()
    description = published.with_suffix(".json")
    theirs = load_config(description, tmp_path / "run", cells, in_layout_of(cells))
    shown = tmp_path / "shown"
    assert apis.test(theirs, published, show_dir=str(shown)) == expected
    assert len(list(shown.rglob("*.*g"))) == 4
    image = min((cells / "images").iterdir())
    one = infer(image, cfg, trained / "iter_4.pth", tmp_path / "a")
    two = infer(image, published, published, tmp_path / "b")  # the .json beside it
    assert latest_checkpoint(theirs) == str(published)
    found = [json.loads(path.read_text())[:5] for path in (one, two)]
    assert [f["bbox"] for f in found[0]] == [f["bbox"] for f in found[1]]
    assert found[1][0]["category_name"] in ("RBC", "WBC", "Platelets")


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(Path(CONFIGS).rglob("*.py")) if "_base_" not in str(path)],
    ids=lambda path: path.stem,
)
def test_every_config_can_be_published(path):
    """And its model and pipeline are the same, to the type of each sequence."""
    cfg = load_config(path)
    for part in (cfg.model, cfg.model.backbone, cfg.model.get("neck") or {}):
        part.pop("init_cfg", None)
    text = json.dumps(encoded(published_parts(cfg)))
    read = json.loads(text, object_hook=_decoded)
    assert repr(read["model"]) == repr(cfg.model.to_dict())
    pipeline = cfg.to_dict()["test_dataloader"]["dataset"]["pipeline"]
    assert repr(read["pipeline"]) == repr(pipeline)


def test_a_base_of_mmdetection(tmp_path):
    name = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"
    (tmp_path / "own.py").write_text(
        f"_base_ = '{name}'\n"
        "model = dict(backbone=dict(_delete_=True, type='GhostNet'))"
    )
    parts = published_parts(load_config(tmp_path / "own.py"))
    assert "_scope_" not in str(parts)
    assert parts["model"]["backbone"] == dict(type="GhostNet")


FOUR = {"model.head.num_classes": 4}  # digits, in the folders n0 to n3


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier's checkpoint as a run writes it, and what is published of it."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    cfg = load_config(DIGITS, cfg_options=FOUR)
    meta = dict(epoch=3, dataset_meta=dict(classes=("n0", "n1", "n2", "n3")), cfg="")
    content = {"state_dict": build_model(cfg).state_dict(), "meta": meta}
    torch.save({**content, "ema_state_dict": {}}, folder / "best.pth")
    out = publish(str(folder / "best.pth"), str(folder / "a.safetensors"), cfg)
    return folder / "best.pth", out


def test_classifier_evaluates_as_the_checkpoint(
    classifier, digit_folders, tmp_path, new_run
):
    checkpoint, published = classifier
    description = json.loads(published.with_suffix(".json").read_text())
    assert description["classes"] == ["n0", "n1", "n2", "n3"]
    val = str(digit_folders / "val")
    dataset = dict(type="ImageFolder", root=val, pipeline=description["pipeline"])
    options = {
        "test_dataloader.dataset": dict(_delete_=True, **dataset),
        "test_evaluator.topk": [1],
    }
    ours = load_config(
        DIGITS, tmp_path / "run", None, {**FOUR, **TEST_IN_PROCESS, **options}
    )
    theirs = load_config(published, tmp_path / "run", digit_folders, TEST_IN_PROCESS)
    assert theirs.test_dataloader.dataset.root == val
    metrics = []
    for cfg, weights in ((ours, checkpoint), (theirs, published)):
        new_run()
        metrics.append(apis.test(cfg, weights))
    assert metrics[0] == metrics[1] and metrics[0].keys() == {"accuracy/top1"}
    image = next((digit_folders / "val/n3").iterdir())
    # With a config of one's own, the classes are those of the description.
    cfg = load_config(DIGITS, cfg_options=FOUR)
    found = [
        infer(image, config, weights, tmp_path / str(number)).read_text()
        for number, (config, weights) in enumerate(
            [(cfg, checkpoint), (published, published), (cfg, published)]
        )
    ]
    assert found[0] == found[1] == found[2]


def test_average_is_what_is_published(tiny, cfg, tmp_path, capsys):
    tiny = tiny({"train_cfg.max_iters": 2, "train_cfg.val_interval": 9})
    tiny.custom_hooks.append(dict(type="EMAHook", momentum=0.5))
    runner = train(tiny)
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    average = hook.ema_model.module.state_dict()
    out = tmp_path / "a.safetensors"
    publish(str(tmp_path / "run/iter_2.pth"), str(out), cfg)
    assert "moving average" in capsys.readouterr().out
    weights = safetensors.torch.load_file(out)
    assert all(torch.equal(weights[name], value) for name, value in average.items())
    name = "bbox_head.retina_cls.weight"
    assert not torch.equal(weights[name], runner.model.state_dict()[name])


def test_nothing_is_written_where_weights_do_not_fit(own, trained, cfg, tmp_path):
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    checkpoint = str(trained / "iter_4.pth")
    other = load_config(CONFIG, cfg_options={"model.bbox_head.num_classes": 4})
    with pytest.raises(UserError, match="do not fit this model"):
        publish(checkpoint, str(own), other)
    content = read_file(trained / "iter_4.pth")
    content["state_dict"]["backbone.bn1.bias"][0] = float("nan")
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match="backbone.bn1.bias is not finite"):
        publish(str(tmp_path / "a.pth"), str(own), cfg)
    (tmp_path / "a.pth").unlink()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(UserError, match="does not end in .safetensors"):
        publish(checkpoint, str(tmp_path / "a.pth"), cfg)


def test_files_of_somebody_else(own, trained, cfg, tmp_path):
    checkpoint, out = str(trained / "iter_4.pth"), tmp_path / "a.safetensors"
    own.with_suffix(".json").write_text('{"format_version": 1}')  # of an export
    with pytest.raises(UserError, match="exists and was not published"):
        publish(checkpoint, str(own), cfg)
    out.write_bytes(b"theirs")
    with pytest.raises(UserError, match="exists and was not published"):
        publish(checkpoint, str(out), cfg)
    assert out.read_bytes() == b"theirs"


def test_stopped_between_the_two_files(own, trained, cfg, monkeypatch):
    """No pair of old and new goes unnoticed."""
    rename = os.replace

    def stopping(source, target):
        if Path(target).suffix == ".json":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", stopping)
    with pytest.raises(UserError, match="No space left"):
        publish(str(trained / "iter_2.pth"), str(own), cfg)
    monkeypatch.undo()
    with pytest.raises(UserError, match="are not the weights that"):
        load_detector(own, own)
    publish(str(trained / "iter_2.pth"), str(own), cfg)
    load_detector(own, own)
    assert len(list(own.parent.iterdir())) == 2


def test_the_runner_does_not_write_over_it(own):
    with pytest.raises(UserError, match="holds .*blood.json itself"):
        load_config(own.with_suffix(".json"), own.parent)


CODE = "__import__('pathlib').Path('marker').touch()"
V2 = "torchvision.transforms.v2."
HOSTILE = [  # place, value, message
    ("model", "a.py", "model is not a dictionary"),
    ("model.type", "pathlib.Path", "'pathlib.Path', which is in no registry"),
    ("model.type", "evil.RetinaNet", "which is in no registry"),
    ("model.type", "mmdet.models.RetinaNet", "which is in no registry"),
    ("model.type", ["RetinaNet"], "expected a name"),
    ("model.type", "KnowledgeDistillationSingleStageDetector", "not known to be safe"),
    ("model.type", "Detectron2Wrapper", "not known to be safe"),
    ("model.type", "GroundingDINO", "not known to be safe"),
    ("model.bbox_head.type", "CameraMotionCompensation", "not known to be safe"),
    ("model.backbone.type", "ExportedDetector", "not known to be safe"),
    ("model.neck.type", "BertModel", "not known to be safe"),
    ("model.test_cfg.nms.type", CODE, "which is in no registry"),
    ("model.test_cfg.nms.iou_threshold", CODE, "expected a word"),
    ("model._scope_", "evil", "is not the name of an argument"),
    ("model.backbone.init_cfg", {"type": "Pretrained"}, "would load other weights"),
    ("model.backbone.pretrained", "https://a.b/c.pth", "would load other weights"),
    ("model.teacher_config", "evil.py", "expected a word"),
    ("pipeline", "a.py", "pipeline is not a list"),
    ("pipeline", [{"type": "Lambda"}], "not in LoadAnn"),
    ("pipeline", ["evil.py"], "pipeline is not a list"),
    ("pipeline.0.type", "os.system", "not in LoadAnn"),
    ("pipeline.0.type", V2 + "Lambda", "not in LoadAnn"),
    ("pipeline.0.type", V2 + "functional.resize", "not in LoadAnn"),
    ("pipeline.0.lambd", CODE, "expected a word or a number"),
    ("pipeline.0.backend_args", {"backend": "https://a.b"}, "expected a word"),
    ("pipeline.0.backend_args", {"type": "os.system"}, "which is in no registry"),
]


@pytest.mark.parametrize("place, value, message", HOSTILE)
def test_hostile_description(own, tmp_path, monkeypatch, place, value, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(CODE)

    def edit(node):
        *above, last = place.split(".")
        for key in above:
            node = node[int(key) if isinstance(node, list) else key]
        node[last] = value

    path = change(own, edit)
    for load in (load_config, lambda path: load_model(path, own)):
        with pytest.raises(UserError, match=message):
            load(path)
    assert not (tmp_path / "marker").exists()


def test_damaged_description(own):
    """Any damage is noticed before a component meets it."""
    path, rng = own.with_suffix(".json"), random.Random(0)
    content, expected = path.read_bytes(), load_config(path).to_dict()
    for _ in range(100):
        damaged, place = bytearray(content), rng.randrange(len(content))
        new = rng.choices(b'0123456789"{}[],:eE.-ntf', k=rng.randrange(3))
        damaged[place : place + rng.randrange(4)] = bytes(new)
        path.write_bytes(damaged)
        with suppress(UserError):
            assert load_config(path).to_dict() == expected


def test_everyone_may_read_them(published):
    modes = {path.stat().st_mode & 0o777 for path in published.parent.iterdir()}
    (published.parent.parent / "plain").touch()
    assert modes == {(published.parent.parent / "plain").stat().st_mode & 0o777}


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ("9" * 5000, "Exceeds the limit"),
        ('{"__tuple__": 1}', "not iterable"),
        ("[]", "must be integers or slices"),
        ('{"model": {}}', "'published'"),
        ('{"published": 1}', "format 1, expected 2"),
        ('{"published": 2, "classes": "a.txt"}', "classes is not a list of names"),
    ],
)
def test_no_description(own, text, message):
    path = own.with_suffix(".json")
    path.write_text(text)
    with pytest.raises(UserError, match="not a description of .*" + message):
        load_config(path)
    path.unlink()
    with pytest.raises(UserError, match="no config at .*blood.json"):
        load_config(own)


REACHING = {
    *("eval", "exec", "compile", "open", "__import__"),
    *("import_module", "get_object_from_string", "from_pretrained", "fromfile"),
    *("load", "load_checkpoint", "load_url", "download", "urlopen", "system", "Popen"),
}


def calls(module):
    """Names in REACHING that a module calls; `model.eval()` is another thing."""
    for node in ast.walk(ast.parse(inspect.getsource(sys.modules[module]))):
        function = getattr(node, "func", None)
        if isinstance(function, ast.Name):
            name = function.id
        else:
            name = getattr(function, "attr", None)
            name = None if name in ("eval", "compile", "open") else name
        if name in REACHING:
            yield module, name


def test_what_is_allowed_reaches_nowhere():
    """By its source: a version of MMDetection that is not known yet may bring more."""
    modules = set()
    for registry in (MODELS, MODELS.parent, TASK_UTILS, TASK_UTILS.parent):
        for name, component in registry.module_dict.items():
            with suppress(ValueError):
                check_description({"model": {"type": name}, "pipeline": []})
                modules |= {cls.__module__ for cls in component.__mro__}
    modules = {name for name in modules if name.startswith(("mm", "ghostdet"))}
    assert "mmdet.models.dense_heads.retina_head" in modules
    assert {call for module in modules for call in calls(module)} == {
        # Of `pretrained` and `init_cfg`, which are refused.
        ("mmcv.cnn.vgg", "load_checkpoint"),
        ("mmdet.models.backbones.detectors_resnet", "load_checkpoint"),
        ("mmdet.models.backbones.pvt", "load_checkpoint"),
        ("mmdet.models.backbones.swin", "load_checkpoint"),
    }
    tracking = "mmdet.models.task_modules.tracking.camera_motion_compensation"
    assert (tracking, "eval") in calls(tracking)
