"""The suites, and the helpers that prepare their runs."""

from __future__ import annotations

import copy
import json
import platform
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import METRICS, MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.loading import PAPER, loading, loading_config
from benchmarks.networks import TAPS, backbones, tapped
from benchmarks.synthetic import synthetic_coco, synthetic_detections
from benchmarks.timing import PEAKS, Run, matrix_products, summarize, take_turns
from ghostdet import CONFIGS, __version__
from ghostdet.checks import check_dataset
from ghostdet.config import load_config
from ghostdet.engine.hooks import CompileHook
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
PACKAGES = {"cuda": ("torch", "torchvision", "timm", "mmdet", "faster_coco_eval")}
PACKAGES["cpu"] = (
    *PACKAGES["cuda"],
    *("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"),
)
GPU = ("cuda",)
INT8 = "INT8 is calibrated on noise, since its speed does not depend on the values."
EXPORTED = "Exported forms hold padding and post-processing."
STEP = (
    "Forward and backward pass, of a backbone with a gradient of ones at each level; "
    "no optimiser."
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
    require_packages(*PACKAGES[device], extra="benchmark")
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
    torch._dynamo.config.cache_size_limit = 64  # forms of a network share code
    init_default_scope("mmdet")
    context = Context(device, threads, rounds, Path(data_root))
    tables = []
    for name in suites:
        print(f"measuring {name} ...", flush=True)
        tables.append(SUITES[name](context))
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
        times = take_turns(runs, rounds or self.rounds)
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
    versions = {name: version(name) for name in PACKAGES[context.device]}
    return dict(
        cpu=cpu,
        gpu=gpu,
        threads=context.threads,
        versions=dict(
            ghostdet=__version__, python=platform.python_version(), **versions
        ),
    )


def backbone(context: Context, size: tuple[int, int], train: bool = False) -> Table:
    """Run backbones in PyTorch and, for inference on a CPU, exported."""
    x = torch.randn(2 if train else 1, 3, *size, device=context.device)
    runs: dict[str, Run] = {}
    macs: dict[str, int] = {}
    for name, network in backbones().items():
        network.to(x.device).train(train)
        forms = {f"{name}, eager": _run(network, x)}
        if name in (OURS, TIMM):
            forms = _forms(name, network, x)
        if context.device == "cpu" and not train and name != TIMM:
            forms |= _exported(name, network, size, context)
        runs |= forms
        macs |= {} if train else dict.fromkeys(forms, _macs(network, x))
    return context.table(
        _title("Backbone", x, train),
        runs,
        f"{TIMM}, eager",
        macs,
        "All are tapped at the last block of strides 4, 8, 16 and 32. Ours has "
        "`channels_last=True`; the others get contiguous images where nothing else is "
        f"said. {STEP if train else INT8}",
        rounds=max(2, context.rounds // 2) if train else None,
    )


def detectors(context: Context, train: bool = False) -> Table:
    """Run detectors with our backbone and timm's: parts, whole, on a CPU exported."""
    from timm.models.ghostnet import _create_ghostnet

    x = torch.randn(2 if train else 1, 3, *SIZE, device=context.device)
    runs: dict[str, Run] = {}
    macs: dict[str, int] = {}
    for name, config in {"RetinaNet": PAPER, "light M": LIGHT}.items():
        model = _detector(config).to(x.device)
        count = _macs(lambda x, m=model: m.bbox_head(m.extract_feat(x)), x)
        theirs = copy.deepcopy(model)
        network = _create_ghostnet("ghostnet_100", model.backbone.widen_factor)
        theirs.backbone = tapped(network, TAPS[1:]).to(x.device).eval()
        samples = [_sample(x.device) for _ in x]
        forms: dict[str, Run] = {}
        for title, detector in {name: model, f"{name} on {TIMM}": theirs}.items():
            _let_through(detector, x)
            forms |= _forms(title, detector.train(train), x, samples)
        if not train:
            runs |= _parts(name, model, x, samples[0])
            macs |= dict.fromkeys(forms, count)
        if context.device == "cpu" and not train:
            graph = DetectionGraph(fuse_for_inference(copy.deepcopy(model))).eval()
            onnx = detector_to_onnx(graph, 32, 0)
            exported = _sessions(name, onnx, (800, 1333), context)
            forms |= exported
            macs |= dict.fromkeys(exported, count)
        runs |= forms
    return context.table(
        _title("Detector", x, train),
        runs,
        "RetinaNet, eager",
        macs,
        f"`{PAPER}` and `{LIGHT}` with random weights, their classifiers shifted "
        f"so that {CANDIDATES} candidates pass the score threshold in fp32. "
        "Our backbone has `channels_last=True`; timm's has the same width. "
        f"{STEP if train else EXPORTED}",
        rounds=max(2, context.rounds // 4),
    )


def evaluation(context: Context) -> Table:
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
        return context.table(
            "COCO evaluation, 5,000 images with 100 detections each",
            runs,
            "CocoMetric",
            note="`compute_metrics`, from predictions to the table.",
            rounds=2,
        )


SUITES: dict[str, Callable[[Context], Table]] = {
    "backbone": lambda context: backbone(context, SIZE),
    "small_backbone": lambda context: backbone(context, SMALL),
    "training": lambda context: backbone(context, SIZE, train=True),
    "detectors": detectors,
    "detector_training": lambda context: detectors(context, train=True),
    "loading": loading,
    "evaluation": evaluation,
}


def _title(what: str, x: Tensor, train: bool) -> str:
    shape = "x".join(map(str, x.shape))
    return f"{what}, {'training step' if train else 'inference'}, {shape}"


def _forms(
    name: str, network: nn.Module, x: Tensor, samples: Sequence[DetDataSample] = ()
) -> dict[str, Run]:
    """Run a network's forms in PyTorch: on a GPU each in bf16 and compiled as well."""
    gpu = x.device.type in GPU  # a CPU compiles for minutes; exported forms are for it
    forms = {"eager": network}
    if TIMM in name:  # ours is channels-last itself
        last = copy.deepcopy(network).to(memory_format=torch.channels_last)
        forms["eager, channels-last"] = last
    elif not network.training:
        forms["fused"] = fuse_for_inference(copy.deepcopy(network))
    if gpu:
        compiled = {form: _compiled(network) for form, network in forms.items()}
        forms |= {f"{form}, compiled": network for form, network in compiled.items()}
    runs = {}
    for form, network in forms.items():
        last = torch.channels_last if "last" in form else torch.contiguous_format
        images = x.contiguous(memory_format=last)
        form = form.replace("eager, c", "c") if "compiled" in form else form
        runs[f"{name}, {form}"] = _run(network, images, samples)
        if gpu or form == "fused":
            runs[f"{name}, {form}, bf16"] = _run(network, images, samples, amp=True)
    return runs


def _compiled(network: nn.Module) -> nn.Module:
    """Compile a backbone, or the parts of a detector that ``CompileHook`` compiles."""
    network = copy.deepcopy(network)
    parts = [getattr(network, name, None) for name in CompileHook().parts]
    for part in [part for part in parts if part is not None] or [network]:
        part.compile(dynamic=False)  # fast, since a table has one size
    return network


def _run(
    network: nn.Module,
    x: Tensor,
    samples: Sequence[DetDataSample] = (),
    amp: bool = False,
) -> Run:
    """Run a prediction; if the network is in training mode, forward and backward."""
    train = network.training
    arguments = (list(samples), "loss" if train else "predict") if samples else ()

    def run() -> Any:
        if train:
            network.zero_grad()
        with torch.inference_mode(not train):
            with torch.autocast(x.device.type, torch.bfloat16, enabled=amp):
                outs = network(x, *arguments)
        if train:
            outs = [network.parse_losses(outs)[0]] if samples else outs
            torch.autograd.backward(outs, [torch.ones_like(out) for out in outs])
        return outs

    return run


def _sample(device: torch.device) -> DetDataSample:
    """Make an image's annotations: seven objects, as in COCO."""
    shapes = dict(img_shape=(800, 1333), pad_shape=SIZE, batch_input_shape=SIZE)
    sample = DetDataSample(metainfo=dict(scale_factor=(1.0, 1.0), **shapes))
    corners = torch.rand(7, 2, 2, device=device).cumsum(1) * SIZE[0] / 2
    labels = torch.arange(7, device=device)
    sample.gt_instances = InstanceData(bboxes=corners.flatten(1), labels=labels)
    return sample


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
    wanted = torch.tensor(model.test_cfg.score_thr).logit()
    pattern = r"(retina|gfl)_cls\.bias"
    biases = [p for name, p in head.named_parameters() if re.fullmatch(pattern, name)]
    assert biases, f"no classifier in {type(head).__name__}"
    for bias in biases:
        bias.data += wanted - last


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
