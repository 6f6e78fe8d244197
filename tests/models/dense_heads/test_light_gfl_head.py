import mmdet
import pytest
import torch
from mmdet.models.dense_heads import GFLHead
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from ghostdet.errors import ConfigError
from ghostdet.models import LightGFLHead

ANCHORS = dict(
    type="AnchorGenerator",
    ratios=[1.0],
    octave_base_scale=5,
    scales_per_octave=1,
    strides=[8, 16, 32],
)
ARGUMENTS = dict(
    num_classes=3,
    in_channels=8,
    reg_max=7,
    anchor_generator=ANCHORS,
    loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True),
    loss_bbox=dict(type="GIoULoss"),
)


def features(*channels):
    return [torch.randn(2, c, 2**i, 2**i + 1) for i, c in enumerate(channels)]


def test_equals_gfl_head_of_a_lower_rank():
    """The product of a predictor's two layers is one 3x3 convolution."""
    torch.manual_seed(0)
    head = LightGFLHead(**ARGUMENTS, feat_channels=5)
    gfl = GFLHead(**ARGUMENTS, stacked_convs=0, feat_channels=8)
    for level, scale in enumerate(head.scales):
        nn.init.constant_(scale.scale, 1 + level)
    gfl.scales = head.scales
    weight = head.shared_conv.weight.flatten(1)
    for name in ("gfl_cls", "gfl_reg"):
        narrow, wide = getattr(head, name), getattr(gfl, name)
        wide.weight.data = (narrow.weight[..., 0, 0] @ weight).view_as(wide.weight)
        wide.bias = narrow.bias
    x = features(8, 8, 8)
    torch.testing.assert_close(head(x), gfl(x))


@pytest.mark.parametrize(
    "options", [{}, dict(feat_channels=32, stacked_convs=0)], ids=["towers", "light"]
)
def test_in_gfl_with_resnet18_and_fpn(options):
    """It replaces the head in MMDetection's config, and its loss falls."""
    path = f"{mmdet.__path__[0]}/.mim/configs/gfl/gfl_r50_fpn_1x_coco.py"
    cfg = Config.fromfile(path).model
    cfg.backbone.update(depth=18, init_cfg=None)
    cfg.neck.in_channels = [64, 128, 256, 512]
    cfg.bbox_head.update(type="LightGFLHead", **options)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(cfg)
    model.init_weights()
    data = demo_mm_inputs(2, [[3, 128, 160]] * 2, num_classes=80)
    batch = model.data_preprocessor(data, training=True)
    logits = torch.cat([x.flatten() for x in model(**batch, mode="tensor")[0]])
    assert logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.2)
    model.parse_losses(model(**batch, mode="loss"))[0].backward()
    assert all(p.grad is not None for p in model.bbox_head.parameters())
    with torch.no_grad():
        x = model.extract_feat(batch["inputs"])
    optimizer = torch.optim.AdamW(model.bbox_head.parameters(), 2e-3)
    losses = []
    for _ in range(20):
        found = model.bbox_head.loss(x, batch["data_samples"])
        loss, _ = model.parse_losses(found)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    model.eval()
    (sample, _) = model(**model.data_preprocessor(data, training=False), mode="predict")
    assert sample.pred_instances.bboxes.isfinite().all()


@pytest.mark.parametrize("channels", [(8, 8), (8, 8, 8, 8), (8, 8, 9)])
def test_refuses_other_inputs(channels):
    message = rf"expects 3 levels with 8 .*received {len(channels)} with .*; let anch"
    with pytest.raises(ConfigError, match=message):
        LightGFLHead(**ARGUMENTS)(features(*channels))
