"""Shared annotations are those of MMDetection's CocoDataset, parsed once a machine."""

import copy
import json
import multiprocessing
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS

from ghostdet.datasets import SharedCocoDataset, check_dataset, shared
from ghostdet.errors import UserError

BCCD = ("RBC", "WBC", "Platelets")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; what it will hold."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/ghostdet/annotations"


@pytest.fixture
def data(request):
    """A function: the arguments of a data set."""

    def arguments(name, **others):
        root = request.getfixturevalue(name)
        if name == "bccd":
            made = dict(
                ann_file="annotations/train.json",
                data_prefix=dict(img="images/"),
                metainfo=dict(classes=BCCD),
            )
        else:
            made = dict(
                ann_file="annotations/instances_train2017.json",
                data_prefix=dict(img="train2017/"),
            )
        return dict(data_root=str(root), **made, **others)

    return arguments


@pytest.fixture
def parsed(monkeypatch):
    """The annotation files parsed, one after another."""
    files = []
    load = CocoDataset.load_data_list

    def counted(self):
        files.append(self.ann_file)
        return load(self)

    monkeypatch.setattr(CocoDataset, "load_data_list", counted)
    return files


def entries(cache):
    return sorted(path for path in cache.iterdir() if path.is_dir())


def check_equal(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for index in [*range(len(theirs)), -1]:
        assert ours.get_data_info(index) == theirs.get_data_info(index)
        assert ours.get_cat_ids(index) == theirs.get_cat_ids(index)
    for name in ("metainfo", "cat_ids", "cat2label", "data_prefix", "ann_file"):
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("name", ["mini_coco", "bccd"])
@pytest.mark.parametrize(
    "options",
    [
        dict(filter_cfg=dict(filter_empty_gt=True, min_size=32)),
        dict(test_mode=True),
        dict(indices=5),
        dict(indices=[3, 0, 7]),
        dict(return_classes=True),
    ],
)
def test_equal_to_coco_dataset(cache, data, parsed, name, options):
    theirs = CocoDataset(**data(name, **options))
    for _ in range(2):  # what was written, and what was found
        check_equal(SharedCocoDataset(**data(name, **options)), theirs)
    assert len(parsed) == 2  # theirs and the first of ours


def test_subsets_and_wrappers(cache, data):
    theirs, ours = (
        kind(**data("mini_coco")) for kind in (CocoDataset, SharedCocoDataset)
    )
    for indices in (4, -3, [5, 1]):
        check_equal(ours.get_subset(indices), theirs.get_subset(indices))
        changed = copy.deepcopy(ours), copy.deepcopy(theirs)
        for dataset in changed:
            dataset.get_subset_(indices)
        check_equal(*changed)
    joined = [
        DATASETS.build(
            dict(
                type="ConcatDataset",
                datasets=[
                    dict(type=kind, **data("mini_coco", **options))
                    for options in (dict(indices=3), dict(indices=[9]))
                ],
            )
        )
        for kind in ("CocoDataset", "SharedCocoDataset")
    ]
    assert joined[0].metainfo == joined[1].metainfo
    for index in range(4):
        assert joined[0].get_data_info(index) == joined[1].get_data_info(index)


def test_samples_cannot_be_written_to(cache, data):
    ours = SharedCocoDataset(**data("bccd"))
    with pytest.raises(ValueError, match="read-only"):
        ours.data_bytes[0] = 0


def test_an_entry_for_every_content(cache, own_bccd, parsed):
    """Other arguments have entries of their own; those of an older file go."""
    base = dict(
        data_root=str(own_bccd),
        ann_file="annotations/train.json",
        data_prefix=dict(img=""),
    )
    variants = [
        dict(metainfo=dict(classes=BCCD)),
        dict(metainfo=dict(classes=("WBC",))),
        dict(metainfo=dict(classes=BCCD), data_prefix=dict(img="images/")),
        dict(metainfo=dict(classes=BCCD), test_mode=True),
        dict(metainfo=dict(classes=BCCD), indices=[5, 1]),
        dict(metainfo=dict(classes=BCCD), filter_cfg=dict(min_size=32)),
    ]
    for arguments in variants:
        SharedCocoDataset(**{**base, **arguments})
    assert len(parsed) == len(entries(cache)) == len(variants)
    other = {**base, "ann_file": "annotations/val.json"}
    SharedCocoDataset(**other, **variants[0])
    assert len(entries(cache)) == len(variants) + 1

    path = own_bccd / "annotations/train.json"
    coco = json.loads(path.read_text())
    coco["images"] = coco["images"][:4]
    path.write_text(json.dumps(coco))
    mapped = SharedCocoDataset(**other, **variants[0])
    assert len(SharedCocoDataset(**base, **variants[0])) == 4
    assert len(entries(cache)) == 2
    # The same size at another time is another file.
    os.utime(path, ns=(1, 1))
    SharedCocoDataset(**base, **variants[0])
    assert len(parsed) == len(variants) + 3
    assert mapped.get_data_info(0)["img_id"]


def test_one_process_parses_and_the_others_wait(cache, data, monkeypatch):
    load = CocoDataset.load_data_list
    arguments = data("bccd")  # where that skips, it must not do so in a child
    context = multiprocessing.get_context("fork")
    ready, results = context.Barrier(3), context.SimpleQueue()

    def slow(self):
        results.put("parsed")
        time.sleep(0.5)
        return load(self)

    def rank():
        ready.wait()
        dataset = SharedCocoDataset(**arguments)
        results.put(sum(len(dataset.get_cat_ids(i)) for i in range(len(dataset))))

    monkeypatch.setattr(CocoDataset, "load_data_list", slow)
    processes = [context.Process(target=rank) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get() for _ in range(4)]
    for process in processes:
        process.join(30)
    assert found[0] == "parsed"
    assert len(set(found[1:])) == 1 and found[1] > 205


def test_a_process_that_was_killed_leaves_nothing_in_the_way(cache, data, parsed):
    SharedCocoDataset(**data("bccd"))
    (entry,) = entries(cache)
    rest = entry.with_name(f".{entry.name.split('-')[0]}")
    entry.rename(rest)  # as a process leaves it that dies before the last step
    (rest / "data_bytes.npy").write_bytes(b"half")
    theirs = CocoDataset(**data("bccd"))
    check_equal(SharedCocoDataset(**data("bccd")), theirs)
    assert entries(cache) == [entry]


@pytest.mark.parametrize("name", ["data_bytes.npy", "cat_ids.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_entry_is_written_again(cache, data, parsed, name, damage):
    for _ in range(2):
        SharedCocoDataset(**data("bccd"))
    (entry,) = entries(cache)
    damage(entry / name)
    theirs = CocoDataset(**data("bccd"))
    for _ in range(2):
        check_equal(SharedCocoDataset(**data("bccd")), theirs)
    assert len(parsed) == 3 and entries(cache) == [entry]


def test_machines_that_share_a_home(cache, own_bccd, monkeypatch):
    """Each has entries of its own, and deletes no other's."""
    path = own_bccd / "annotations/train.json"
    arguments = dict(
        ann_file=str(path),
        data_prefix=dict(img="images/"),
        metainfo=dict(classes=BCCD),
    )
    SharedCocoDataset(**arguments)
    first = entries(cache)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="another"))
    os.utime(path, ns=(1, 1))
    SharedCocoDataset(**arguments)
    assert len(entries(cache)) == 2 and set(first) < set(entries(cache))


def open_to_others(cache, monkeypatch):
    cache.mkdir(parents=True)
    cache.parent.chmod(0o755)


def somebody_elses(cache, monkeypatch):
    shared._cache()
    monkeypatch.setattr(os, "getuid", lambda: 12345)


def a_link(cache, monkeypatch):
    cache.parent.parent.mkdir(parents=True)
    cache.parent.symlink_to("/tmp")


def a_file(cache, monkeypatch):
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("")


def a_full_disk(cache, monkeypatch):
    def save(file, array):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", save)


@pytest.mark.parametrize(
    "hinder, reason",
    [
        (open_to_others, "chmod 700"),
        (somebody_elses, "not a folder of yours"),
        (a_link, "not a folder of yours"),
        (a_file, "XDG_CACHE_HOME"),
        (a_full_disk, "No space left on device"),
    ],
)
def test_loads_as_ever_where_the_cache_cannot_be_used(
    cache, data, parsed, monkeypatch, hinder, reason
):
    theirs = CocoDataset(**data("bccd"))
    messages = []
    monkeypatch.setattr(shared, "print_log", lambda text, **_: messages.append(text))
    hinder(cache, monkeypatch)
    ours = SharedCocoDataset(**data("bccd"))
    check_equal(ours, theirs)
    assert len(parsed) == 2
    (message,) = messages
    assert "not shared" in message and reason in message
    monkeypatch.undo()
    assert not cache.is_dir() or not entries(cache)


@pytest.mark.parametrize(
    "options, reason",
    [
        (dict(serialize_data=False), "serialize_data"),
        (dict(backend_args=dict(backend="petrel")), "not a local file"),
        (dict(filter_cfg=dict(min_size={1})), "cannot be compared"),
    ],
)
def test_says_why_nothing_is_shared(cache, data, monkeypatch, options, reason):
    messages = []
    monkeypatch.setattr(shared, "print_log", lambda text, **_: messages.append(text))
    monkeypatch.setattr(CocoDataset, "full_init", lambda self: None)
    if "backend_args" in options:
        monkeypatch.setattr(shared, "get_file_backend", lambda *_, **__: object())
    SharedCocoDataset(**data("bccd", **options))
    (message,) = messages
    assert reason in message
    assert not entries(cache)


def test_derived_classes_are_not_shared(cache, data, monkeypatch):
    class Derived(SharedCocoDataset):
        pass

    messages = []
    monkeypatch.setattr(shared, "print_log", lambda text, **_: messages.append(text))
    check_equal(Derived(**data("bccd")), CocoDataset(**data("bccd")))
    assert "Derived may read them in its own way" in messages[0]
    assert not entries(cache)


def test_is_checked_before_a_run(data):
    cfg = dict(type="SharedCocoDataset", pipeline=[], **data("bccd"))
    check_dataset(cfg)
    cfg["metainfo"] = dict(classes=("RBC", "WBCs", "Platelets"))
    with pytest.raises(UserError, match="WBCs"):
        check_dataset(cfg)
