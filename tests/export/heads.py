"""Small detectors of every kind that can be exported, with scores that spread."""

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from torch import nn

from ghostdet import CONFIGS
from ghostdet.apis.model import build_model

NMS = dict(type="nms", iou_threshold=0.6)
TEST_CFG = dict(nms_pre=150, min_bbox_size=0, score_thr=0.3, nms=NMS, max_per_img=50)
BASE = dict(num_classes=3, in_channels=32, feat_channels=32, stacked_convs=1)
ANCHORS = dict(
    type="AnchorGenerator",
    ratios=[1.0],
    octave_base_scale=8,
    scales_per_octave=1,
    strides=[8, 16, 32],
)
DELTAS = dict(type="DeltaXYWHBBoxCoder", target_stds=[0.1, 0.1, 0.2, 0.2])
DISTANCES = dict(type="DistancePointBBoxCoder")
BCE = dict(type="CrossEntropyLoss", use_sigmoid=True)
FOCAL = dict(type="FocalLoss", use_sigmoid=True)
QFL = dict(type="QualityFocalLoss", use_sigmoid=True)
GIOU = dict(type="GIoULoss")
RETINA_ANCHORS = {**ANCHORS, "ratios": [0.5, 1.0, 2.0], "scales_per_octave": 2}

HEADS = {
    "RetinaNet": dict(
        BASE, type="RetinaHead", anchor_generator=RETINA_ANCHORS, bbox_coder=DELTAS
    ),
    "ATSS": dict(
        BASE,
        type="ATSSHead",
        anchor_generator=ANCHORS,
        bbox_coder=DELTAS,
        loss_cls=FOCAL,
        loss_bbox=GIOU,
        loss_centerness=BCE,
    ),
    "FCOS": dict(BASE, type="FCOSHead", strides=[8, 16, 32], norm_on_bbox=True),
    "GFL": dict(
        BASE,
        type="GFLHead",
        anchor_generator=ANCHORS,
        bbox_coder=DISTANCES,
        loss_cls=QFL,
        loss_bbox=GIOU,
        loss_dfl=dict(type="DistributionFocalLoss"),
        reg_max=7,
    ),
    "GFL, light": dict(
        BASE,
        type="LightGFLHead",
        anchor_generator=ANCHORS,
        loss_cls=QFL,
        loss_bbox=GIOU,
        reg_max=7,
    ),
    "RTMDet": dict(
        BASE,
        type="RTMDetSepBNHead",
        anchor_generator=dict(type="MlvlPointGenerator", offset=0, strides=[8, 16, 32]),
        bbox_coder=DISTANCES,
        loss_cls=QFL,
        loss_bbox=GIOU,
        with_objectness=False,
        exp_on_reg=True,
    ),
    "RetinaNet, softmax": dict(
        BASE,
        type="RetinaHead",
        anchor_generator=RETINA_ANCHORS,
        bbox_coder=DELTAS,
        loss_cls=dict(type="CrossEntropyLoss"),
    ),
}


def build(kind: str, **changes) -> nn.Module:
    """A detector in evaluation mode; ``changes`` are of its ``test_cfg``."""
    if kind == "FasterRCNN":
        cfg = Config.fromfile(f"{CONFIGS}/_base_/models/faster_rcnn_ghostnet_fpn.py")
        cfg.merge_from_dict(
            {
                "model.backbone.widen_factor": 0.5,
                "model.neck": dict(widen_factor=0.5, out_channels=32, num_outs=4),
                "model.rpn_head.in_channels": 32,
                "model.rpn_head.anchor_generator.strides": [8, 16, 32, 64],
                "model.roi_head.bbox_roi_extractor.out_channels": 32,
                "model.roi_head.bbox_roi_extractor.finest_scale": 28,
                "model.roi_head.bbox_head": dict(
                    in_channels=32, fc_out_channels=64, num_classes=3
                ),
                "model.test_cfg.rpn": dict(nms_pre=100, max_per_img=60),
                "model.test_cfg.rcnn": {"score_thr": 0.3, "max_per_img": 50, **changes},
            }
        )
        cfg = cfg.model
    else:
        cfg = ConfigDict(
            type=kind.partition(",")[0],
            data_preprocessor=dict(type="DetDataPreprocessor", pad_size_divisor=32),
            backbone=dict(type="GhostNet", widen_factor=0.5, out_indices=(1, 2, 3)),
            neck=dict(
                type="GhostNetFPN", widen_factor=0.5, out_channels=32, num_outs=3
            ),
            bbox_head=HEADS[kind],
            test_cfg={**TEST_CFG, **changes},
        )
    torch.manual_seed(0)
    return spread(build_model(Config(dict(model=cfg))).eval())


def spread(model: nn.Module) -> nn.Module:
    """Give a detector random weights whose scores lie far apart."""
    torch.manual_seed(0)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        elif isinstance(module, (nn.Conv2d, nn.Linear)) and "head" in name:
            std = (2 if "cls" in name or "fc" in name else 0.7) / module.weight[
                0
            ].numel() ** 0.5
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias) if module.bias is not None else None
    return model


def padded(images: torch.Tensor) -> torch.Tensor:
    """Add rows and columns up to multiples of 32."""
    height, width = (-side % 32 for side in images.shape[-2:])
    return nn.functional.pad(images, (0, width, 0, height))


def predicted(model: nn.Module, images: torch.Tensor) -> list:
    """What MMDetection finds, one image after another: boxes, scores and labels."""
    shape = tuple(images.shape[-2:])
    found = []
    for image in padded(images):
        sample = DetDataSample(metainfo=dict(img_shape=shape, scale_factor=(1, 1)))
        with torch.no_grad():
            (sample,) = model.predict(image[None], [sample], rescale=False)
        instances = sample.pred_instances
        found.append((instances.bboxes, instances.scores, instances.labels))
    return found


def assert_same(outputs, expected) -> int:
    """Compare outputs of a batch; the order of almost equal scores does not count.

    Returns the number of detections.
    """
    for index, (boxes, scores, labels) in enumerate(expected):
        other = [torch.as_tensor(output[index]) for output in outputs]
        assert (other[1].diff() <= 0).all()
        other = [output[other[1] > 0] for output in other]
        assert len(other[1]) == len(scores)
        same = (
            ((other[0][:, None] - boxes).abs() < 1e-2).all(-1)
            & ((other[1][:, None] - scores).abs() < 1e-4)
            & (other[2][:, None] == labels)
        )
        assert same.any(0).all() and same.any(1).all()
    return sum(len(scores) for _, scores, _ in expected)
