import functools
import glob
import json
import re
import runpy
import sys
from itertools import chain
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.registry import DefaultScope
from torch import nn

from ghostdet import CONFIGS
from ghostdet.analysis import complexity, complexity_table, paper
from ghostdet.analysis.macs import _pipeline_shape
from ghostdet.config import load_config
from ghostdet.errors import UserError

DETECTOR = "retinanet_ghostnet_fpn"
PAGES = (Path(__file__).parents[2] / "docs").glob("*.md")
COMMANDS = [
    (page, command)
    for page in sorted(PAGES)
    for command in re.findall(
        r"^python (tools/complexity.py [^`]+)", page.read_text(), re.M
    )
]


def config(name, options=None):
    return load_config(f"{CONFIGS}/{name}.py", cfg_options=options)


@functools.cache
def classifier(name):
    return complexity(config(f"classification/{name}"))


def macs_by_hooks(model, run):
    """An output element of a layer takes a product for each weight leading to it."""
    counts = dict.fromkeys(("backbone", "neck", "head"), 0)

    def hook(part):
        def count(module, inputs, output):
            counts[part] += output.numel() * module.weight[0].numel()

        return count

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            part = name.partition(".")[0]
            module.register_forward_hook(hook(part if part in counts else "head"))
    with torch.no_grad():
        run()
    return counts


@pytest.mark.parametrize(
    "name, shape, padded",
    [
        ("retinanet_ghostnet_fpn", (100, 130), (128, 160)),
        ("faster_rcnn_mobilenetv3_fpn", (100, 130), (128, 160)),
        ("classification/ghostnet_digits", (40, 50), (40, 50)),
        ("classification/ghost_vgg16_cifar10", (40, 50), (40, 50)),
    ],
)
def test_against_a_count_by_hand(name, shape, padded):
    """Hooks count in a model that runs, with the most proposals there may be."""
    cfg = config(name)
    if "roi_head" in cfg.model:
        cfg.model.test_cfg.rpn.update(
            max_per_img=50, nms=dict(type="nms", iou_threshold=1)
        )
    result = complexity(cfg, shape)
    assert result["shape"] == padded
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(cfg.model).eval()
    data = dict(inputs=torch.rand(1, 3, *padded))
    if "neck" in cfg.model:
        data = model.data_preprocessor(demo_mm_inputs(1, [(3, *padded)]))
    macs = macs_by_hooks(model, lambda: model(**data, mode="tensor"))
    assert {part: result["macs"].get(part, 0) for part in macs} == macs
    assert result["macs"]["total"] == sum(macs.values())
    assert result["params"]["total"] == sum(p.numel() for p in model.parameters())


NO_DATA = {f"{part}_dataloader": None for part in ("train", "val", "test")}
SIZE = "test_dataloader.dataset.pipeline.1.size"


@pytest.mark.parametrize(
    "name, options, shape",
    [
        ("ghostnet_digits", {}, (32, 32)),
        ("resnet56_cifar10", {}, (32, 32)),  # the crop of training
        ("ghostnet_100_in1k", {"test_dataloader": None}, (224, 224)),
        ("ghostnet_digits", NO_DATA, (224, 224)),
        ("ghostnet_100_in1k", {SIZE: [96]}, (96, 96)),
        ("ghostnet_100_in1k", {SIZE: [96, 128]}, (96, 128)),
        ("../bccd/retinanet_ghostnet_small_bccd", {}, (256, 256)),
        ("../light/light_m_800_coco", {}, (800, 1333)),
    ],
)
def test_shape_of_the_pipeline(name, options, shape):
    cfg = config(f"classification/{name}", options)
    assert _pipeline_shape(cfg) == shape
    for part in "train", "val", "test":
        loader = cfg.get(f"{part}_dataloader") or {}
        if loader:
            loader.dataset = dict(type="ConcatDataset", datasets=[loader.dataset])
    assert _pipeline_shape(cfg) == shape


def test_papers_figures_of_classifiers(project):
    """The same in the configs; and ours are near, or they are known not to be."""
    known = {
        # https://github.com/huawei-noah/Efficient-AI-Backbones/issues/146 agrees.
        ("ghost_resnet50_in1k", "params"): 13.95,
        ("ghost_resnet50_in1k", "macs"): 2151,  # 2.2G, as rounded there
        ("ghost_resnet50_s4_in1k", "params"): 8.15,
        ("ghost_resnet56_cifar10", "macs"): 65.29,  # 63.2 with d=1; the paper omits d
    }
    for name, (params, macs, top1) in paper.CLASSIFIERS.items():
        path = project / f"configs/classification/{name}.py"
        assert f"the paper's top-1 {top1}" in path.read_text()
        result = classifier(name)
        for key, figure in (("params", params), ("macs", macs)):
            count = result[key]["total"] / 1e6
            own = known.get((name, key))
            assert (abs(count / figure - 1) > 0.02) == (own is not None)
            assert count == pytest.approx(own or figure, rel=0.001 if own else 0.02)


MMDET = Path(mmdet.__file__).parent / ".mim/configs"


@pytest.mark.parametrize(
    "name, kind",
    [
        ("conditional_detr/conditional-detr_r50_8xb2-50e_coco.py", "ConditionalDETR"),
        ("sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py", "SparseRCNN"),
        (
            "panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py",
            "PanopticFPN with .*semantic_",
        ),
    ],
)
def test_other_detectors(name, kind):
    with pytest.raises(UserError, match=f"has a {kind}.*are counted"):
        complexity(MMDET / name)


def test_stages_of_a_cascade():
    """Three box and three mask heads, all alike."""
    names = ("mask_rcnn/mask-rcnn", "cascade_rcnn/cascade-mask-rcnn")
    plain, cascade = (
        complexity(MMDET / f"{name}_r50_fpn_1x_coco.py", (64, 64)) for name in names
    )
    rpn = complexity(MMDET / "rpn/rpn_r50_fpn_1x_coco.py", (64, 64))["macs"]["head"]
    heads = [result["macs"]["head"] - rpn for result in (plain, cascade)]
    assert heads[1] == pytest.approx(3 * heads[0], rel=0.01)  # boxes of all classes


def test_deformable_convolutions():
    """They have the MACs of plain ones, and of what makes offsets and masks."""
    names = ("faster_rcnn/faster-rcnn_r50", "dcn/faster-rcnn_r50-dconv-c3-c5")
    names += ("dcnv2/faster-rcnn_r50-mdconv-c3-c5",)
    plain, version1, version2 = (
        complexity(MMDET / f"{name}_fpn_1x_coco.py", (64, 64))["macs"]["backbone"]
        for name in names
    )
    # 3x3 of 128, 256, 512 channels in 4, 6, 3 blocks at 8x8, 4x4, 2x2; 18 offsets
    offsets = 9 * 18 * (4 * 128 * 64 + 6 * 256 * 16 + 3 * 512 * 4)
    assert version1 == plain + offsets and version2 == plain + offsets * 27 // 18


def test_mistakes():
    with pytest.raises(UserError, match=r"shape is \(0, 9\)"):
        complexity(config(DETECTOR), (0, 9))
    with pytest.raises(UserError, match="GoatNet is not in the"):
        complexity(config(DETECTOR, {"model.backbone.type": "GoatNet"}))
    results = [complexity(config(DETECTOR), shape) for shape in ((64, 64), (96, 64))]
    with pytest.raises(UserError, match="pad images to .*64, 64.*96, 64"):
        complexity_table(results)
    results[0] = classifier("vgg16_cifar10")
    with pytest.raises(UserError, match="need two tables"):
        complexity_table(results)


def test_ablations_of_the_page(project, capsys, monkeypatch):
    """The code on the page prints its table's rows."""
    monkeypatch.chdir(project)
    page = (project / "docs/cifar10.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    exec(code, {})
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 7
    assert "\n".join(rows) in page


@pytest.mark.long
@pytest.mark.parametrize("page, command", COMMANDS, ids=lambda value: Path(value).stem)
def test_tables_of_the_docs(page, command, project, monkeypatch, capsys, tmp_path):
    """The output of each command is below it."""
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(project / "tools")
    command = command.replace("\\\n", " ").replace("$MMDET", str(MMDET))
    words = [sorted(glob.glob(word)) or [word] for word in command.split()]
    argv = [*chain.from_iterable(words), "--json", str(tmp_path / "a.json")]
    monkeypatch.setattr(sys, "argv", argv)
    runpy.run_path(argv[0], run_name="__main__")
    assert capsys.readouterr().out.strip() in page.read_text()
    assert len(json.loads((tmp_path / "a.json").read_text())) >= len(COMMANDS) == 4
