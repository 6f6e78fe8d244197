"""What a run changes in its config."""

import pytest
import torch
from mmengine.optim.optimizer import amp_optimizer_wrapper
from unchecked import train

from ghostdet import CONFIGS
from ghostdet.config import load_config
from ghostdet.engine.hooks import GracefulStopHook
from ghostdet.engine.setup import setup_run, use_run_components
from ghostdet.errors import UserError
from ghostdet.utils.components import type_name

CELLS = f"{CONFIGS}/bccd/retinanet_ghostnet_small_bccd.py"
DIGITS = f"{CONFIGS}/classification/ghostnet_digits.py"


def kinds(cfg):
    return [type_name(hook["type"]) for hook in cfg.custom_hooks]


def test_components(tiny):
    cfg = tiny()
    cfg.custom_hooks = [dict(type="mmengine.CheckpointGuardHook", allow="bbox_head")]
    for _ in range(2):  # as with the config that a run has written
        use_run_components(cfg)
    names = ["CheckpointGuardHook", "GracefulStopHook", "RunRecordHook"]
    assert kinds(cfg) == names and cfg.custom_hooks[0]["allow"] == "bbox_head"
    assert cfg.train_cfg.type == "mmdet.ResumableIterLoop"
    assert cfg.default_hooks.checkpoint.type == "SafeCheckpointHook"


@pytest.mark.parametrize(
    "train_cfg, kind",
    [
        (dict(max_epochs=1), "mmdet.ResumableEpochLoop"),
        (dict(by_epoch=False, max_iters=1), "mmdet.ResumableIterLoop"),
        (dict(type="mmengine.EpochBasedTrainLoop"), "mmdet.ResumableEpochLoop"),
        (dict(type="OwnLoop"), "OwnLoop"),
    ],
)
def test_parts_of_a_projects_own(tiny, train_cfg, kind):
    cfg = tiny({"default_hooks": None})
    cfg.train_cfg = train_cfg
    hook = GracefulStopHook()
    cfg.custom_hooks = [hook]
    use_run_components(cfg)
    assert cfg.train_cfg.type == kind
    assert cfg.custom_hooks[0] is hook and len(cfg.custom_hooks) == 3


@pytest.mark.parametrize(
    "base, accumulative_counts, follow, factor",
    [(8, 1, True, 2 / 8), (8, 3, True, 6 / 8), (8, 1, False, 1), (None, 1, True, 1)],
)
def test_learning_rate(tiny, base, accumulative_counts, follow, factor):
    cosine = dict(type="CosineAnnealingLR", eta_min=0.001, by_epoch=False)
    options = {"auto_scale_lr.base_batch_size": base, "param_scheduler": [cosine]}
    options["auto_scale_lr.enable"] = True  # MMEngine would scale once more
    options["optim_wrapper.accumulative_counts"] = accumulative_counts
    cfg = tiny(options)
    lr = cfg.optim_wrapper.optimizer.lr
    text, _ = setup_run(cfg, auto_scale_lr=follow)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(lr * factor)
    assert not cfg.auto_scale_lr.enable
    assert cfg.param_scheduler[0].eta_min == pytest.approx(0.001 * factor)
    assert f"{accumulative_counts} accumulated" in text or not follow


def test_learning_rate_of_several_optimizers(tiny):
    cfg = tiny()
    cfg.optim_wrapper = dict(constructor="Own")
    text, _ = setup_run(cfg)
    assert text.endswith("1 rank x 2 images x 1 accumulated = batch 2")


@pytest.mark.parametrize("allow, kept", [((), False), ("bbox", False), ("back", True)])
def test_pretrained_weights_that_are_replaced(tiny, trained, allow, kept):
    cfg = tiny({"load_from": str(trained / "iter_4.pth")})
    cfg.model.backbone.init_cfg = dict(type="Pretrained", checkpoint="nowhere.pth")
    cfg.custom_hooks = [dict(type="CheckpointGuardHook", allow=allow)]
    setup_run(cfg)
    assert (cfg.model.backbone.init_cfg is not None) == kept


def test_resume(tiny, trained, tmp_path):
    cfg = tiny({"randomness.seed": None})
    setup_run(cfg, resume="auto")
    assert not cfg.resume and cfg.load_from is None  # nothing to resume
    path = str(trained / "iter_2.pth")
    _, dataset_meta = setup_run(cfg, resume=path)
    assert cfg.resume and cfg.load_from == path
    assert dataset_meta["classes"] == ("RBC", "WBC", "Platelets")
    content = torch.load(path, weights_only=False)
    assert cfg.randomness.seed == content["meta"]["seed"]
    torch.save(content["state_dict"], tmp_path / "weights.pth")
    with pytest.raises(UserError, match="nothing to resume; .*load_from="):
        setup_run(tiny(), resume=str(tmp_path / "weights.pth"))


def test_restarted_by_torchrun(tiny, trained, monkeypatch):
    """The command has no --resume; the run that was begun is resumed."""
    monkeypatch.setattr("ghostdet.engine.setup.restarted", lambda folder: True)
    cfg = tiny(work_dir=trained)
    setup_run(cfg)
    assert cfg.load_from == str(trained / "iter_4.pth")


@pytest.mark.parametrize(
    "config, save_best, own, metric",
    [
        (CELLS, None, [], "coco/bbox_mAP"),
        (CELLS, ["a/acc", "b"], [], "a/acc"),
        (DIGITS, "auto", [], "accuracy/top1"),
        (CELLS, "b", [dict(type="EarlyStoppingHook", monitor="x", patience=9)], "x"),
    ],
)
def test_patience(config, save_best, own, metric, tmp_path):
    cfg = load_config(config, tmp_path)
    cfg.default_hooks.checkpoint.save_best, cfg.custom_hooks = save_best, own
    setup_run(cfg, patience=3)
    hooks = {hook.type: hook for hook in cfg.custom_hooks}
    stop = hooks["ResumableEarlyStoppingHook"]
    assert (stop.monitor, stop.patience) == (metric, 3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_amp_without_a_gpu(tiny):
    with pytest.raises(UserError, match="--amp needs a GPU"):
        setup_run(tiny(), amp=True)


@pytest.mark.parametrize(
    "gpu, dtype, expected",
    [
        (False, "bfloat16", "only available training on gpu"),
        (True, "float17", "should be any of .*'bfloat16'.*, got float17; correct it"),
        (True, "int8", "should be any of .*'bfloat16'.*, got int8; correct it"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*GradScaler")
def test_precisions_that_are_refused(tiny, monkeypatch, gpu, dtype, expected):
    monkeypatch.setattr(amp_optimizer_wrapper, "is_cuda_available", lambda: gpu)
    cfg = tiny({"optim_wrapper.type": "AmpOptimWrapper", "optim_wrapper.dtype": dtype})
    with pytest.raises(UserError, match=f"run: AmpOptimWrapper: .*{expected}"):
        train(cfg)


@pytest.mark.parametrize("native, dtype", [(True, "bfloat16"), (False, "float16")])
def test_amp(tiny, monkeypatch, native, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: native)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # MMEngine's logger reads it
    cfg = tiny()
    setup_run(cfg, amp=True)
    assert cfg.optim_wrapper.type == "AmpOptimWrapper"
    assert cfg.optim_wrapper.dtype == dtype
