"""The check of a run of a classifier."""

import shutil

import pytest
from coco_dataset import IN_PROCESS
from PIL import Image

from ghostdet import CONFIGS
from ghostdet.checks import check_run
from ghostdet.checks.findings import findings_table
from ghostdet.config import load_config

CONFIG = f"{CONFIGS}/classification/ghostnet_050_in1k.py"
DIGITS = f"{CONFIGS}/classification/ghostnet_digits.py"
V2 = "torchvision.transforms.v2."

SMALL = {
    "model.head.num_classes": 4,
    "train_cfg.max_epochs": 1,
    "param_scheduler": [],
    "train_dataloader.batch_size": 4,
    "train_dataloader.dataset.pipeline.0.size": 32,
    **{
        f"{part}_dataloader.dataset.pipeline.{i}.size": 32
        for part in ("val", "test")
        for i in (0, 1)
    },
    **{f"{part}_evaluator.topk": (1, 2) for part in ("val", "test")},
    **IN_PROCESS,
}


@pytest.fixture
def small(digit_folders, tmp_path, new_run):
    """A function: the config of ImageNet on a few digits, with options."""

    def load(**options):
        new_run()
        options = {key.replace("__", "."): value for key, value in options.items()}
        return load_config(
            CONFIG, tmp_path / "run", digit_folders, {**SMALL, **options}
        )

    return load


def not_passed(findings) -> dict:
    return {f.check: f for f in findings if f.status != "pass"}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", ["folders", "digits"])
def test_clean(small, tmp_path, name, full):
    cfg = small() if name == "folders" else load_config(DIGITS, tmp_path)
    findings = check_run(cfg, full=full)
    assert not not_passed(findings), findings_table(findings)
    assert [f.check for f in findings] == [
        "versions", "train classes", "train images", "val+test classes",
        "val+test images", "overlap", "config", "num_classes", "val evaluator",
        "pretrained weights", "val step", "train step", "disk", "learning rate",
    ]  # fmt: skip
    text = {f.check: f.text for f in findings}
    if name == "folders":
        assert text["train classes"] == "4, of 6 images each: n0, n1, n2, n3"
        assert text["train images"].endswith("/train: 24 images, read")
    else:
        assert text["train classes"].startswith("10, of 139 to 146 images each: 0, 1")
        looked = "read" if full else "200 read"
        assert text["train images"] == f"Digits (train): 1,437 images, {looked}"


def first_image(root, name):
    return sorted((root / name).glob("*.JPEG"))[0]


def cut(name):
    def damage(root):
        path = first_image(root, name)
        path.write_bytes(path.read_bytes()[:-200])

    return damage


def copy_to_val(root):
    path = first_image(root, "train/n1")
    Image.open(path).save(root / "val/n1/same.png")
    Image.open(path).save(root / "train/n1/same.png")


def keep_one_class(root):
    for name in ("n1", "n2", "n3"):
        for part in ("train", "val"):
            shutil.rmtree(root / part / name)
    topk = {f"{part}_evaluator__topk": 1 for part in ("val", "test")}
    return {"model__head__num_classes": 1, **topk}


def options(**keys):
    return lambda root: keys


# What is planted, and the findings: check, status and a part of the text or remedy.
FAULTS = {
    "no folder to evaluate": (
        lambda root: (root / "val").rename(root / "elsewhere"),
        ("val+test dataset", "fail", "holds val/"),
    ),
    "broken image": (
        cut("train/n3"),
        ("train images", "fail", "1 of 24 images cannot be read"),
    ),
    "image beside the folders": (
        lambda root: first_image(root, "val/n1").rename(root / "val/stray.png"),
        ("val+test images", "warn", "no class's folder: 1 images"),
    ),
    "one class": (
        keep_one_class,
        ("train classes", "warn", "one class, n0: there is nothing"),
        ("val+test classes", "warn", "a folder for each"),
    ),
    "class that is only trained on": (
        lambda root: shutil.rmtree(root / "val/n1"),
        ("num_classes", "fail", "/train) have different classes: n1 Let"),
    ),
    "num_classes": (
        options(model__head__num_classes=3),
        ("num_classes", "fail", "--cfg-options model.head.num_classes=4"),
    ),
    "topk": (
        options(val_evaluator__topk=(1, 5), test_evaluator__topk=(1, 5)),
        ("val evaluator", "fail", "val_evaluator.topk=1"),
    ),
    "unknown transform": (
        lambda root: {"train_dataloader.dataset.pipeline.1.type": V2 + "RandomFlop"},
        ("train dataset", "fail", "RandomFlop"),
    ),
    "no tensor": (
        lambda root: {
            "train_dataloader.dataset.pipeline": [dict(type=V2 + "RandomCrop", size=8)]
        },
        ("train step", "fail", "PILToTensor"),
    ),
    "unknown argument": (
        options(train_dataloader__dataset__folder="x"),
        ("train dataset", "fail", "'folder' Correct it there"),
    ),
    "batch larger than the dataset": (
        options(train_dataloader__batch_size=25),
        ("train step", "fail", "24 images do not fill one batch"),
    ),
    "best checkpoint by no metric": (
        options(default_hooks__checkpoint__save_best="accuracy/top9"),
        ("val metrics", "fail", "The evaluator gives accuracy/top1"),
    ),
    "cosine that rises again": (
        lambda root: {
            "param_scheduler": [dict(type="CosineAnnealingLR", T_max=30)],
            "train_cfg.max_epochs": 60,
        },
        ("learning rate", "warn", "T_max and milestones of param_scheduler fit"),
    ),
    "schedule longer than the training": (
        lambda root: {"param_scheduler": [dict(type="CosineAnnealingLR", T_max=400)]},
        ("learning rate", "warn", "at iteration 493, of 6; lr is 0.0015625 Let begin"),
    ),
    "warm-up longer than the training": (
        lambda root: {
            "param_scheduler": [dict(type="LinearLR", start_factor=0.1, end=9)]
        },
        ("learning rate", "warn", "0.000332031 at iteration 7, of 6; lr is"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault(small, digit_folders, fault):
    plant, *expected = FAULTS[fault]
    planted = plant(digit_folders)
    cfg = small(**planted) if isinstance(planted, dict) else small()
    found = not_passed(check_run(cfg))
    assert set(found) == {row[0] for row in expected}, findings_table([*found.values()])
    for name, status, said in expected:
        assert found[name].status == status
        assert said in f"{found[name].text} {found[name].remedy}"


def test_full(small, digit_folders):
    """All images are read, in threads, and compared by their pixels."""
    copy_to_val(digit_folders)
    cut("val/n0")(digit_folders)
    found = not_passed(check_run(small(), full=True))
    assert {name: f.status for name, f in found.items()} == {
        "val+test images": "fail",
        "overlap": "warn",
    }
    assert "1 of 13 images of val+test are in the training" in found["overlap"].text
    assert f"{digit_folders}/val/n1/same.png" in found["overlap"].text
