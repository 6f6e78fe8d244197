"""GhostNet in place of the backbone of MMDetection's own configs.

python tests/integration/drop_in.py > docs/compatibility.md
"""

from pathlib import Path
from typing import NamedTuple

import mmdet
from mmengine.config import Config

CONFIGS = Path(mmdet.__file__).parent / ".mim/configs"


class Detector(NamedTuple):
    """A config of MMDetection's in which the backbone is replaced."""

    name: str
    config: str
    # GhostNet's own; None: those of the ResNet that is replaced, which count alike.
    out_indices: tuple[int, ...] | None = None
    fails: str = ""  # why it does not work, if so


DETECTORS = [
    Detector("RetinaNet", "retinanet/retinanet_r50_fpn_1x_coco.py"),
    Detector("FCOS", "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py"),
    Detector("ATSS", "atss/atss_r50_fpn_1x_coco.py"),
    Detector("GFL", "gfl/gfl_r50_fpn_1x_coco.py"),
    Detector("PAA", "paa/paa_r50_fpn_1x_coco.py"),
    Detector("FSAF", "fsaf/fsaf_r50_fpn_1x_coco.py"),
    Detector("TOOD", "tood/tood_r50_fpn_1x_coco.py"),
    Detector("VFNet", "vfnet/vfnet_r50_fpn_1x_coco.py"),
    Detector("RepPoints", "reppoints/reppoints-moment_r50_fpn_1x_coco.py"),
    Detector("YOLOX", "yolox/yolox_s_8xb8-300e_coco.py", (1, 2, 3)),
    Detector("RTMDet", "rtmdet/rtmdet_s_8xb32-300e_coco.py", (1, 2, 3)),
    Detector("CenterNet", "centernet/centernet_r18_8xb16-crop512-140e_coco.py"),
    Detector(
        "CenterNet (FPN)", "centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py"
    ),
    Detector("RPN", "rpn/rpn_r50_fpn_1x_coco.py"),
    Detector("Faster R-CNN", "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"),
    Detector("Cascade R-CNN", "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py"),
    Detector("Mask R-CNN", "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"),
    Detector("Libra R-CNN", "libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py"),
    Detector("Sparse R-CNN", "sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py"),
    Detector(
        "Deformable DETR", "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py"
    ),
    Detector("DINO", "dino/dino-4scale_r50_8xb2-12e_coco.py"),
    Detector(
        "Conditional DETR", "conditional_detr/conditional-detr_r50_8xb2-50e_coco.py"
    ),
]


def replace_backbone(detector: Detector, widen_factor: float) -> Config:
    """The config with GhostNet, and the neck told of its channels."""
    from ghostdet.models.backbones.ghostnet import level_channels

    cfg = Config.fromfile(CONFIGS / detector.config)
    resnets = cfg.model.backbone.get("out_indices", (0, 1, 2, 3))
    out_indices = detector.out_indices or tuple(resnets)
    cfg.model.backbone = dict(
        type="GhostNet", widen_factor=widen_factor, out_indices=out_indices
    )
    channels = [level_channels(widen_factor)[i] for i in out_indices]
    neck = cfg.model.neck
    neck = neck[0] if isinstance(neck, list) else neck
    single = isinstance(neck.in_channels, int)
    neck.in_channels = channels[-1] if single else channels
    return cfg


def page() -> str:
    """``docs/compatibility.md``."""
    rows = "\n".join(
        f"| {d.name} | `{d.config}` | "
        f"{', '.join(map(str, d.out_indices)) if d.out_indices else 'as they are'} | "
        f"{d.fails or 'works'} |"
        for d in DETECTORS
    )
    return f"""\
<!-- Written by: python tests/integration/drop_in.py > docs/compatibility.md -->
# GhostNet in MMDetection's detectors

GhostNet replaces the backbone in each of these configs of MMDetection 3.3.0, and the
neck gets GhostNet's channels. "Works" means that the detector builds, has finite losses
on COCO images, gives every parameter of the backbone a gradient, and predicts, all with
ghostdet's operators and without a compiler (`tests/integration/test_drop_in.py`).

```python
_base_ = __import__("mmdet").__path__[0] + "/.mim/configs/atss/atss_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["ghostdet"], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, type="GhostNet", widen_factor=1.0),
    neck=dict(in_channels=[24, 40, 112, 160]),  # GhostNet(1.0).out_channels
)
```

`out_indices` 0 to 3 are strides 4 to 32, as in ResNet. For configs without a ResNet the
table lists them. Pretrained GhostNets need ImageNet's mean and deviation in RGB
(`data_preprocessor`); configs with Caffe weights, YOLOX and RTMDet have others.

| detector | config | out_indices | |
| --- | --- | --- | --- |
{rows}
"""


if __name__ == "__main__":
    print(page(), end="")
