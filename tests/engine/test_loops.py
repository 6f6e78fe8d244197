"""Random numbers follow from the seed, the iteration and the sample."""

import itertools
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from unchecked import train

from ghostdet.engine.loops import NumberedBatchSampler, heed_parent, seed_all

AUGMENTED = {
    "train_cfg.val_interval": 100,
    "train_cfg.max_iters": 3,
    "default_hooks.checkpoint.interval": 1,
}


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_streams_are_independent():
    drawn = []
    triples = list(itertools.product(range(3), repeat=3))
    for numbers in [*triples, *((*triple, 1) for triple in triples)]:
        seed_all(*numbers)
        drawn += draw()
    assert len(set(drawn)) == len(drawn)
    seed_all(0, 0, 0)
    assert drawn[:3] == list(draw())


@pytest.mark.parametrize("inner", [None, {"type": "mmdet.AspectRatioBatchSampler"}])
@pytest.mark.parametrize("skipped", range(4))
def test_batches_that_are_left(inner, skipped):
    class Data(list):
        def get_data_info(self, index):
            return {"width": 2 + index % 2, "height": 2.5}

    sampler = torch.utils.data.SequentialSampler(Data(range(7)))
    sampler.dataset = Data(range(7))
    whole = list(NumberedBatchSampler(sampler, 2, batch_sampler=inner))
    batches = NumberedBatchSampler(sampler, 2, batch_sampler=inner)
    batches.skipped = skipped
    assert list(batches) == whole[skipped:] and len(batches) == 4
    numbers = [batch[0][0] for batch in batches]  # the next pass is complete
    assert numbers == [4, 5, 6, 7]


@pytest.fixture
def fed(tiny, monkeypatch):
    """A function: the images of each iteration of a run, by its number."""

    def run(options=None, resume=None, change=lambda cfg: None):
        batches = {}
        start = Runner.train

        def noted(runner):
            train_step = runner.model.train_step

            def note(data, optim_wrapper):
                batches[runner.iter] = torch.stack(data["inputs"])
                return train_step(data, optim_wrapper)

            runner.model.train_step = note
            return start(runner)

        cfg = tiny({**AUGMENTED, **(options or {})})
        change(cfg)
        with monkeypatch.context() as patch:
            patch.setattr(Runner, "train", noted)
            train(cfg, resume=resume)
        return batches

    return run


def test_images_do_not_depend_on_workers(fed):
    one = fed()
    other = fed({"train_dataloader.num_workers": 2})
    assert one.keys() == other.keys() == {0, 1, 2}
    assert all(torch.equal(one[i], other[i]) for i in one)


@pytest.mark.parametrize(
    "sampler", [{}, {"train_dataloader.sampler.type": "DefaultSampler"}]
)
def test_images_after_resuming(fed, tmp_path, sampler):
    whole = fed(sampler)
    rest = fed(sampler, resume=str(tmp_path / "run/iter_1.pth"))
    assert rest.keys() == {1, 2}
    assert all(torch.equal(whole[i], rest[i]) for i in rest)


@pytest.fixture
def by_epoch():
    """A function that has a config train two epochs of eight images."""

    def change(cfg):
        cfg.train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=2)
        cfg.default_hooks.checkpoint = dict(type="CheckpointHook", interval=1)
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        loader = cfg.train_dataloader
        loader.sampler.type = "DefaultSampler"
        loader.dataset = dict(**loader.dataset.datasets[0], indices=8)

    return change


def test_resumed_with_another_batch(fed, tmp_path, by_epoch):
    """An epoch of four batches becomes one of two, and none is left out."""
    assert len(fed(change=by_epoch)) == 8
    four = {"train_dataloader.batch_size": 4}
    rest = fed(four, resume=str(tmp_path / "run/epoch_1.pth"), change=by_epoch)
    assert rest.keys() == {2, 3}


def test_another_pipeline(fed, by_epoch):
    """MMDetection's hook sets the pipeline of the dataset, seen through ours."""

    def change(cfg):
        by_epoch(cfg)
        pipeline = [
            dict(transform) for transform in cfg.test_dataloader.dataset.pipeline
        ]
        pipeline[1]["scale"] = (64, 64)
        cfg.custom_hooks = [
            dict(type="PipelineSwitchHook", switch_epoch=1, switch_pipeline=pipeline)
        ]

    images = fed(change=change)
    assert [images[i].shape[-1] for i in range(8)] == [256] * 4 + [64] * 4


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def gone(pid, seconds=5):
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


@pytest.fixture
def family():
    """A process and its worker, which waits forever: their ids and a way to end it."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()

    def be_parent():
        def be_worker():
            heed_parent(0, os.getppid())
            theirs.send(os.getpid())
            time.sleep(600)

        worker = fork.Process(target=be_worker)
        worker.start()
        theirs.recv()
        worker.terminate()
        worker.join()

    parent = fork.Process(target=be_parent)
    parent.start()
    yield parent.pid, ours.recv(), ours.send
    parent.kill()
    parent.join()


def test_workers_heed_their_parent_alone(family):
    parent, worker, end = family
    os.kill(worker, signal.SIGTERM)  # from a cluster
    assert not gone(worker, seconds=1.5)
    end("now")
    assert gone(worker) and gone(parent)


def test_workers_of_process_1(monkeypatch):
    """In a container the trainer may be process 1, as the parent of orphans is."""
    monkeypatch.setattr(os, "getppid", lambda: 1)
    worker = multiprocessing.get_context("fork").Process(
        target=lambda: (heed_parent(0, 1), time.sleep(1), os._exit(7))
    )
    worker.start()
    worker.join()
    assert worker.exitcode == 7


def test_workers_end_with_a_parent_that_is_killed(family):
    parent, worker, _ = family
    os.kill(parent, signal.SIGKILL)
    assert gone(worker)
