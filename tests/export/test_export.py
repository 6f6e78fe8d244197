"""From a config and a checkpoint to files that detect the same."""

import copy
import json
import logging
import sys

import numpy as np
import pytest
import torch
from coco_dataset import IN_PROCESS
from mmengine.config import Config
from torch import nn

from ghostdet import CONFIGS, __version__, runtime
from ghostdet.apis.model import build_model
from ghostdet.config import load_config
from ghostdet.errors import UserError
from ghostdet.export import convert, export_module, fuse_for_inference
from ghostdet.export import export_detector as command
from ghostdet.export.graph import DetectionGraph
from ghostdet.models import GhostNet
from ghostdet.runtime import OUTPUTS, Detector
from ghostdet.utils.components import resize_of

from .heads import assert_same, build, predicted, spread

CONFIG = f"{CONFIGS}/bccd/retinanet_ghostnet_small_bccd.py"
FEW = {"test_dataloader.dataset.indices": 4, **IN_PROCESS}


@pytest.fixture(scope="module", autouse=True)
def packages():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    pytest.importorskip("torch", minversion=convert.OLDEST)
    # A third of the exporter's time: pytest formats each record, and none is shown.
    trace = logging.getLogger("torch.__trace")
    trace.propagate = False
    yield
    trace.propagate = True


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return spread(build_model(load_config(CONFIG)).eval())


@pytest.fixture(scope="module")
def checkpoint(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "a.pth"
    torch.save(detector.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def exported(checkpoint, cells, tmp_path_factory):
    """The ONNX file, and the model as it was before it was written."""
    models = []

    def kept(*arguments):
        models.append(convert.detector_to_onnx(*arguments))
        return copy.deepcopy(models[0])

    out = tmp_path_factory.mktemp("exported") / "cells.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "detector_to_onnx", kept)
        path = command.export(load_config(CONFIG, data_root=cells), checkpoint, out=out)
    return path, models[0]


@pytest.fixture
def export(exported, checkpoint, cells, tmp_path, monkeypatch):
    """A function: the same again, without the time that PyTorch's exporter takes."""

    def run(name, change=lambda model: None, **arguments):
        model = copy.deepcopy(exported[1])
        change(model)
        monkeypatch.setattr(command, "detector_to_onnx", lambda *_: model)
        cfg = load_config(CONFIG, data_root=cells, cfg_options=FEW)
        return command.export(cfg, checkpoint, out=tmp_path / "out" / name, **arguments)

    return run


def clouds(*shape):
    torch.manual_seed(1)
    return nn.functional.interpolate(2 * torch.randn(*shape[:2], 9, 9), shape[2:])


def test_files(exported):
    path, _ = exported
    meta = json.loads(path.with_suffix(".json").read_text())
    assert meta.pop("sha256")
    assert meta == {
        "format_version": runtime.FORMAT_VERSION,
        "ghostdet": __version__,
        "config": "retinanet_ghostnet_small_bccd",
        "classes": ["RBC", "WBC", "Platelets"],
        "resize": {"scale": [256, 256], "keep_ratio": False},
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "to_rgb": True,
        "precision": "fp32",
    }
    names = {file.name for file in path.parent.iterdir()}
    assert names == {"cells.onnx", "cells.json", "ghostdet_runtime.py"}
    assert b"site-packages" not in path.read_bytes()  # places on this machine


@pytest.mark.parametrize(
    "shape", [(1, 3, 256, 256), (3, 3, 97, 201), (2, 3, 1, 300), (1, 3, 77, 1)]
)
def test_batches_and_sizes(exported, detector, shape):
    images = clouds(*shape)
    outputs = Detector(exported[0]).infer(images.numpy())
    assert [output.dtype for output in outputs] == [np.float32, np.float32, np.int64]
    assert assert_same(outputs, predicted(detector, images)) > 0


def test_openvino(export, detector, capsys):
    pytest.importorskip("openvino")
    path = export("cells.xml", format="openvino")
    printed = capsys.readouterr().out
    assert "against PyTorch on 1x3x256x256, 2x3x171x171: " in printed
    assert f"  python {path.parent / 'ghostdet_runtime.py'} {path} IMAGE" in printed
    runs = Detector(path)
    for shape in [(2, 3, 100, 130), (1, 3, 1, 300), (2, 3, 256, 256)]:
        images = clouds(*shape)
        assert assert_same(runs.infer(images.numpy()), predicted(detector, images)) > 0
    names = {file.name for file in path.parent.iterdir()}
    assert names == {"cells.xml", "cells.bin", "cells.json", "ghostdet_runtime.py"}


@pytest.mark.parametrize(
    "format, suffix",
    [("onnx", ".onnx"), pytest.param("openvino", ".xml", marks=pytest.mark.long)],
)
def test_int8(export, exported, capsys, format, suffix):
    pytest.importorskip("nncf")
    pytest.importorskip(format)
    path = export(f"a{suffix}", format=format, int8=True, calibration_images=3)
    assert "coco/bbox_mAP: " in (out := capsys.readouterr().out)
    assert " in fp32, " in out and "in INT8" in out
    assert json.loads(path.with_suffix(".json").read_text())["precision"] == "int8"
    weights = path if format == "onnx" else path.with_suffix(".bin")
    assert weights.stat().st_size < 0.7 * exported[0].stat().st_size
    outputs = Detector(path).infer(clouds(2, 3, 200, 170).numpy())
    assert outputs[1].max() > 0.05
    if format == "openvino":
        nodes = runtime.openvino_core().read_model(path).get_ordered_ops()
        after = [n for n in nodes if convert.POSTPROCESSING in n.get_friendly_name()]
        fed = [i.get_source_output().get_node() for n in after for i in n.inputs()]
        kinds = {node.get_type_name() for node in fed}
        assert "TopK" in kinds and "FakeQuantize" not in kinds
        assert any(node.get_type_name() == "FakeQuantize" for node in nodes)
    else:
        import onnx

        graph = onnx.load(path).graph
        made = {name: node for node in graph.node for name in node.output}
        after = [
            n
            for n in graph.node
            if n.name.startswith(convert.POSTPROCESSING) and n.op_type != "Shape"
        ]
        fed = [made[name].op_type for n in after for name in n.input if name in made]
        assert "TopK" in fed and "DequantizeLinear" not in fed


@pytest.mark.long
def test_two_stages(tmp_path):
    detector = build("FasterRCNN")
    graph = DetectionGraph(fuse_for_inference(copy.deepcopy(detector)))
    model = convert.detector_to_onnx(graph.eval(), 32, 0)
    onnxruntime = pytest.importorskip("onnxruntime")
    openvino = pytest.importorskip("openvino")
    convert.save(model, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    fp32 = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.compile_model(convert.to_openvino(model), "CPU", fp32)
    runs = (
        lambda images: session.run(OUTPUTS, {"image": images}),
        lambda images: [compiled(images)[name] for name in OUTPUTS],
    )
    for shape in [(2, 3, 150, 200), (1, 3, 64, 300), (1, 3, 1, 90)]:
        images = clouds(*shape)
        expected = predicted(detector, images)
        for run in runs:
            found = assert_same(run(images.numpy()), expected)
        assert found > 10 or shape[2] == 1


def test_what_detects_something_else_is_not_left(export, tmp_path):
    def change(model):
        for tensor in model.graph.initializer:
            if tensor.name == "detector.bbox_head.retina_reg.weight":
                values = 1.1 * np.frombuffer(tensor.raw_data, np.float32)
                tensor.raw_data = values.astype(np.float32).tobytes()

    with pytest.raises(UserError, match="does not detect the same, so nothing was"):
        export("a.onnx", change)
    assert not list((tmp_path / "out").iterdir())


def test_interrupted(export, tmp_path, monkeypatch):
    def interrupted(model, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export("a.onnx")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("a.xml", {}, r"ends in \.onnx for --format onnx"),
        ("b.onnx", {}, r"b\.xml exists, and its \.json file would be overwritten"),
        ("a.onnx", dict(int8=True, calibration_images=0), "expected 1 or more"),
        ("c.onnx", {}, r"c\.json exists and does not belong to an export"),
    ],
)
def test_arguments(export, tmp_path, name, arguments, message):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/c.json").write_text('{"images": []}')
    (tmp_path / "out/b.xml").touch()
    with pytest.raises(UserError, match=message):
        export(name, **arguments)


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        UserError, match=r"onnxscript.*pip install 'ghostdet\[export\]'"
    ):
        command.export(CONFIG, "a.pth")


RESIZE = dict(type="Resize", scale=(1333, 800), keep_ratio=True)


@pytest.mark.parametrize(
    "steps, expected",
    [
        ([], None),
        ([dict(type="Resize", scale_factor=1.0)], None),
        ([RESIZE], {"scale": [1333, 800], "keep_ratio": True}),
        (
            [dict(type="mmdet.Resize", scale=64)],
            {"scale": [64, 64], "keep_ratio": False},
        ),
        ([RESIZE, dict(type="Pad", size_divisor=32)], "'Pad'"),
        ([RESIZE, RESIZE], "cannot do"),
        ([dict(type="Resize", scale_factor=0.5)], "'scale_factor': 0.5"),
        ([dict(RESIZE, interpolation="area")], "'area'"),
        ([dict(type="LoadImageFromFile", color_type="grayscale")], "grayscale"),
        ([dict(type="LoadImageFromFile", to_float32=True)], "to_float32"),
        ([dict(type="LoadImageFromFile", imdecode_backend="pillow")], "pillow"),
        ([dict(type="TestTimeAug", transforms=[])], "TestTimeAug"),
    ],
)
def test_pipelines(steps, expected):
    pipeline = [dict(type="LoadImageFromFile"), *steps, dict(type="PackDetInputs")]
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            resize_of(cfg)
    else:
        assert resize_of(cfg) == expected


def test_module(tmp_path):
    backbone = fuse_for_inference(GhostNet(0.5, out_indices=(1, 3)).eval())
    path = export_module(backbone, tmp_path / "new/backbone.onnx", ["c3", "c5"])
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    for shape in [(1, 3, 97, 64), (3, 3, 33, 200)]:
        images = torch.randn(shape)
        outputs = session.run(["c3", "c5"], {"image": images.numpy()})
        with torch.no_grad():
            for output, expected in zip(outputs, backbone(images), strict=True):
                torch.testing.assert_close(torch.tensor(output), expected)


class Unsupported(nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x)


class LandscapeOnly(nn.Module):
    def forward(self, x):
        return -x if x.shape[2] > x.shape[3] else 2 * x


class ByValue(nn.Module):
    def forward(self, x):
        return -x if x.sum() > 0 else x


@pytest.mark.parametrize(
    "module, name, message",
    [
        (Unsupported().eval(), "a.onnx", "Unsupported holds an operator.*svd"),
        (LandscapeOnly().eval(), "a.onnx", "LandscapeOnly .*on 1x3x160x96 the exp"),
        (ByValue().eval(), "a.onnx", "ByValue cannot be traced"),
        (nn.ReLU(), "a.onnx", "in training mode"),
        (nn.ReLU().eval(), "a.tflite", r"ends in \.onnx or \.xml"),
        (nn.ReLU().eval(), "file/a.onnx", "cannot be written.*--out"),
    ],
)
def test_modules_that_cannot_be_exported(tmp_path, module, name, message):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message):
        export_module(module, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
