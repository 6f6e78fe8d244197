from pathlib import Path

import pytest

from ghostdet.config import load_config
from ghostdet.errors import UserError
from ghostdet.utils.components import iter_datasets

CONFIGS = Path(__file__).parents[1] / "configs"
BCCD = CONFIGS / "bccd/retinanet_ghostnet_small_bccd.py"
FILES = sorted(path for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)


def test_options(tmp_path):
    cfg = load_config(
        BCCD,
        tmp_path / "run",
        cfg_options={
            "train_dataloader.dataset.datasets.1.ann_file": "x.json",
            "model.test_cfg.own": 1,
        },
    )
    assert cfg.work_dir == str(tmp_path / "run")
    files = [part.ann_file for part in cfg.train_dataloader.dataset.datasets]
    assert files == ["data/bccd/annotations/train.json", "x.json"]
    assert cfg.model.test_cfg.own == 1


def test_work_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(BCCD).work_dir == "work_dirs/retinanet_ghostnet_small_bccd"
    (tmp_path / "own.py").write_text(f"_base_ = '{BCCD}'\nwork_dir = 'there'")
    assert load_config("own.py").work_dir == "there"
    assert load_config("own.py", work_dir="here").work_dir == "here"
    assert [path.name for path in tmp_path.iterdir()] == ["own.py"]  # nothing made


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_data_root_moves_everything(tmp_path, path):
    old = load_config(path, tmp_path).get("data_root")
    if old is None:  # digits come with a package
        with pytest.raises(UserError, match="has none"):
            load_config(path, tmp_path, data_root=tmp_path)
        return
    cfg = load_config(path, tmp_path, data_root=tmp_path)
    used = {key: cfg[key] for key in cfg if key.endswith(("_dataloader", "evaluator"))}
    assert old not in str(used) and old != cfg.data_root
    for part in ("train", "val", "test"):
        for _, dataset in iter_datasets(cfg[f"{part}_dataloader"].dataset):
            root = dataset.get("data_root") or dataset.get("root") or dataset.ann_file
            assert root.startswith(f"{tmp_path}/")


def test_data_root_of_nested_folders_wrappers_and_lists(tmp_path):
    (tmp_path / "own.py").write_text("""
data_root = 'unused/'
a = dict(data_root='data/coco', ann_file='a.json')
b = dict(data_root='data/coco/extra/', data_prefix=dict(img='data/coco/extra/b'))
c = dict(data_root=None, ann_file='data/coco/extra/c.json')
both = dict(type='ConcatDataset', datasets=[a, b, c])
train_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=both))
val_evaluator = [
    dict(ann_file='data/coco/a.json', seg_prefix='data/coco/seg'),
    dict(ann_file='elsewhere/a.json'),
    dict(ann_file=None),
]
""")
    cfg = load_config(tmp_path / "own.py", tmp_path, data_root=tmp_path)
    a, b, c = cfg.train_dataloader.dataset.dataset.datasets
    roots = [a.data_root, b.data_root, c.data_root]
    assert roots == [f"{tmp_path}/", f"{tmp_path}/extra", None]
    assert b.data_prefix.img == f"{tmp_path}/extra/b"
    assert c.ann_file == f"{tmp_path}/extra/c.json"
    files = [metric.ann_file for metric in cfg.val_evaluator]
    assert files == [f"{tmp_path}/a.json", "elsewhere/a.json", None]
    assert cfg.val_evaluator[0].seg_prefix == f"{tmp_path}/seg"


@pytest.mark.parametrize(
    "text, found",
    [
        ("val_dataloader = dict(data_root='data/coco2/')", "data/coco/, data/coco2/;"),
        ("train_dataloader = dict(_delete_=True)", "none;"),
    ],
)
def test_data_root_of_several_folders_or_none(tmp_path, text, found):
    (tmp_path / "base.py").write_text("train_dataloader = dict(data_root='data/coco/')")
    (tmp_path / "own.py").write_text(f"_base_ = 'base.py'\n{text}")
    with pytest.raises(UserError, match=f"own.py has {found} set"):
        load_config(tmp_path / "own.py", tmp_path, data_root=tmp_path)


def test_the_first_cause_of_an_error_in_an_import(tmp_path, monkeypatch):
    (tmp_path / "failing_plugin.py").write_text("\nimport not_there")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own.py").write_text("custom_imports = dict(imports='failing_plugin')")
    with pytest.raises(UserError, match="'not_there' .*failing_plugin.py:2") as caught:
        load_config(tmp_path / "own.py")
    assert len(caught.value.text) < 400


@pytest.mark.parametrize(
    "text, message",
    [
        ("a = (", "was never closed"),
        ("a = b", "NameError: name 'b' is not defined"),
        ("_base_ = 'nowhere.py'", "nowhere.py"),
        ("_base_ = ['a.py', 'b.py']", "a.py"),
        (
            "custom_imports = dict(imports=['nothing_there'], "
            "allow_failed_imports=False)",
            "nothing_there",
        ),
        ("\0", "cannot be read as a config"),
    ],
)
def test_what_is_no_config(tmp_path, text, message):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(UserError, match="own.py cannot be read as a config") as caught:
        load_config(tmp_path / "own.py", tmp_path)
    assert message in str(caught.value)


def test_data_root_of_a_class_name(tmp_path):
    (tmp_path / "cat.py").write_text(
        "_base_ = __import__('ghostdet').CONFIGS + '/own/light_s.py'\n"
        "data_root = 'cat'\nimages = 'photos/'\nclasses = ('cat', 'dog')\n"
        "__import__('ghostdet').derive(globals())"
    )
    (tmp_path / "moved").mkdir()
    cfg = load_config(tmp_path / "cat.py", tmp_path, data_root=tmp_path / "moved")
    dataset = cfg.val_dataloader.dataset
    assert dataset.metainfo.classes == ("cat", "dog")
    assert dataset.ann_file == f"{tmp_path}/moved/val.json"
    assert dataset.data_prefix.img == "photos/"


@pytest.mark.parametrize("data_root", ["nowhere", "file", ""])
def test_data_root_that_is_no_folder(tmp_path, monkeypatch, data_root):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"--data-root '{data_root}' is not a folder"):
        load_config(BCCD, tmp_path / "run", data_root)


def test_options_that_do_not_fit(tmp_path):
    options = {"train_dataloader.dataset.datasets.7.ann_file": "x.json"}
    with pytest.raises(
        UserError, match=r"--cfg-options \S+7.ann_file does not .*Index 7"
    ) as err:
        load_config(BCCD, tmp_path, cfg_options=options)
    assert len(str(err.value)) < 400


@pytest.mark.parametrize("launcher", ["pytorch", "slurm", "mpi"])
def test_launcher_that_did_not_start_this(tmp_path, monkeypatch, launcher):
    for variable in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match=f"--launcher {launcher} is for"):
        load_config(BCCD, tmp_path, launcher=launcher)
