import pytest
import torch
from coco_dataset import IN_PROCESS
from mmdet.models.dense_heads import GFLHead
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torchvision.ops import box_iou
from unchecked import train

from ghostdet.config import load_config
from ghostdet.errors import ConfigError
from ghostdet.models import LightGFLHead, TwoPhaseGFLHead

ATSS = dict(type="ATSSAssigner", topk=9)
MAX_IOU = dict(type="MaxIoUAssigner", pos_iou_thr=0.3, neg_iou_thr=0.3)
ALIGNED = dict(type="TaskAlignedAssigner", topk=3)
COMMON = dict(allowed_border=-1, pos_weight=-1)
TWO = dict(COMMON, initial_assigner=ATSS, initial_iter=5, assigner=ALIGNED)
# The second image is padded by half: its anchors there take no part.
METAS = [
    dict(img_shape=(32, 48), pad_shape=(32, 48)),
    dict(img_shape=(32, 24), pad_shape=(32, 24)),
]


@pytest.fixture(autouse=True)
def progress(new_run):
    """A function that tells what the Runner tells."""
    new_run()
    yield MessageHub.get_current_instance().update_info_dict
    new_run()


def build(kind=TwoPhaseGFLHead, **train_cfg):
    torch.manual_seed(0)
    return kind(
        num_classes=3,
        in_channels=8,
        feat_channels=8,
        stacked_convs=1,
        norm_cfg=dict(type="BN"),
        reg_max=7,
        anchor_generator=dict(
            type="AnchorGenerator",
            ratios=[1.0],
            octave_base_scale=2,
            scales_per_octave=1,
            strides=[8, 16],
        ),
        loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True),
        loss_bbox=dict(type="GIoULoss"),
        train_cfg=ConfigDict(train_cfg),
    )


def batch():
    """Random outputs of the head for 32x48 px, and objects."""
    torch.manual_seed(1)
    scores = [torch.randn(2, 3, *size) for size in ((4, 6), (2, 3))]
    sides = [torch.randn(2, 32, *size) for size in ((4, 6), (2, 3))]
    boxes = [
        [[2, 3, 22, 19], [8, 6, 30, 28], [9, 5, 31, 30.0]],
        [[1, 2, 20, 28.0]],
    ]
    objects = [
        InstanceData(bboxes=torch.tensor(own), labels=torch.arange(len(own)))
        for own in boxes
    ]
    return [x.requires_grad_() for x in scores], sides, objects, METAS


def total(losses):
    return torch.stack([value for values in losses.values() for value in values])


@pytest.mark.parametrize("kind", [TwoPhaseGFLHead, LightGFLHead])
@pytest.mark.parametrize(
    "phases",
    [
        TWO,
        dict(TWO, initial_assigner=MAX_IOU),
        dict(COMMON, assigner=ATSS),
        dict(COMMON, assigner=MAX_IOU),
    ],
)
def test_first_phase_is_gfl_head(progress, kind, phases):
    progress(dict(iter=4, max_iters=9))
    scores, *rest = batch()
    first = phases.get("initial_assigner", phases["assigner"])
    heads = build(kind, **phases), build(GFLHead, **COMMON, assigner=first)
    ours, theirs = (total(head.loss_by_feat(scores, *rest)) for head in heads)
    assert torch.equal(ours, theirs)
    gradients = (torch.autograd.grad(x.sum(), scores) for x in (ours, theirs))
    assert all(torch.equal(*pair) for pair in zip(*gradients))


@pytest.mark.parametrize("switch", ["iter", "epoch"])
def test_second_phase_is_task_aligned(progress, switch, monkeypatch):
    """Labels and boxes are those of an assignment written out prior by prior."""
    cfg = dict(COMMON, initial_assigner=ATSS, assigner=ALIGNED, alpha=0.5, beta=3)
    head = build(**cfg, **{f"initial_{switch}": 5})
    progress({switch: 5, f"max_{switch}s": 6})
    targets = []
    get = head.get_targets
    monkeypatch.setattr(
        head, "get_targets", lambda *a, **k: targets.append(get(*a, **k)) or targets[-1]
    )
    scores, sides, objects, metas = batch()
    losses = head.loss_by_feat(scores, sides, objects, metas)
    assert total(losses).isfinite().all()
    _, labels, weights, boxes, _, count = targets[-1]
    labels, weights, boxes = (torch.cat(x, 1) for x in (labels, weights, boxes))
    positives = 0
    for image, own in enumerate(objects):
        expected = aligned(
            [x[image].detach() for x in scores],
            [x[image] for x in sides],
            own,
            metas[image]["pad_shape"][1],
            0.5,
            3,
        )
        positives += len(expected)
        for prior in range(labels.shape[1]):
            index = expected.get(prior)
            assert labels[image, prior] == (3 if index is None else own.labels[index])
            if index is not None:
                assert torch.equal(boxes[image, prior], own.bboxes[index])
    assert positives == count > 4
    assert weights.sum(1).tolist() == [30, 4 * 3 + 2 * 2]


def aligned(scores, sides, objects, width, alpha, beta):
    """Map priors to objects: the best three by score and IoU with centers inside."""
    metrics, overlaps, centers = [], [], []
    for level, stride in enumerate((8, 16)):
        _, height, columns = scores[level].shape
        for y in range(height):
            for x in range(columns):
                bins = sides[level][:, y, x].view(4, 8).softmax(1)
                left, top, right, bottom = (bins @ torch.arange(8.0)) * stride
                cx, cy = x * stride, y * stride
                box = torch.stack([cx - left, cy - top, cx + right, cy + bottom])
                iou = box_iou(box[None], objects.bboxes)[0]
                score = scores[level][objects.labels, y, x].sigmoid()
                metrics.append((score**alpha * iou**beta) * (cx < width))
                overlaps.append(iou)
                centers.append((cx, cy))
    best = {}
    for index, (x1, y1, x2, y2) in enumerate(objects.bboxes.tolist()):
        order = sorted(range(len(metrics)), key=lambda i: -metrics[i][index])
        for prior in order[: ALIGNED["topk"]]:
            x, y = centers[prior]
            if metrics[prior][index] > 0 and x1 < x < x2 and y1 < y < y2:
                rival = best.get(prior)
                if rival is None or overlaps[prior][index] > overlaps[prior][rival]:
                    best[prior] = index
    return best


def test_images_without_objects(progress):
    progress(dict(iter=5, max_iters=9))
    scores, sides, objects, metas = batch()
    losses = build(**TWO).loss_by_feat(scores, sides, [o[:0] for o in objects], metas)
    assert total(losses).isfinite().all()


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(initial_iter=9), "initial_iter is 9, but training has 9 iter.*below 9"),
        (dict(assigner=ATSS), "ATSSAssigner cannot be the assigner of TwoPhase"),
        (dict(assigner=dict(type="SimOTAAssigner")), "SimOTA.* cannot be the assigner"),
        (dict(initial_assigner=ALIGNED), "TaskAl.* cannot be the initial_assigner of"),
        (dict(initial_epoch=3), "either initial_epoch or initial_iter"),
    ],
)
def test_refuses(progress, changes, message):
    """The mistake is named in the first iteration, whatever the phase."""
    progress(dict(iter=0, max_iters=9))
    with pytest.raises(ConfigError, match=message):
        build(**TWO | changes).loss_by_feat(*batch())


def test_an_aligned_assigner_needs_two_phases():
    with pytest.raises(ConfigError, match="TaskAlignedAssigner cannot be the assigner"):
        build(**COMMON, assigner=ALIGNED).loss_by_feat(*batch())


def test_resumes_on_both_sides_of_the_switch(tmp_path, project, cells, new_run):
    def run(name, resume=None):
        new_run()
        options = {
            "model.train_cfg.initial_assigner": ATSS,
            "model.train_cfg.initial_iter": 2,
            "model.train_cfg.assigner": ALIGNED,
            "train_cfg.max_iters": 4,
            "train_cfg.val_begin": 5,
            "default_hooks.checkpoint.interval": 1,
            "default_hooks.checkpoint.max_keep_ckpts": -1,
            "train_dataloader.batch_size": 2,
            **IN_PROCESS,
        }
        path = project / "configs/light/light_s_bccd.py"
        cfg = load_config(path, tmp_path / name, cells, options)
        model = train(cfg, resume).model
        assert model.bbox_head.assigner.predictions is not None  # the second phase
        return model.state_dict()

    expected = run("straight")
    for start in (1, 3):
        resumed = run(f"from_{start}", str(tmp_path / f"straight/iter_{start}.pth"))
        assert all(torch.equal(resumed[key], expected[key]) for key in expected)
