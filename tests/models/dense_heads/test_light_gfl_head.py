import mmdet
import pytest
import torch
from mmdet.models.dense_heads import GFLHead
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import DefaultScope
from random_norms import with_random_norms
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


@pytest.mark.parametrize("stacked_convs, feat_channels", [(0, 8), (2, 12)])
def test_each_level_is_a_gfl_head(stacked_convs, feat_channels):
    """GFLHead with the tower and the 1x1 predictors of a level predicts the same."""
    torch.manual_seed(0)
    sizes = dict(stacked_convs=stacked_convs, feat_channels=feat_channels)
    head = with_random_norms(LightGFLHead(**ARGUMENTS, **sizes))
    gfl = GFLHead(**ARGUMENTS, stacked_convs=0, feat_channels=feat_channels)
    x = features(8, 8, 8)
    for level, outputs in enumerate(zip(*head(x))):
        gfl.cls_convs = gfl.reg_convs = head.towers[level]
        for name in ("gfl_cls", "gfl_reg"):
            ours, theirs = getattr(head, name)[level], getattr(gfl, name)
            nn.init.zeros_(theirs.weight)
            theirs.weight.data[..., 1:2, 1:2] = ours.weight.data
            theirs.bias.data = ours.bias.data
        expected = gfl.forward_single(x[level], gfl.scales[level])
        torch.testing.assert_close(outputs, expected)
    convs = [m for m in head.towers[0].modules() if isinstance(m, nn.Conv2d)]
    assert [m.kernel_size for m in convs] == [(5, 5), (1, 1)] * stacked_convs


def test_in_gfl_with_resnet18_and_fpn():
    """It replaces the head in MMDetection's config, and its loss falls."""
    path = f"{mmdet.__path__[0]}/.mim/configs/gfl/gfl_r50_fpn_1x_coco.py"
    cfg = Config.fromfile(path).model
    cfg.backbone.update(depth=18, init_cfg=None)
    cfg.neck.in_channels = [64, 128, 256, 512]
    cfg.bbox_head.update(type="LightGFLHead", feat_channels=64, stacked_convs=2)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(cfg)
    model.init_weights()
    data = demo_mm_inputs(2, [[3, 128, 160]] * 2, num_classes=80)
    batch = model.data_preprocessor(data, training=True)
    scores = torch.cat([x.flatten() for x in model(**batch, mode="tensor")[0]])
    torch.testing.assert_close(
        scores.sigmoid(), torch.full_like(scores, 0.01), rtol=0.5, atol=0
    )
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


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(kernel_size=4), "kernel_size is 4"),
        (
            dict(anchor_generator={**ANCHORS, "ratios": [1, 2]}),
            "makes .2, 2, 2. anc",
        ),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ConfigError, match=message):
        LightGFLHead(**{**ARGUMENTS, **arguments})
