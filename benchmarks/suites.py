"""The suites, and the helpers that prepare their runs."""

from __future__ import annotations

import copy
import json
import platform
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import METRICS, MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.loading import PAPER, loading, loading_config
from benchmarks.networks import backbones
from benchmarks.synthetic import synthetic_coco, synthetic_detections
from benchmarks.timing import PEAKS, Run, matrix_products, summarize, take_turns
from ghostdet import CONFIGS, __version__
from ghostdet.checks import check_dataset
from ghostdet.config import load_config
from ghostdet.errors import UserError
from ghostdet.export import fuse_for_inference
from ghostdet.export.convert import (
    detector_to_onnx,
    require_packages,
    to_onnx,
    to_openvino,
)
from ghostdet.export.graph import DetectionGraph
from ghostdet.export.quantize import quantize
from ghostdet.runtime import openvino_core

SIZE = (800, 1344)  # of the paper's detectors, padded
SMALL = (320, 320)
CANDIDATES = 1000
LIGHT = "light/light_m_800_coco.py"
OURS, TIMM = "GhostNet 1.0x", "timm ghostnet_100"
PACKAGES = (
    *("torch", "torchvision", "timm", "mmdet", "onnxruntime", "openvino", "nncf"),
    "faster_coco_eval",
)

Table = dict[str, Any]


def benchmark(
    suites: Sequence[str],
    device: str = "cpu",
    threads: int | None = None,
    rounds: int = 20,
    data_root: str | Path = "data/coco",
) -> dict[str, Any]:
    """Run suites.

    Args:
        suites: Keys of :data:`SUITES`.
        device: ``cpu`` or ``cuda``.
        threads: Threads of PyTorch, OpenVINO and ONNX Runtime; all cores by default.
        rounds: How often each run is timed.
        data_root: COCO, for ``loading``.

    Returns:
        ``machine`` and ``tables``, for JSON and :func:`~benchmarks.render`.

    Raises:
        UserError: If a package, the data or the device is missing.
    """
    require_packages(*PACKAGES, "onnx", "onnxscript", extra="benchmark")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is cuda, and torch finds no GPU; leave it out")
    if rounds < 2:
        raise UserError(f"rounds is {rounds}, expected 2 or more")
    threads = torch.get_num_threads() if threads is None else threads
    if threads < 1:
        raise UserError(f"threads is {threads}, expected 1 or more")
    if "loading" in suites:  # before the others take their time
        check_dataset(loading_config(Path(data_root)).train_dataloader.dataset)
    torch.set_num_threads(threads)
    init_default_scope("mmdet")
    context = Context(device, threads, rounds, Path(data_root))
    tables = []
    for name in suites:
        print(f"measuring {name} ...", flush=True)
        tables += SUITES[name](context)
    return dict(machine=machine(context), tables=tables)


@dataclass
class Context:
    """The arguments of :func:`benchmark` that suites need."""

    device: str
    threads: int
    rounds: int
    data_root: Path

    def table(
        self,
        title: str,
        runs: dict[str, Run],
        against: str,
        macs: dict[str, int] | None = None,
        note: str = "",
        rounds: int | None = None,
    ) -> Table:
        """Time ``runs`` and summarize them."""
        if macs:
            runs = {**runs, **matrix_products(self.device)}
        times = take_turns(runs, rounds or self.rounds, self.device)
        rows = summarize(times, against, macs)
        return dict(title=title, note=note, against=against, rows=rows)


def machine(context: Context) -> dict[str, Any]:
    """Describe the machine and the versions."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text().splitlines()
        cpu = next((x.split(": ")[1] for x in lines if x.startswith("model name")), cpu)
        flags = next((x for x in lines if x.startswith("flags")), "").split()
        known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
        cpu += f" ({', '.join(flag for flag in known if flag in flags)})"
    gpu = torch.cuda.get_device_name() if context.device == "cuda" else None
    versions = {name: version(name) for name in PACKAGES}
    return dict(
        cpu=cpu,
        gpu=gpu,
        threads=context.threads,
        versions=dict(
            ghostdet=__version__, python=platform.python_version(), **versions
        ),
    )


def backbone(context: Context, size: tuple[int, int] = SIZE) -> list[Table]:
    """Run backbones on one image: in PyTorch, fused and exported."""
    device = context.device
    x = torch.randn(1, 3, *size, device=device)
    runs: dict[str, Run] = {}
    macs: dict[str, int] = {}
    for name, network in backbones().items():
        network.to(device).eval()
        count = _macs(network, x)
        forms = {f"{name}, eager": _inference(network, x)}
        if name == OURS:
            fused = fuse_for_inference(copy.deepcopy(network))
            forms[f"{name}, fused"] = _inference(fused, x)
            forms[f"{name}, fused, bf16"] = _inference(fused, x, amp=True)
        if name == TIMM:
            last = x.contiguous(memory_format=torch.channels_last)
            forms[f"{name}, eager, channels-last"] = _inference(network, last)
        if device == "cpu" and name != TIMM:
            forms |= _exported(name, network, size, context)
        runs |= forms
        macs |= dict.fromkeys(forms, count)
    height, width = size
    return [
        context.table(
            f"Backbone, inference, 1x3x{height}x{width}",
            runs,
            f"{TIMM}, eager",
            macs,
            "All are tapped at the last block of strides 4, 8, 16 and 32. Eager runs "
            "get contiguous images; ours has `channels_last=True`. INT8 is "
            "calibrated on noise, since its speed does not depend on the values.",
        )
    ]


def small_backbone(context: Context) -> list[Table]:
    """Run backbones on one image of 320x320."""
    return backbone(context, SMALL)


def training(context: Context) -> list[Table]:
    """Run the forward and backward pass of backbones."""
    x = torch.randn(2, 3, *SIZE, device=context.device)
    last = x.contiguous(memory_format=torch.channels_last)
    networks = backbones()
    for network in networks.values():
        network.to(context.device).train()
    runs = {f"{name}, eager": _step(net, x) for name, net in networks.items()}
    runs[f"{TIMM}, eager, channels-last"] = _step(networks[TIMM], last)
    return [
        context.table(
            "Backbone, training step, 2x3x{}x{}".format(*SIZE),
            runs,
            f"{TIMM}, eager",
            note="Forward and backward pass with a gradient of ones at each level; "
            "no optimiser.",
            rounds=max(2, context.rounds // 2),
        )
    ]


def detectors(context: Context) -> list[Table]:
    """Run detectors at 800x1333, part by part."""
    device = context.device
    runs: dict[str, Run] = {}
    macs: dict[str, int] = {}
    for name, config in {"RetinaNet": PAPER, "light M": LIGHT}.items():
        model = _detector(config).to(device)
        x = torch.randn(1, 3, *SIZE, device=device)
        sample = DetDataSample(
            metainfo=dict(img_shape=(800, 1333), scale_factor=(1.0, 1.0))
        )
        count = _macs(lambda x, m=model: m.bbox_head(m.extract_feat(x)), x)
        _let_through(model, x)
        forms = {f"{name}, eager": _detection(model, x, sample)}
        runs |= _parts(name, model, x, sample)
        fused = fuse_for_inference(copy.deepcopy(model))
        forms[f"{name}, fused"] = _detection(fused, x, sample)
        forms[f"{name}, fused, bf16"] = _detection(fused, x, sample, amp=True)
        if device == "cpu":
            graph = DetectionGraph(copy.deepcopy(fused)).eval()
            onnx = detector_to_onnx(graph, 32, 0)
            forms |= _sessions(name, onnx, (800, 1333), context)
        runs |= forms
        macs |= dict.fromkeys(forms, count)
    return [
        context.table(
            "Detector, one image of 800x1333",
            runs,
            "RetinaNet, eager",
            macs,
            f"`{PAPER}` and `{LIGHT}` with random weights, their classifiers shifted "
            f"so that {CANDIDATES} candidates pass the score threshold in fp32. "
            "Both have `channels_last=True`. Exported forms hold padding and "
            "post-processing.",
            rounds=max(2, context.rounds // 4),
        )
    ]


def evaluation(context: Context) -> list[Table]:
    """Compute COCO's metrics for 5,000 images with 100 detections each."""
    coco = synthetic_coco()
    samples = synthetic_detections(coco)
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "annotations.json")
        file.write_text(json.dumps(coco))
        for kind in ("CocoMetric", "FastCocoMetric"):
            metric = METRICS.build(dict(type=kind, ann_file=str(file), metric="bbox"))
            names = tuple(c["name"] for c in coco["categories"])
            metric.dataset_meta = dict(classes=names)
            metric.process({}, samples)
            results = metric.results
            runs[kind] = lambda m=metric, r=results: m.compute_metrics(r)
        return [
            context.table(
                "COCO evaluation, 5,000 images with 100 detections each",
                runs,
                "CocoMetric",
                note="`compute_metrics`, from predictions to the table.",
                rounds=2,
            )
        ]


SUITES: dict[str, Callable[[Context], list[Table]]] = {
    "backbone": backbone,
    "small_backbone": small_backbone,
    "training": training,
    "detectors": detectors,
    "loading": loading,
    "evaluation": evaluation,
}


def _inference(network: nn.Module, x: Tensor, amp: bool = False) -> Run:
    @torch.inference_mode()
    def run() -> Any:
        with _precision(x, amp):
            return network(x)

    return run


def _precision(x: Tensor, amp: bool) -> Any:
    return torch.autocast(x.device.type, torch.bfloat16) if amp else nullcontext()


def _step(network: nn.Module, x: Tensor) -> Run:
    def run() -> None:
        network.zero_grad()
        outs = network(x)
        torch.autograd.backward(outs, [torch.ones_like(out) for out in outs])

    return run


def _detector(config: str) -> nn.Module:
    cfg = load_config(f"{CONFIGS}/{config}").model
    cfg.backbone.update(init_cfg=None, channels_last=True)
    torch.manual_seed(0)
    return MODELS.build(cfg).eval()


def _let_through(model: nn.Module, x: Tensor) -> None:
    """Shift the classifier so that ``CANDIDATES`` pass the score threshold."""
    head = model.bbox_head
    with torch.inference_mode():
        scores = head(model.extract_feat(x))[0]
    last = torch.cat([s.flatten() for s in scores]).topk(CANDIDATES).values[-1]
    classifier = next(
        head.get_submodule(name)
        for name in ("retina_cls", "gfl_cls")
        if hasattr(head, name)
    )
    wanted = torch.tensor(model.test_cfg.score_thr).logit()
    classifier.bias.data += wanted - last


def _detection(
    model: nn.Module, x: Tensor, sample: DetDataSample, amp: bool = False
) -> Run:
    @torch.inference_mode()
    def run() -> Any:
        with _precision(x, amp):
            return model.predict(x, [copy.copy(sample)])

    return run


def _parts(
    name: str, model: nn.Module, x: Tensor, sample: DetDataSample
) -> dict[str, Run]:
    """Run the parts of a detector, each on the output of the one before."""
    metas = [sample.metainfo]
    with torch.inference_mode():
        features = model.backbone(x)
        pyramid = model.neck(features)
        maps = model.bbox_head(pyramid)
    parts: dict[str, Run] = {
        "backbone": lambda: model.backbone(x),
        "neck": lambda: model.neck(features),
        "head": lambda: model.bbox_head(pyramid),
        "post-processing": lambda: model.bbox_head.predict_by_feat(
            *maps, batch_img_metas=metas, rescale=True
        ),
    }
    return {
        f"{name}, eager: {part}": torch.inference_mode()(run)
        for part, run in parts.items()
    }


def _exported(
    name: str, network: nn.Module, size: tuple[int, int], context: Context
) -> dict[str, Run]:
    axes = {
        0: torch.export.Dim("n"),
        2: torch.export.Dim.AUTO,
        3: torch.export.Dim.AUTO,
    }
    network = fuse_for_inference(copy.deepcopy(network))
    model = to_onnx(network, (torch.rand(2, 3, 96, 128),), (axes,), ["image"], None)
    return _sessions(name, model, size, context)


def _sessions(
    name: str, model: Any, size: tuple[int, int], context: Context
) -> dict[str, Run]:
    """Run exported forms, compiled for one image of one size."""
    import onnxruntime

    x = np.random.default_rng(0).standard_normal((1, 3, *size), np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = context.threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    runs: dict[str, Run] = {
        f"{name}, ONNX Runtime": lambda: session.run(None, {"image": x})
    }
    graphs = {
        **{precision: to_openvino(model) for precision in PEAKS},
        "INT8": quantize(model, [x], openvino=True),
    }
    hints = {"fp32": "f32", "bf16": "bf16", "INT8": "f32"}
    for precision, graph in graphs.items():
        graph.reshape({"image": x.shape})
        compiled = openvino_core().compile_model(
            graph,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": hints[precision],
                "INFERENCE_NUM_THREADS": context.threads,
            },
        )
        runs[f"{name}, OpenVINO, {precision}"] = lambda c=compiled: c(
            {"image": x}, share_inputs=True, share_outputs=True
        )
    return runs


def _macs(run: Callable[[Tensor], Any], x: Tensor) -> int:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        run(x)
    return counter.get_total_flops() // 2
