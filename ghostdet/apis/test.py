"""Evaluation on MMEngine's Runner."""

from __future__ import annotations

import os
from pathlib import Path

from mmdet.evaluation import CocoMetric, DumpDetResults
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ghostdet.apis.amp import use_amp
from ghostdet.apis.model import dataset_meta_of
from ghostdet.apis.runner import build_runner
from ghostdet.checks import check_dataset
from ghostdet.config import config_mistakes, require, require_detector
from ghostdet.engine.distributed import on_main_process, start_processes
from ghostdet.errors import UserError
from ghostdet.evaluation.coco_metric import coco_evaluator
from ghostdet.models.exported_detector import is_exported
from ghostdet.utils.components import first_metainfo, iter_datasets, type_name
from ghostdet.utils.files import check_writable
from ghostdet.weights.checkpoint import read_checkpoint

_LISTED = 100  # classes in the log, at most


def test(
    cfg: Config,
    checkpoint: str | Path,
    out: str | None = None,
    show_dir: str | None = None,
    amp: bool = False,
    tta: bool = False,
    results: str | None = None,
) -> dict[str, float]:
    """Evaluate a checkpoint or an exported detector on the config's test set.

    Args:
        cfg: A config from :func:`load_config`.
        checkpoint: Path of a checkpoint trained with the same model, or of an
            ``.onnx`` or ``.xml`` file, which takes the place of the config's model.
        out: A ``.pkl`` file for the predictions, in MMDetection's format.
        show_dir: A folder for pictures with ground truth and detections.
        amp: Predict in mixed precision: fp16 on a GPU, bf16 on a CPU.
        tta: Test-time augmentation, by the config's ``tta_model`` and ``tta_pipeline``
            or by default with each image and its mirror image.
        results: Where a COCO evaluator writes the detections:
            ``{results}.bbox.json``.

    Returns:
        The metrics, such as ``coco/bbox_mAP``.

    Raises:
        UserError: If the dataset, the checkpoint or an option cannot be used, the work
            directory cannot be written, or nothing was detected.
    """
    require(cfg, "model", "test_dataloader", "test_cfg", "test_evaluator")
    check_writable(cfg.work_dir)
    if out is not None:
        if not out.endswith((".pkl", ".pickle")):
            raise UserError(f"--out is {out!r}, expected a file that ends in .pkl")
        check_writable(os.path.dirname(out) or ".", "--out")
    if show_dir is not None:
        require_detector(cfg, "--show-dir")
    if is_exported(checkpoint):
        require_detector(cfg, "an exported file")
        if tta:
            raise UserError(f"{checkpoint} has no --tta; give the checkpoint")
        if cfg.launcher != "none":
            raise UserError(f"{checkpoint} runs in one process; leave out --launcher")
        cfg.model = dict(
            type="mmdet.ExportedDetector",
            path=str(checkpoint),
            precision="bf16" if amp else "fp32",
        )
        cfg.load_from = cfg.data_preprocessor = None
        dataset_meta = {}
    else:
        state = read_checkpoint(str(checkpoint))
        dataset_meta = dataset_meta_of(cfg, checkpoint, state)
        cfg.load_from, cfg.resume = str(checkpoint), False
    if tta:
        require_detector(cfg, "--tta")
        _use_tta(cfg)
    start_processes(cfg)
    on_main_process(check_dataset, cfg.test_dataloader.dataset)
    if results is not None:
        coco_evaluator(cfg)
    if show_dir is not None:
        check_writable(show_dir, "--show-dir")
        hooks = cfg.get("default_hooks") or {}
        hook = hooks.get("visualization") or dict(type="DetVisualizationHook")
        # Absolute, since the hook joins it to the work directory.
        hook.update(draw=True, test_out_dir=os.path.abspath(show_dir))
        if type_name(hook["type"]) == "DetVisualizationHook":
            hook["type"] = "FolderVisualizationHook"
        cfg.default_hooks = {**hooks, "visualization": hook}
        cfg.visualizer = cfg.get("visualizer") or dict(type="DetLocalVisualizer")
    with config_mistakes(cfg):
        runner = build_runner(cfg, ["test_loop"], dataset_meta)
        if amp and not is_exported(checkpoint):
            model = runner.model
            while hasattr(model, "module"):  # several processes, or TTA
                model = model.module
            use_amp(model)
        if out is not None:
            runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=out))
        evaluators = runner.test_evaluator.metrics
        coco = [metric for metric in evaluators if isinstance(metric, CocoMetric)]
        for metric in coco:
            metric.outfile_prefix = results or metric.outfile_prefix
        runner.register_hook(_ClassTableHook(), priority="HIGHEST")
        metrics = runner.test()
    if not metrics and any(not metric.format_only for metric in coco):
        raise UserError(
            f"no metrics: with {checkpoint}, nothing scores above the config's "
            "score_thr in any image; train longer, or lower model.test_cfg.score_thr"
        )
    return metrics


class _ClassTableHook(Hook):
    """Log COCO's AP per class as a table, and leave the metrics as they are."""

    def before_test_epoch(self, runner: Runner) -> None:
        """Ask for the table, unless the config does."""
        metainfo = runner.test_loop.dataloader.dataset.metainfo
        classes = first_metainfo(metainfo).get("classes") or ()
        self.added: list[str] = []
        for metric in runner.test_evaluator.metrics if len(classes) <= _LISTED else ():
            if isinstance(metric, CocoMetric) and not metric.classwise:
                metric.classwise = True
                self.added += [f"{metric.prefix}/{name}_precision" for name in classes]

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Drop the table's metrics, before others log them."""
        for key in self.added:
            metrics.pop(key, None)


def _use_tta(cfg: Config) -> None:
    """Wrap the model and augment its images, as MMDetection's ``tools/test.py``."""
    mirrored = [dict(type="RandomFlip", prob=prob) for prob in (1.0, 0.0)]
    augmented = dict(
        type="TestTimeAug", transforms=[mirrored, [dict(type="PackDetInputs")]]
    )
    nms = dict(type="nms", iou_threshold=0.5)
    default = dict(type="DetTTAModel", tta_cfg=dict(nms=nms, max_per_img=100))
    cfg.model = dict(**cfg.get("tta_model", default), module=cfg.model)
    for _, dataset in iter_datasets(cfg.test_dataloader.dataset):
        own = [*dataset.pipeline[:-1], augmented]
        dataset.pipeline = cfg.get("tta_pipeline", own)
