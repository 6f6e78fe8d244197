import json
import runpy
import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import mmdet
import pytest
import torch
from mmengine.evaluator import BaseMetric

from ghostdet import CONFIGS
from ghostdet.checks import check_run
from ghostdet.checks.findings import findings_table
from ghostdet.checks.rehearsal import RehearsalHook
from ghostdet.config import load_config
from ghostdet.datasets import LoadReadableImage


def not_passed(findings) -> dict:
    """The findings that did not pass, the first of each check."""
    return {f.check: f for f in reversed(findings) if f.status != "pass"}


# Faults: each damages a copy of the data, or returns options of the config.


def edit(part, change):
    """Change the JSON of a part in place."""

    def damage(root):
        path = root / f"annotations/{part}.json"
        coco = json.loads(path.read_text())
        change(coco)
        path.write_text(json.dumps(coco))

    return damage


def image_of(root, part, index=0):
    images = json.loads((root / f"annotations/{part}.json").read_text())["images"]
    return root / "images" / images[index]["file_name"]


def cut(part):
    def damage(root):
        path = image_of(root, part)
        path.write_bytes(path.read_bytes()[:5000])

    return damage


def shrink(part):
    def damage(root):
        path = str(image_of(root, part))
        cv2.imwrite(path, cv2.resize(cv2.imread(path), (320, 240)))

    return damage


def evaluate_trained(root):
    """Put an image of train into test as well, under another id."""
    coco = json.loads((root / "annotations/train.json").read_text())
    new = {**coco["images"][0], "id": 9999}
    edit("test", lambda test: test["images"].insert(0, new))(root)


def boxes(form):
    def change(coco):
        for annotation in coco["annotations"]:
            annotation["bbox"] = form(*annotation["bbox"])

    return change


def crowded(coco):
    """More objects of a class in an image than AP counts."""
    first = coco["annotations"][0]
    coco["annotations"] += [
        {**first, "id": 900 + i, "bbox": [i, 0, 30, 30]} for i in range(120)
    ]


def absolute(coco):
    for image in coco["images"]:
        image["file_name"] = f"C:\\photos\\{image['file_name']}"


def no_objects(root):
    """Where images without objects are kept."""
    for part in ("train", "val"):
        edit(part, lambda coco: coco.update(annotations=[]))(root)
    return {f"train_dataloader.dataset.datasets.{i}.filter_cfg": None for i in (0, 1)}


def other_detector(root):
    torch.save({"state_dict": {"a.weight": torch.zeros(1)}}, root / "d.pth")
    return {"load_from": str(root / "d.pth")}


def pretrained(checkpoint):
    return {
        "model.backbone.init_cfg": {
            "type": "GhostNetPretrained",
            "checkpoint": checkpoint,
        }
    }


def first(name, /, **keys):
    return lambda coco: coco[name][0].update(keys)


def schedule(**keys):
    """A schedule of 200 iterations."""
    keys["by_epoch"] = False
    return lambda root: {"param_scheduler": [keys], "train_cfg.max_iters": 200}


def with_masks(root):
    def add(coco):
        for a in coco["annotations"]:
            x, y, w, h = a["bbox"]
            a["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]

    edit("test", add)(root)
    return {"val_evaluator.metric": ["bbox", "segm"]}


class WholeMetric(BaseMetric):
    """A metric that needs all images."""

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        raise ValueError(f"{len(results)} of 6 images")


FAULTS = {
    "annotation of no image": (
        edit("train", first("annotations", image_id=4321)),
        ("train annotations", "warn", "left out: 1 of 58 annotations, such as"),
    ),
    "class that is not learnt": (
        edit("train", lambda c: c["categories"].append(dict(id=9, name="Other"))),
        ("train classes", "warn", "metainfo=dict(classes=...)"),
    ),
    "box over the border": (
        edit("train", first("annotations", bbox=[100, 60, 90, 50], area=4500)),
        ("train boxes", "warn", "[100.0, 60.0, 90.0, 50.0] in 160x120"),
    ),
    "empty box": (
        edit("train", first("annotations", bbox=[60, 40, 0, 5])),
        ("train annotations", "warn", "is under 1 px"),
    ),
    "boxes as corners": (
        edit("train", boxes(lambda x, y, w, h: [x, y, x + w, y + h])),
        ("train boxes", "fail", "inside if bbox is [x1, y1, x2, y2]"),
    ),
    "boxes by their centers": (
        edit("train", boxes(lambda x, y, w, h: [x + w / 2, y + h / 2, w, h])),
        ("train boxes", "fail", "inside if bbox is [center x, center y, width, he"),
    ),
    "missing image in evaluation": (
        lambda root: image_of(root, "test", 1).unlink(),
        ("val+test images", "fail", "Restore them"),
    ),
    "missing image in training": (
        lambda root: image_of(root, "train", 5).unlink(),
        ("train images", "warn", "Restore them"),
    ),
    "broken image": (cut("val"), ("train images", "warn", "Restore them")),
    "image trained on and evaluated": (
        evaluate_trained,
        ("overlap", "warn", "Remove them from"),
    ),
    "evaluation of what is trained on": (
        lambda root: {
            "val_dataloader.dataset.ann_file": str(root / "annotations/train.json"),
            "val_evaluator.ann_file": str(root / "annotations/train.json"),
        },
        ("overlap", "warn", "of 12 images of val are in the training set"),
    ),
    "evaluator of another file": (
        lambda root: {"val_evaluator.ann_file": str(root / "annotations/val.json")},
        ("val evaluator", "fail", "Let val_evaluator.ann_file be"),
    ),
    "no objects": (no_objects, ("train boxes", "fail", "no object to learn from")),
    "more than 100 objects": (
        edit("test", crowded),
        ("val evaluator", "warn", "AP counts 100 detections of a class"),
    ),
    "images listed twice": (
        edit("train", lambda c: c["images"].append({**c["images"][0], "id": 77})),
        ("train annotations", "warn", "1 files are listed as several images, such as"),
    ),
    "objects to ignore in evaluation": (
        edit("test", first("annotations", ignore=1)),
        ("val+test annotations", "warn", "if it has ignore=1 (COCO still counts"),
        ("val evaluator", "warn", "correct what its checks say"),
    ),
    "best checkpoint by no metric": (
        lambda root: {"default_hooks.checkpoint.save_best": "coco/bbox_mAP_5O"},
        ("val metrics", "fail", "'coco/bbox_mAP_5O'"),
        ("val metrics", "fail", "The evaluator gives coco/bbox_mAP, coco/bbox_mAP_50"),
    ),
    "loader that leaves out images": (
        lambda root: {"val_dataloader.drop_last": True, "val_dataloader.batch_size": 4},
        ("val evaluator", "fail", "the data loader gives 4 of 6 images; use DefaultS"),
    ),
    "masks of a detector without": (
        with_masks,
        ("val metrics", "fail", "metric is 'segm', and no masks are predicted"),
    ),
    "best checkpoint of objects that are not there": (
        lambda root: {"default_hooks.checkpoint.save_best": "coco/bbox_mAP_l"},
        ("val metrics", "warn", "highest coco/bbox_mAP_l, but the ground t"),
    ),
    "best checkpoint that is the worst": (
        lambda root: {
            "default_hooks.checkpoint.save_best": "coco/bbox_mAP",
            "default_hooks.checkpoint.rule": "less",
        },
        ("val metrics", "warn", "lowest coco/bbox_mAP, but the ground truth has 1"),
    ),
    "pipeline of later": (
        lambda root: {
            "custom_hooks": [
                dict(
                    type="PipelineSwitchHook",
                    switch_epoch=1,
                    switch_pipeline=[dict(type="NoSuch")],
                )
            ]
        },
        ("train step", "fail", "NoSuch is not in the"),
    ),
    "schedule that ends too early": (
        schedule(type="OneCycleLR", eta_max=0.006, total_steps=50),
        ("train step", "fail", "param_scheduler fails at iteration 51 of 200: Tried"),
    ),
    "schedule that ends too late": (
        schedule(type="OneCycleLR", eta_max=0.006, total_steps=400),
        ("learning rate", "warn", "of 200; lr is"),
    ),
    "early stopping by no metric": (
        lambda root: {
            "custom_hooks": [
                dict(type="EarlyStoppingHook", monitor="mAP", strict=False)
            ]
        },
        ("val metrics", "warn", "do not include `monitor` (mAP)"),
    ),
    "metric that fails": (
        lambda root: {"val_evaluator": [dict(type=WholeMetric)]},
        ("val metrics", "warn", "WholeMetric fails on a batch: 1 of 6 images"),
    ),
    "milestones of epochs": (
        schedule(type="MultiStepLR", milestones=[8, 11]),
        ("learning rate", "warn", "0.0015 at iteration 1; 1.5e-05 at iteration 12"),
    ),
    "rate that is not reached": (
        schedule(type="ConstantLR", factor=0.1, end=9999),
        ("learning rate", "warn", "0.00015 at iteration 1; 0.00015 at iteration 200"),
    ),
    "no checkpoint": (
        lambda root: {
            "default_hooks.checkpoint.save_begin": 50,
            "default_hooks.checkpoint.save_last": False,
        },
        ("disk", "warn", "up to 0 checkpoints"),
    ),
    "no rate": (
        lambda root: {"optim_wrapper.optimizer.lr": 0.0},
        ("learning rate", "fail", "nothing learns"),
    ),
    "evaluation without its loop": (
        lambda root: {"val_dataloader": None},
        ("config", "fail", "should be either all None or not None, but got"),
    ),
    "absolute names": (
        edit("test", absolute),
        ("val+test images", "fail", "Correct file_name: relative to data_prefix"),
    ),
    "no file of weights": (
        lambda root: pretrained(str(root / "nowhere.pth")),
        ("pretrained weights", "fail", "give a path, hf-hub:OWNER/NAME"),
    ),
    "weights that cannot be reached": (
        lambda root: pretrained("http://127.0.0.1:9/ghostnet.pth"),
        ("pretrained weights", "fail", "by other means"),
    ),
    "checkpoint of another detector": (
        other_detector,
        ("pretrained weights", "fail", "use the config that the run wrote"),
    ),
    "work directory": (
        lambda root: (root.parent / "run").touch(),
        ("work dir", "fail", "--work-dir"),
    ),
}


@pytest.fixture
def tiny(tiny):
    """The small config, evaluated on all images, without its schedule."""

    def load(options=None, *args, **kwargs):
        whole = {f"{part}_dataloader.dataset.indices": None for part in ("val", "test")}
        options = {"param_scheduler": [], **whole, **(options or {})}
        return tiny(options, *args, **kwargs)

    return load


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault(tiny, own_cells, fault):
    plant, *expected = FAULTS[fault]
    planted = plant(own_cells)
    cfg = tiny(planted if isinstance(planted, dict) else None, own_cells)
    found = not_passed(check_run(cfg))
    assert set(found) == {row[0] for row in expected}, findings_table([*found.values()])
    for name, status, said in expected:
        assert found[name].status == status
        assert said in f"{found[name].text} {found[name].remedy}"


def test_other_classes_in_evaluation(tiny):
    classes = {
        f"{part}_dataloader.dataset.metainfo.classes": ("RBC", "WBC")
        for part in ("val", "test")
    }
    found = not_passed(check_run(tiny(classes), quick=True))
    assert found["num_classes"].status == "fail"
    assert "Let all have the same classes" in found["num_classes"].remedy
    assert "different classes: Platelets" in found["num_classes"].text
    assert (
        "Platelets, which are not in the config's classes, become"
        in found["val+test classes"].text
    )


def test_faults_are_found_together(tiny, own_cells):
    (own_cells / "annotations/train.json").unlink()
    edit("test", crowded)(own_cells)
    shrink("val")(own_cells)
    found = not_passed(check_run(tiny({"load_from": "nowhere.pth"}, own_cells)))
    assert {name: f.status for name, f in found.items()} == {
        "train annotations": "fail",
        "train images": "fail",
        "val evaluator": "warn",
        "pretrained weights": "fail",
    }


def test_full_disk(tiny, trained, monkeypatch):
    size = (trained / "iter_4.pth").stat().st_size
    cfg = tiny({"default_hooks.checkpoint.max_keep_ckpts": 1})
    usage = shutil.disk_usage("/")

    def with_free(free):
        free = usage._replace(free=int(free))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
        return {f.check: f for f in check_run(cfg, quick=True)}

    found = with_free(2.2 * size)["disk"]
    assert found.status == "pass" and "up to 2 checkpoints" in found.text
    found = with_free(1.6 * size)["disk"]
    assert found.status == "warn" and "max_keep_ckpts=" in found.remedy
    assert with_free(0.8 * size)["disk"].status == "fail"
    # A run that is resumed has written one already.
    Path(cfg.work_dir).mkdir()
    shutil.copy(trained / "iter_4.pth", f"{cfg.work_dir}/iter_1.pth")
    assert with_free(1.1 * size)["disk"].status == "pass"


@pytest.mark.parametrize(
    "name", ["bccd/retinanet_ghostnet_small_bccd", "light/light_s_bccd"]
)
def test_clean_bccd(cells, tmp_path, name):
    cfg = load_config(f"{CONFIGS}/{name}.py", tmp_path, cells)
    before = cfg.to_dict()
    findings = check_run(cfg)
    assert cfg.to_dict() == before  # it is left alone
    assert not not_passed(findings), findings_table(findings)
    assert {f.check for f in findings} >= {
        "versions", "config", "train annotations", "val+test classes",
        "train boxes", "train images", "val evaluator", "overlap", "num_classes",
        "train step", "val step", "pretrained weights", "disk", "learning rate",
    }  # fmt: skip


@pytest.mark.parametrize("detector", ["retinanet", "faster_rcnn"])
def test_clean_coco(coco, tmp_path, detector):
    options = {
        "model.backbone.init_cfg": None,  # on the Hub
        "param_scheduler.0.end": 50,  # of 72 iterations
        "train_dataloader.dataset.pipeline.2.scale": (160, 120),
        "val_dataloader.dataset.pipeline.1.scale": (160, 120),
    }
    config = f"{CONFIGS}/{detector}_ghostnet_fpn.py"
    findings = check_run(load_config(config, tmp_path, coco, options))
    assert not not_passed(findings), findings_table(findings)
    text = {f.check: f.text for f in findings}
    assert "58 objects in 12 images, 1 of them empty" in text["train annotations"]
    assert (
        "instances_train2017.json: 11 images, read" in text["train images"]
    )  # empty ones are left out


@pytest.mark.data
def test_clean_demo(trees_root, tmp_path):
    config = f"{CONFIGS}/demo/light_s_trees.py"
    findings = check_run(load_config(config, tmp_path / "run", trees_root), full=True)
    assert not not_passed(findings), findings_table(findings)


@pytest.mark.parametrize(
    "name, known",
    [
        ("pvt/retinanet_pvt-t_fpn_1x_coco", "PyramidVisionTransformer"),
        ("ssd/ssd300_coco", "SingleStageDetector on SSDVGG"),
        ("fast_rcnn/fast-rcnn_r50_fpn_1x_coco", "FastRCNN on ResNet"),
        ("detr/detr_r50_8xb2-150e_coco", "DETR on ResNet"),
    ],
)
def test_foreign_config(tmp_path, name, known):
    config = Path(mmdet.__file__).parent / f".mim/configs/{name}.py"
    if not config.is_file():
        pytest.skip("needs MMDetection's configs in its package")
    findings = check_run(load_config(config, tmp_path), quick=True)
    for finding in findings:
        if finding.status == "fail":
            assert "no such annotation file" in finding.text
    shown = [f"{f.check} {f.status.upper()} {f.text}" for f in findings]
    assert any(known in text for text in shown), shown


def test_epochs(tiny):
    cfg = tiny()
    cfg.train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
    findings = check_run(cfg, quick=True)
    assert not not_passed(findings), findings_table(findings)


def test_what_is_tested_later(tiny):
    """Training needs neither the test set nor its evaluator."""
    cfg = tiny({"test_dataloader.dataset.metainfo.classes": ("RBC",)})
    cfg.test_dataloader.dataset.ann_file = "annotations/secret.json"
    cfg.test_evaluator.ann_file = "secret.json"
    found = not_passed(check_run(cfg, quick=True))
    assert {name: finding.status for name, finding in found.items()} == {
        "test annotations": "warn"
    }
    cfg = tiny({"test_dataloader.dataset.metainfo.classes": ("RBC",)})
    found = not_passed(check_run(cfg, quick=True))
    assert found["test num_classes"].status == "warn"
    assert not any(finding.status == "fail" for finding in found.values())


def test_quick_is_cheap(tiny, own_cells, monkeypatch):
    read, read_image = [], LoadReadableImage.read

    def counting_read(self, path):
        read.append(path)
        return read_image(self, path)

    def connect(*_):
        raise AssertionError("a network was used")

    monkeypatch.setattr(LoadReadableImage, "read", counting_read)
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    cfg = tiny(pretrained("hf-hub:nobody/nothing"), own_cells)
    found = not_passed(check_run(cfg, quick=True))
    assert 0 < len(read) <= 6
    assert not found


def test_full_reads_all_images(tiny, own_cells, monkeypatch):
    monkeypatch.setattr(sys.modules[check_run.__module__], "SAMPLE", 2)
    path = image_of(own_cells, "train", 3)
    path.write_bytes(path.read_bytes()[:5000])
    # An image of train under another name.
    shutil.copy(image_of(own_cells, "train"), image_of(own_cells, "test"))
    assert not not_passed(check_run(tiny(data_root=own_cells)))
    found = not_passed(check_run(tiny(data_root=own_cells), full=True))
    assert set(found) == {"train images", "overlap"}
    assert str(path) in found["train images"].text
    assert "1 of 6 images of val+test are in the training" in found["overlap"].text


def test_what_does_not_learn():
    hook = RehearsalHook()
    hook.losses, hook.objects = [{"loss": 1.0, "loss_bbox": 0.0}] * 2, 3
    hook.learnt = {"weight"}
    runner = SimpleNamespace(
        model=torch.nn.Linear(1, 1), val_loop=None, cfg={}, metrics={}
    )
    idle, unmatched, last = hook.findings(runner)
    assert idle.status == unmatched.status == "warn" and last.status == "pass"
    assert "1 parameters get no gradient, such as bias" in idle.text
    assert "loss_bbox is 0: the detector matches none of 3 objects" in unmatched.text


def test_tool(own_cells, tmp_path, monkeypatch, capsys, project):
    (own_cells / "annotations/train.json").unlink()
    monkeypatch.syspath_prepend(project / "tools")
    tool, run = project / "tools/check.py", tmp_path / "run"
    config = f"{CONFIGS}/bccd/retinanet_ghostnet_small_bccd.py"
    arguments = [tool, config, "--data-root", own_cells, "--work-dir", run]
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(tool), run_name="__main__")
    assert caught.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("train annotations") and "FAIL" in line for line in lines
    )
    assert lines[-1].startswith("1 failure, 0 warnings, ")
