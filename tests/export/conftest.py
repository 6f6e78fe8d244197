"""A small detector in the files that an export writes."""

import json
import shutil

import pytest

from ghostdet import __version__, runtime

# Scores and labels say what the three channels hold, boxes how large the image is. The
# last row is empty.
GRAPH = """
<ir_version: 8, opset_import: ["": 17]>
detector (float[N, 3, H, W] image)
    => (float[N, K, 4] boxes, float[N, K] scores, int64[N, K] labels)
<
    float[1, 4, 4] parts = {0.0, 0.0, 1.0, 1.0, 0.125, 0.25, 0.5, 0.625,
                            0.25, 0.25, 0.75, 1.0, 0.0, 0.0, 0.0, 0.0},
    int64[1] three = {3}, int64[1] four = {4},
    int64[4] order = {1, 0, 1, 0}, int64[4] pads = {0, 0, 0, 1}
> {
    means = ReduceMean <axes = [2, 3], keepdims = 0> (image)
    levels = Sigmoid (means)
    some, few = TopK <axis = 1> (levels, three)
    scores = Pad (some, pads)
    labels = Pad (few, pads)
    shape = Shape (image)
    number = Shape <start = 0, end = 1> (image)
    size = Shape <start = 2, end = 4> (image)
    float_size = Cast <to = 1> (size)
    sides = Gather (float_size, order)
    one = Mul (parts, sides)
    repeated = Concat <axis = 0> (number, four, four)
    boxes = Expand (one, repeated)
}
"""
CLASSES = ["RBC", "WBC", "Platelets"]
META = dict(
    format_version=runtime.FORMAT_VERSION,
    ghostdet=__version__,
    config="retinanet_ghostnet_small_bccd",
    classes=CLASSES,
    resize=dict(scale=[256, 256], keep_ratio=False),
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
    precision="fp32",
)


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A folder with the model in both formats."""
    parser = pytest.importorskip("onnx.parser")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("written")
    model = parser.parse_model(GRAPH)
    (folder / "small.onnx").write_bytes(model.SerializeToString())
    return folder


@pytest.fixture(scope="session")
def written_xml(written):
    openvino = pytest.importorskip("openvino")
    model = openvino.convert_model(written / "small.onnx")
    openvino.save_model(model, written / "small.xml", compress_to_fp16=False)
    return written


@pytest.fixture
def export(tmp_path, request):
    """A function: the small detector with changes of its JSON, as ONNX or OpenVINO."""

    def write(suffix=".onnx", **changes):
        fixture = "written_xml" if suffix == ".xml" else "written"
        folder = request.getfixturevalue(fixture)
        for name in ("small.xml", "small.bin") if suffix == ".xml" else ("small.onnx",):
            shutil.copy(folder / name, tmp_path)
        path = tmp_path / f"small{suffix}"
        meta = {**META, **changes}
        meta["sha256"] = runtime.checksum(path, meta)
        path.with_suffix(".json").write_text(json.dumps(meta))
        shutil.copy(runtime.__file__, tmp_path / "ghostdet_runtime.py")
        return path

    return write
