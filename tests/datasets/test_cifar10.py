"""CIFAR-10 in its own layout, made of scikit-learn's digits."""

import hashlib
import os
import pickle
import tarfile

import numpy as np
import pytest
import torchvision
from coco_dataset import IN_PROCESS
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope
from sklearn.datasets import load_digits
from unchecked import train

from ghostdet import CONFIGS
from ghostdet.config import load_config
from ghostdet.datasets import CIFAR10
from ghostdet.errors import UserError

CLASSES = [f"digit {number}" for number in range(10)]
FILES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
PER_FILE = 4


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def digits():
    """Images ``(N, 3, 32, 32)``, uint8, in tints without black; labels."""
    data = load_digits()
    images = np.kron(data.images * 15 + 15, np.ones((4, 4)))[:, None]
    tints = np.array([1, 0.5, 0.25]).reshape(3, 1, 1)
    return (images * tints).astype(np.uint8), data.target


@pytest.fixture
def root(tmp_path, monkeypatch, digits):
    """A folder with the pickles of CIFAR-10, whose checksums torchvision expects."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    images, labels = digits
    for number, name in enumerate(FILES):
        part = slice(number * PER_FILE, (number + 1) * PER_FILE)
        batch = {
            "batch_label": name,
            "data": images[part].reshape(PER_FILE, -1),
            "labels": labels[part].tolist(),
            "filenames": [f"{index}.png" for index in range(PER_FILE)],
        }
        (folder / name).write_bytes(pickle.dumps(batch))
    meta = {"label_names": CLASSES, "num_cases_per_batch": PER_FILE, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))
    sums = [[name, md5(folder / name)] for name in FILES]
    cifar = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", sums[:5])
    monkeypatch.setattr(cifar, "test_list", sums[5:])
    meta = {**cifar.meta, "md5": md5(folder / "batches.meta")}
    monkeypatch.setattr(cifar, "meta", meta)
    return tmp_path


def config(name, root, options=None):
    loaders = {f"{part}_dataloader.batch_size": 8 for part in ("train", "val", "test")}
    return load_config(
        f"{CONFIGS}/classification/{name}_cifar10.py",
        root / "run",
        root,
        {**IN_PROCESS, **loaders, "train_cfg.max_epochs": 1, **(options or {})},
    )


def build(cfg):
    with DefaultScope.overwrite_default_scope("mmdet"):
        return DATASETS.build(cfg)


def test_training(root, new_run):
    """Two iterations, evaluation and the best checkpoint, by the config's recipe."""
    new_run()
    runner = train(config("ghost_resnet56", root))
    assert runner.iter == 2
    assert runner.optim_wrapper.get_lr()["lr"] == [0.1 * 8 / 128]  # scaled to the batch
    assert [path.name for path in (root / "run").glob("best_*")] == [
        "best_accuracy_top1_epoch_1.pth"
    ]


class Trap:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_what_is_not_cifar10_is_not_unpickled(root):
    """Checksums are compared before anything in a file can run."""
    trap = root / "sprung"
    for name in ("data_batch_3", "batches.meta"):
        path = root / "cifar-10-batches-py" / name
        whole = path.read_bytes()
        path.write_bytes(pickle.dumps(Trap(trap)))
        with pytest.raises((RuntimeError, UserError)):
            build(config("vgg16", root).train_dataloader.dataset)
        assert not trap.exists()
        path.write_bytes(whole)
    pickle.loads(pickle.dumps(Trap(trap)))
    assert trap.exists()  # the trap works


def test_download(root, address, tmp_path, monkeypatch):
    url, folder = address
    path = folder / CIFAR10.filename
    with tarfile.open(path, "w:gz") as file:
        file.add(root / CIFAR10.base_folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "url", f"{url}/{CIFAR10.filename}")
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(path))
    new = str(tmp_path / "new")
    message = (
        r"CIFAR-10 is not there; --cfg-options "
        r"train_dataloader.dataset.download=True .*--data-root DIR"
    )
    with pytest.raises(UserError, match=message):
        CIFAR10(new)
    assert len(CIFAR10(new, download=True)) == 5 * PER_FILE
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar.tar.gz")
    assert len(CIFAR10(new, train=False)) == PER_FILE  # comes with it
    with pytest.raises(UserError, match="cannot be downloaded to .*by other means"):
        CIFAR10(str(tmp_path / "newer"), download=True)
