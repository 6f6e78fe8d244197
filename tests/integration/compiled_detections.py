"""Detections of the paper's configs, for a comparison of operators.

python compiled_detections.py IMAGES OUT
"""

import sys
from pathlib import Path

import torch

# isort: off
import ghostdet  # noqa: F401  (before anything of mmdet)
from mmdet.apis import inference_detector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
# isort: on

CONFIGS = Path(__file__).parents[2] / "configs"


def detections(images: str) -> dict[str, list[torch.Tensor]]:
    """Boxes, scores and labels by config and image, with random weights."""
    found = {}
    for name in ("retinanet", "faster_rcnn"):
        cfg = Config.fromfile(CONFIGS / f"{name}_ghostnet_fpn.py")
        init_default_scope("mmdet")
        cfg.test_dataloader.dataset.pipeline[1].scale = (667, 400)
        cfg.model.test_cfg.get("rcnn", cfg.model.test_cfg).score_thr = 0.0
        cfg.model.backbone.init_cfg = None
        torch.manual_seed(0)
        model = MODELS.build(cfg.model).eval()
        model.init_weights()  # without it scores saturate, and MMCV reorders ties
        model.cfg = cfg
        with torch.no_grad():
            for parameter in model.parameters():  # fresh ones give equal scores
                parameter += torch.randn_like(parameter) * 0.02
        for image in sorted(Path(images).glob("*.jpg"))[:6]:
            result = inference_detector(model, str(image)).pred_instances
            found[f"{name} {image.name}"] = [
                result.bboxes,
                result.scores,
                result.labels,
            ]
    return found


if __name__ == "__main__":
    # As in the tests: sums of other threads differ in the last bit, and near ties swap.
    torch.set_num_threads(1)
    torch.save(detections(sys.argv[1]), sys.argv[2])
