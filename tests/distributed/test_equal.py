"""Two processes do what one does with their batch."""

import torch

from ghostdet.weights import read_checkpoint

STEPS = "train_cfg.max_iters=10", "default_hooks.checkpoint.interval=5"
# Batch statistics of a random network multiply rounding by six in an iteration.
TOLERANCE = torch.finfo(torch.float64).eps * 6**10


def test_two_processes_equal_one(run, difference):
    """With GFL, whose losses are normalised over all ranks, as RetinaNet's are not.

    In double precision: in single precision the rounding of a processor's own kernels
    grows to more than 1e-5.
    """
    options = [
        "model.type=DoubleGFL",
        "model.sync=True",
        "optim_wrapper.optimizer.lr=1e-6",
    ]
    one = run(*STEPS, *options, "train_dataloader.batch_size=4", name="one")
    two = run(*STEPS, *options, "train_dataloader.batch_size=2", ranks=2, name="two")
    assert "1 rank x 4 images x 1 accumulated = batch 4, for 2" in one.output
    assert "2 ranks x 2 images x 1 accumulated = batch 4, for 2" in two.output
    first, second, early = (
        read_checkpoint(str(run.work_dir / f"iter_{step}.pth"))["state_dict"]
        for run, step in ((one, 10), (two, 10), (one, 5))
    )
    same = difference(first, second)
    assert same < TOLERANCE
    assert difference(first, early, buffers=False) > 100 * same  # it did learn
