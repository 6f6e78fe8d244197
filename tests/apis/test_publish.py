import ast
import inspect
import json
import os
import shutil
import sys
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from pathlib import Path

import mmcv.ops
import pytest
import safetensors.torch
import torch
from mmdet.models.task_modules.tracking import CameraMotionCompensation
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.hooks import EMAHook
from mmengine.registry import DefaultScope
from safetensors import safe_open
from timm.models.ghostnet import _create_ghostnet

from ghostdet import apis
from ghostdet.apis import infer, load_detector, load_model, train
from ghostdet.apis.model import build_model
from ghostdet.apis.publish import publish, published_config
from ghostdet.config import load_config
from ghostdet.datasets import Digits
from ghostdet.errors import ConfigError, UserError
from ghostdet.export.export_detector import export
from ghostdet.models import GhostNet
from ghostdet.weights import load_pretrained, pretrained, read_weights
from ghostdet.weights.published import check_config, encoded

CONFIGS = Path(__file__).parents[2] / "configs"
CONFIG = CONFIGS / "bccd/retinanet_ghostnet_small_bccd.py"
DIGITS = CONFIGS / "classification/ghostnet_digits.py"
OPTIONS = {"model.test_cfg.score_thr": 0.0, "test_dataloader.dataset.indices": 4}


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    """Weights of the short run, which nobody writes to."""
    out = tmp_path_factory.mktemp("published") / "blood.safetensors"
    publish(str(trained / "iter_4.pth"), str(out), str(CONFIG), OPTIONS)
    return out


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
    path.write_text(json.dumps(content))
    return path


def test_what_is_written(published, trained):
    content = json.loads(published.with_suffix(".json").read_text())
    checkpoint = torch.load(trained / "iter_4.pth", weights_only=False)
    assert content["classes"] == ["RBC", "WBC", "Platelets"]
    assert content["iter"] == 4 and content["weights"] == "as trained"
    assert content["seed"] == checkpoint["meta"]["seed"]
    assert content["config"].keys() == {"model", "test_dataloader", "test_evaluator"}
    weights = safetensors.torch.load_file(published)
    assert weights.keys() == checkpoint["state_dict"].keys()
    assert all(torch.equal(v, checkpoint["state_dict"][k]) for k, v in weights.items())
    assert {path.name for path in published.parent.iterdir()} == {
        "blood.safetensors",
        "blood.json",
    }


def test_evaluates_and_detects_as_the_checkpoint(
    published, trained, tiny, cells, tmp_path, new_run
):
    expected = apis.test(tiny(), trained / "iter_4.pth")
    new_run()
    description = published.with_suffix(".json")
    cfg = load_config(description, tmp_path / "run", cells)
    assert apis.test(cfg, published, show_dir=str(tmp_path / "shown")) == expected
    assert len(list((tmp_path / "shown").rglob("*.*g"))) == 4
    image = min((cells / "images").iterdir())
    cfg = load_config(CONFIG, cfg_options=OPTIONS)
    one = infer(image, cfg, trained / "iter_4.pth", tmp_path / "a")
    two = infer(image, published, published, tmp_path / "b")  # the .json beside it
    boxes = [json.loads(path.read_text())[:5] for path in (one, two)]
    assert [b["bbox"] for b in boxes[0]] == [b["bbox"] for b in boxes[1]]


@pytest.mark.parametrize(
    "config",
    [path for path in sorted(CONFIGS.rglob("*.py")) if "_base_" not in str(path)],
    ids=lambda path: path.stem,
)
def test_every_config_can_be_published(config, own, tmp_path):
    """And its model and pipeline are the same, to the type of each sequence."""
    cfg = load_config(config)
    if "model" not in cfg:
        pytest.skip("a part of others")
    for part in (cfg.model, cfg.model.backbone, cfg.model.get("neck") or {}):
        part.pop("init_cfg", None)
    path = change(own, lambda c: c.update(config=encoded(published_config(cfg))))
    read = load_config(path)
    assert repr(read.model) == repr(cfg.model)
    theirs, ours = read.test_dataloader.dataset, cfg.test_dataloader.dataset
    assert repr(theirs.pipeline) == repr(ours.pipeline)
    paths = {"data_root", "ann_file", "data_prefix", "root"} & ours.keys()
    assert all(theirs[key] == ours[key] for key in paths)
    assert theirs.type == "CocoDataset" or read.get("data_root") == cfg.get("data_root")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A checkpoint of the digits' config, as a run writes it, and what is published."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    model = build_model(load_config(DIGITS))
    meta = dict(epoch=3, dataset_meta=dict(classes=Digits.classes), cfg="")
    content = {"state_dict": model.state_dict(), "meta": meta}
    torch.save({**content, "ema_state_dict": {}}, folder / "best.pth")
    out = publish(str(folder / "best.pth"), str(folder / "a.safetensors"), str(DIGITS))
    return folder / "best.pth", out


@pytest.fixture
def own_classifier(classifier, tmp_path):
    for suffix in (".safetensors", ".json"):
        shutil.copy(classifier[1].with_suffix(suffix), tmp_path)
    return tmp_path / classifier[1].name


def test_classifier_evaluates_as_the_checkpoint(classifier, tmp_path, new_run):
    checkpoint, published = classifier
    content = json.loads(published.with_suffix(".json").read_text())
    assert content["classes"] == list("0123456789")
    assert content["weights"] == "EMA" and content["epoch"] == 3
    metrics = []
    for config, weights in ((DIGITS, checkpoint), (published, published)):
        new_run()
        cfg = load_config(config, tmp_path / "run")
        metrics.append(apis.test(cfg, weights))
    assert metrics[0] == metrics[1] and 0 < metrics[0]["accuracy/top1"] < 100
    Digits(train=False).images[0].save(tmp_path / "a.png")
    files = [
        infer(tmp_path / "a.png", *pair, tmp_path / name)
        for name, pair in (("a", (DIGITS, checkpoint)), ("b", (published, published)))
    ]
    assert files[0].read_text() == files[1].read_text()
    # With a config of one's own, the classes are those of the description.
    found = infer(tmp_path / "a.png", DIGITS, published, tmp_path / "c")
    assert found.read_text() == files[0].read_text()
    with safe_open(published, "pt") as file:
        assert len(file.metadata()) == 1  # the order of more is chance


def test_weights_of_a_published_classifier(classifier, monkeypatch):
    """In a detector's backbone as they are, SE gate and all, and in timm's network."""
    log = []
    monkeypatch.setattr(pretrained, "print_log", lambda text, **_: log.append(text))
    checkpoint, published = classifier
    backbone = GhostNet(0.5, (1, 2, 3))
    load_pretrained(backbone, published)
    assert len(log) == 1 and "(classifier, sha256" in log[0]  # and no warning
    expected = torch.load(checkpoint)["state_dict"]
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, expected[f"backbone.{name}"]), name
    with pytest.raises(ConfigError, match="has the SE gate hard_sigmoid"):
        load_pretrained(GhostNet(0.5, se_gate="clip"), published)
    theirs = _create_ghostnet("ghostnet_100", width=0.5, num_classes=10)
    theirs.load_state_dict(read_weights(published).state_dict, strict=True)


def test_classifier_on_other_classes(classifier, own_classifier, tmp_path, new_run):
    change(own_classifier, lambda content: content["classes"].reverse())
    message = r"Digits \(test\) has the classes 0, 1.*{} was trained on 9, 8"
    for config in (own_classifier, DIGITS):
        new_run()
        with pytest.raises(UserError, match=message.format("a.safetensors")):
            apis.test(load_config(config, tmp_path / "run"), own_classifier)

    checkpoint = torch.load(classifier[0])
    checkpoint["meta"]["dataset_meta"] = dict(classes=Digits.classes[::-1])
    torch.save(checkpoint, tmp_path / "b.pth")
    new_run()
    with pytest.raises(UserError, match=message.format("b.pth")):
        apis.test(load_config(DIGITS, tmp_path / "run"), tmp_path / "b.pth")


def test_classifier_of_unknown_classes(classifier, tmp_path):
    weights = torch.load(classifier[0])["state_dict"]
    torch.save(weights, tmp_path / "b.pth")
    with pytest.raises(UserError, match="b.pth names no classes; publish a checkp"):
        publish(str(tmp_path / "b.pth"), str(tmp_path / "b.safetensors"), str(DIGITS))


def test_only_for_detectors(classifier, tmp_path):
    """What cannot be done with a classifier is said in one line."""
    checkpoint, published = classifier
    (tmp_path / "a.png").touch()
    cfg = load_config(DIGITS, tmp_path / "run")
    detect = partial(infer, tmp_path / "a.png", cfg, out=tmp_path / "b")
    for run in (
        lambda: load_detector(published, published),
        lambda: detect(tmp_path / "a.onnx"),
        lambda: detect(checkpoint, score_thr=0.3),
        lambda: export(cfg, checkpoint, out=tmp_path / "a.onnx"),
        lambda: apis.test(cfg, checkpoint, show_dir=str(tmp_path / "c")),
        lambda: apis.test(cfg, tmp_path / "a.onnx"),
    ):
        with pytest.raises(
            UserError, match="is of a classifier, and .* is for detectors"
        ):
            run()


def test_average_is_what_is_published(tiny, tmp_path):
    cfg = tiny({"train_cfg.max_iters": 2, "train_cfg.val_interval": 9})
    cfg.custom_hooks.append(dict(type="EMAHook", momentum=0.5))
    runner = train(cfg)
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    average = hook.ema_model.module.state_dict()
    out = tmp_path / "a.safetensors"
    publish(str(tmp_path / "run/iter_2.pth"), str(out), str(CONFIG))
    assert json.loads(out.with_suffix(".json").read_text())["weights"] == "EMA"
    weights = safetensors.torch.load_file(out)
    assert all(torch.equal(weights[name], value) for name, value in average.items())
    name = "bbox_head.retina_cls.weight"
    assert not torch.equal(weights[name], runner.model.state_dict()[name])


def test_last_validation(tiny, trained, tmp_path):
    content = torch.load(trained / "iter_4.pth", weights_only=False)
    scalars = content["message_hub"]["log_scalars"]
    loss = scalars["train/loss"]
    scalars.update({"val/coco/bbox_mAP": loss, "val/time": loss})
    torch.save(content, tmp_path / "a.pth")
    publish(
        str(tmp_path / "a.pth"), str(tmp_path / "a.safetensors"), str(CONFIG), OPTIONS
    )
    metrics = json.loads((tmp_path / "a.json").read_text())["last_validation"]
    assert metrics == {"coco/bbox_mAP": pytest.approx(loss.current())}


def other_weights(own):
    weights = safetensors.torch.load_file(own)
    weights["backbone.bn1.bias"] += 1
    safetensors.torch.save_file(weights, own)


def other_description(own):
    change(own, lambda content: content.update(sha256="0" * 64))


@pytest.mark.parametrize("break_", [other_weights, other_description])
def test_pair_that_does_not_match(own, tiny, cells, tmp_path, new_run, break_):
    break_(own)
    with pytest.raises(UserError, match="are not the weights that .*blood.json desc"):
        load_detector(own.with_suffix(".json"), own)
    new_run()
    cfg = load_config(own, tmp_path / "run", cells)
    with pytest.raises(UserError, match="are not the weights that"):
        apis.test(cfg, own)


def test_nothing_is_written_where_weights_do_not_fit(own, trained, tmp_path):
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    options = {"model.bbox_head.num_classes": 4}
    with pytest.raises(UserError, match="do not fit this model"):
        publish(str(trained / "iter_4.pth"), str(own), str(CONFIG), options)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(UserError, match="does not end in .safetensors"):
        publish(str(trained / "iter_4.pth"), str(tmp_path / "a.pth"), str(CONFIG))
    own.with_suffix(".json").write_text('{"format_version": 1}')  # of an export
    with pytest.raises(UserError, match="is there and was not published"):
        publish(str(trained / "iter_4.pth"), str(own), str(CONFIG))


def test_stopped_between_the_two_files(own, trained, monkeypatch):
    """There is no pair of old and new that goes unnoticed."""
    rename = os.replace

    def stopping(source, target):
        if Path(target).suffix == ".json":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", stopping)
    with pytest.raises(UserError, match="No space left"):
        publish(str(trained / "iter_2.pth"), str(own), str(CONFIG), OPTIONS)
    monkeypatch.undo()
    with pytest.raises(UserError, match="are not the weights that"):
        load_detector(own, own)
    publish(str(trained / "iter_2.pth"), str(own), str(CONFIG), OPTIONS)
    load_detector(own, own)
    assert len(list(own.parent.iterdir())) == 2


def test_weights_of_somebody_else(trained, tmp_path):
    out = tmp_path / "a.safetensors"
    out.write_bytes(b"theirs")
    with pytest.raises(UserError, match="a.safetensors is there and was not publ"):
        publish(str(trained / "iter_4.pth"), str(out), str(CONFIG))
    assert out.read_bytes() == b"theirs"
    out.unlink()
    out.mkdir()
    with pytest.raises(UserError, match="a.safetensors is there and was not publ"):
        publish(str(trained / "iter_4.pth"), str(out), str(CONFIG))


def test_classes_of_the_config(trained, tmp_path, monkeypatch):
    """Of weights alone, in a process that has set up nothing."""
    weights = torch.load(trained / "iter_4.pth", weights_only=False)["state_dict"]
    torch.save({"meta": {}, "state_dict": weights}, tmp_path / "a.pth")
    monkeypatch.setattr(DefaultScope, "_instance_dict", OrderedDict())
    out = publish(str(tmp_path / "a.pth"), str(tmp_path / "a.safetensors"), str(CONFIG))
    content = json.loads(out.with_suffix(".json").read_text())
    assert content["classes"] == ["RBC", "WBC", "Platelets"]


def test_fits_before_it_is_looked_at(trained, tmp_path, monkeypatch):
    """A name more, of which only the shape is large."""
    weights = torch.load(trained / "iter_4.pth", weights_only=False)["state_dict"]
    weights["extra"] = torch.zeros(1).expand(1_000_000)
    torch.save({"state_dict": weights}, tmp_path / "a.pth")
    monkeypatch.setattr(torch, "isfinite", None)
    with pytest.raises(UserError, match="do not fit this model"):
        publish(str(tmp_path / "a.pth"), str(tmp_path / "a.safetensors"), str(CONFIG))


def test_the_runner_does_not_write_over_it(own):
    with pytest.raises(UserError, match="holds .*blood.json itself"):
        load_config(own.with_suffix(".json"), own.parent)


CODE = "__import__('pathlib').Path('marker').touch()"
HOSTILE = [  # place in the config, value, message
    ("model.type", "pathlib.Path", "'pathlib.Path', which is in no registry"),
    ("model.type", "evil.RetinaNet", "which is in no registry"),
    ("model.type", "mmdet.models.RetinaNet", "which is in no registry"),
    ("model.type", ["RetinaNet"], "expected the name"),
    ("model.test_cfg.nms.type", CODE, "which is in no registry"),
    ("model.test_cfg.nms.iou_threshold", CODE, "expected a word"),
    ("model._scope_", "evil", "is no name of an argument"),
    ("model.backbone.init_cfg", {"type": "Pretrained"}, "would load other weights"),
    ("model.backbone.pretrained", "https://a.b/c.pth", "would load other weights"),
    ("model.teacher_config", "evil.py", "expected a word"),
    ("model.type", "KnowledgeDistillationSingleStageDetector", "runs the config of"),
    ("model.type", "Detectron2Wrapper", "hands its arguments"),
    ("model.type", "GroundingDINO", "downloads a language model"),
    ("model.bbox_head.type", "CameraMotionCompensation", "not a part of a detector"),
    ("model.backbone.type", "ExportedDetector", "not a part of a detector"),
    ("model.neck.type", "BertModel", "not a part of a detector"),
    ("model", "a.py", "expected a dictionary"),
    ("custom_imports", {"imports": ["evil"]}, "is none of data_root, model, test_d"),
    ("custom_hooks", [{"type": "RuntimeInfoHook"}], "is none of"),
    ("_base_", "evil.py", "is none of"),
    ("launcher", "pytorch", "is none of"),
    ("test_dataloader.collate_fn", {"type": "pathlib.Path"}, "is none of"),
    ("test_dataloader.worker_init_fn", {"type": "os.system"}, "is none of"),
    ("test_dataloader.num_workers", 10**6, "expected up to 64"),
    ("test_dataloader.dataset.type", "RepeatDataset", "expected CocoDataset"),
    ("test_dataloader.dataset.ann_file", "https://a.b/c.json", "expected the path"),
    ("test_dataloader.dataset.data_prefix", {"img": "s3://a/"}, "expected the path"),
    ("test_dataloader.dataset.backend_args", {"backend": "petrel"}, "is none of"),
    ("test_dataloader.dataset.pipeline", [{"type": "Lambda"}], "expected LoadImageFro"),
    ("test_dataloader.dataset.pipeline.0.backend_args", {}, "is none of"),
    ("test_evaluator.type", "DumpDetResults", "expected CocoMetric or Fast"),
    ("test_evaluator.outfile_prefix", "/tmp/evil", "is none of"),
    ("test_evaluator", "evil", "expected a dictionary"),
]


def put(place, value):
    def edit(content):
        *above, last = place.split(".")
        node = content["config"]
        for key in above:
            node = node[int(key) if isinstance(node, list) else key]
        node[last] = value

    return edit


@pytest.mark.parametrize("place, value, message", HOSTILE)
def test_hostile_config(own, tmp_path, monkeypatch, place, value, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(CODE)
    path = change(own, put(place, value))
    for load in (load_config, lambda path: load_detector(path, own)):
        with pytest.raises(UserError, match=message) as caught:
            load(path)
        assert place in caught.value.text
    assert not (tmp_path / "marker").exists()


V2 = "torchvision.transforms.v2."
HOSTILE_CLASSIFIER = [
    ("model.type", "ghostdet.models.ImageClassifier", "which is in no registry"),
    ("model.init_cfg", {"type": "GhostNetPretrained"}, "would load other weights"),
    ("model.head.type", "pathlib.Path", "which is in no registry"),
    ("data_root", "https://a.b/", "expected the path"),
    ("test_dataloader.batch_size", 2000, "expected up to 1024"),
    ("test_dataloader.collate_fn", {"type": "default_collate"}, "is none of"),
    ("test_dataloader.dataset.type", "torchvision.datasets.FakeData", "or ImageFolder"),
    ("test_dataloader.dataset.type", "FashionMNIST", "or CIFAR10 or Digits"),
    ("test_dataloader.dataset.root", "https://a.b/", "expected the path"),
    ("test_dataloader.dataset.download", True, "is none of"),
    ("test_dataloader.dataset.loader", "os.system", "is none of"),
    ("test_dataloader.dataset.ann_file", "a.json", "is none of"),
    ("test_dataloader.dataset.pipeline.0.type", "Resize", "Resize', expected torchv"),
    ("test_dataloader.dataset.pipeline.0.type", V2 + "Lambda", "or torchvision.trans"),
    ("test_dataloader.dataset.pipeline.0.type", V2 + "functional.resize", "expected"),
    ("test_dataloader.dataset.pipeline.0.type", "os.system", "expected torchvision."),
    ("test_dataloader.dataset.pipeline.0.lambd", CODE, "is none of"),
    ("test_dataloader.dataset.pipeline.0.size", CODE, "expected a word or a number"),
    ("test_evaluator.type", "CocoMetric", "expected Accuracy"),
    ("test_evaluator.ann_file", "a.json", "is none of"),
    ("test_evaluator.topk", CODE, "expected a word or a number"),
]


@pytest.mark.parametrize("place, value, message", HOSTILE_CLASSIFIER)
def test_hostile_config_of_a_classifier(own_classifier, place, value, message):
    path = change(own_classifier, put(place, value))
    for load in (load_config, lambda path: load_model(path, own_classifier)):
        with pytest.raises(UserError, match=message) as caught:
            load(path)
        assert place in caught.value.text


def test_they_would_run(tmp_path, monkeypatch):
    """Why: a type, an argument of batched NMS, one of a component of tracking."""
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / "marker"
    (tmp_path / "evil.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    boxes, scores = torch.ones(1, 4), torch.ones(1)

    def of_type():
        MODELS.build(dict(type="evil.RetinaNet"))

    def of_nms():
        mmcv.ops.batched_nms(boxes, scores, scores, dict(type=CODE))

    def of_warp_mode():
        CameraMotionCompensation(warp_mode=CODE)

    for run in (of_type, of_nms, of_warp_mode):
        with pytest.raises(Exception):  # noqa: B017, after it has run
            run()
            raise Exception
        assert marker.exists(), run
        marker.unlink()


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("9" * 5000, "it is not JSON"),
        ("[]", "is no config that tools/weights.py publish wrote"),
        ('{"model": {}}', "is no config that tools/weights.py publish wrote"),
        ('{"published": 2}', "is of format 2, and this version"),
        ('{"published": 1, "classes": "a.txt"}', "classes is no list of names"),
        ('{"published": 1, "classes": []}', "sha256 is no checksum"),
    ],
)
def test_no_description(own, text, message):
    path = own.with_suffix(".json")
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(path)
    path.unlink()
    with pytest.raises(UserError, match="no config at .*blood.json"):
        load_config(own)


def test_deep_config(own):
    node = []
    for _ in range(100):
        node = [node]
    path = change(own, lambda content: content["config"]["model"].update(a=node))
    with pytest.raises(UserError, match="nested too deeply"):
        load_config(path)


PLAIN = dict(
    model=dict(type="RetinaNet"),
    test_dataloader=dict(dataset=dict(type="CocoDataset", pipeline=[])),
    test_evaluator=dict(type="CocoMetric"),
)
REACHING = {
    *("eval", "exec", "compile", "open", "__import__"),
    *("import_module", "get_object_from_string", "from_pretrained", "fromfile"),
    *("load", "load_checkpoint", "load_url", "download", "urlopen", "system", "Popen"),
}


def calls(module):
    """What a module calls of REACHING; of methods, `model.eval()` is another thing."""
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
            with suppress(UserError):
                check_config({**PLAIN, "model": {"type": name}}, "a.json")
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
    assert (
        "mmdet.models.task_modules.tracking.camera_motion_compensation",
        "eval",
    ) in (calls("mmdet.models.task_modules.tracking.camera_motion_compensation"))
