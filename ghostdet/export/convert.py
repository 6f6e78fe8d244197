"""Convert a PyTorch module to a file for ONNX Runtime or OpenVINO."""

from __future__ import annotations

import ast
import importlib
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.utils import digit_version
from torch import nn

from ghostdet.errors import UserError
from ghostdet.utils.files import atomic_outputs
from ghostdet.utils.text import quiet

if TYPE_CHECKING:
    import onnx

#: Packages that each format needs, and the suffix of its file.
REQUIRED = {"onnx": ("onnx", "onnxscript", "onnxruntime")}
REQUIRED["openvino"] = (*REQUIRED["onnx"], "openvino")
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}

#: PyTorch 2.6 fails to trace pyramids, 2.7 fixes the number of boxes before NMS.
OLDEST = "2.8"

#: Prefix of the names of all nodes outside the network.
POSTPROCESSING = "postprocessing/"

# Adds rows and columns until the sides are multiples of ``divisor``.
_PAD = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
pad (float[batch, 3, height, width] image)
    => (float[batch, 3, padded_height, padded_width] padded, int64[2] shape) {{
  shape = Shape<start = 2>(image)
  divisor = Constant<value_ints = [{divisor}]>()
  negative = Neg(shape)
  missing = Mod(negative, divisor)
  none = Constant<value_ints = [0, 0, 0, 0, 0, 0]>()
  pads = Concat<axis = 0>(none, missing)
  value = Constant<value_float = {value:f}>()
  padded = Pad(image, pads, value)
}}
"""


def export_module(
    module: nn.Module, path: str | Path, output_names: Sequence[str] | None = None
) -> Path:
    """Export a module that takes images, such as a backbone.

    Batch and image size are dynamic.

    Args:
        module: A module in evaluation mode that takes float32 ``(N, 3, H, W)`` and
            returns a tensor or a sequence of tensors. Call
            :func:`~ghostdet.export.fuse_for_inference` first for speed.
        path: File to write: ``.onnx``, or ``.xml`` for OpenVINO, which gets a ``.bin``
            file with the weights beside it. The input is named ``image``.
        output_names: Names of the outputs, ``output_0`` and so on by default.

    Returns:
        The path.

    Raises:
        UserError: If a package is missing, an operator cannot be exported, or the
            file cannot be written.
    """
    path = Path(path)
    formats = {suffix: name for name, suffix in SUFFIXES.items()}
    if path.suffix not in formats:
        raise UserError(
            f"cannot export to {str(path)!r}; give a file that ends in "
            f"{' or '.join(formats)}"
        )
    require_packages(*REQUIRED[formats[path.suffix]])
    dynamic = torch.export.Dim.DYNAMIC
    model = to_onnx(
        module.cpu(),
        (torch.rand(2, 3, 96, 128),),
        ({0: dynamic, 2: dynamic, 3: dynamic},),
        ["image"],
        output_names,
    )
    _check_sizes(module, model)
    with atomic_outputs(path) as folder:
        save(model, folder / path.name)
    return path


@torch.no_grad()
def _check_sizes(module: nn.Module, model: onnx.ModelProto) -> None:
    """Check that the exported model follows the module on other image sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    for shape in ((1, 3, 160, 96), (3, 3, 75, 131)):
        image = torch.rand(shape)
        expected = module(image)
        if isinstance(expected, torch.Tensor):
            expected = [expected]
        outputs = map(torch.from_numpy, session.run(None, {"image": image.numpy()}))
        for output, other in zip(outputs, expected):
            if other.shape != output.shape or not torch.allclose(
                output, other, rtol=1e-3, atol=1e-4
            ):
                raise UserError(
                    f"{type(module).__name__} was exported for one image size only: on "
                    f"{'x'.join(map(str, shape))} the exported model and PyTorch "
                    "differ; make its computation independent of the size"
                )


def detector_to_onnx(
    graph: nn.Module, divisor: int, pad_value: float
) -> onnx.ModelProto:
    """Export a :class:`~ghostdet.export.graph.DetectionGraph`, with padding in front.

    The exporter sees padded images only: it needs sides that are multiples of
    ``divisor`` to prove that the levels of a feature pyramid fit each other.

    Returns:
        A model with the input ``image``. The names of all nodes outside the network
        begin with :data:`POSTPROCESSING`.

    Raises:
        UserError: If an operator cannot be exported.
    """
    import onnx

    height = width = torch.export.Dim.DYNAMIC
    if divisor > 1:
        height, width = (divisor * torch.export.Dim(name) for name in "hw")
    size = -(-128 // divisor) * divisor
    model = to_onnx(
        graph,
        (torch.rand(2, 3, size, size + divisor), torch.tensor([size, size])),
        ({0: torch.export.Dim.DYNAMIC, 2: height, 3: width}, None),
        ["padded", "shape"],
        ["boxes", "scores", "labels"],
    )
    pad = onnx.parser.parse_model(
        _PAD.format(
            ir_version=model.ir_version,
            opset=model.opset_import[0].version,
            divisor=divisor,
            value=pad_value,
        )
    ).graph
    nodes = [*pad.node, *model.graph.node]
    for index, node in enumerate(nodes):
        node.name = f"{_part(node)}{node.name or index}"
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend(nodes)
    model.graph.input.extend(pad.input)
    for output in model.graph.output:  # the exporter writes formulas
        batch, detections = output.type.tensor_type.shape.dim[:2]
        batch.dim_param, detections.dim_param = "batch", "detections"
    return model


def _part(node: onnx.NodeProto) -> str:
    """Return the prefix of a node's name, by the module that it comes from.

    The layers of a head belong to the network. All that is computed between and after
    them belongs to the post-processing, such as distances in pixels.
    """
    metadata = {entry.key: entry.value for entry in node.metadata_props}
    scopes = ast.literal_eval(metadata.get("pkg.torch.onnx.name_scopes", "['', '']"))
    inside = scopes[1].startswith(("detector.backbone", "detector.neck"))
    layer = scopes[1].startswith("detector.") and node.op_type in ("Conv", "Gemm")
    return "" if inside or layer else POSTPROCESSING


def to_onnx(
    module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    dynamic_shapes: tuple[Any, ...],
    input_names: Sequence[str],
    output_names: Sequence[str] | None,
) -> onnx.ModelProto:
    """Run PyTorch's exporter.

    Raises:
        UserError: If an operator cannot be exported, or PyTorch is older than
            :data:`OLDEST`.
    """
    from torch.onnx.errors import OnnxExporterError

    from ghostdet.export.graph import nms

    name = type(module).__name__
    if module.training:
        raise UserError(f"{name} is in training mode; call its eval() first")
    if digit_version(torch.__version__) < digit_version(OLDEST):
        raise UserError(
            f"PyTorch {torch.__version__} cannot export a network whose image size "
            f"varies; export with {OLDEST} or newer, in this or another environment"
        )
    try:
        with torch.no_grad(), quiet(logging.getLogger("torch.onnx")):
            # torch.onnx.export by itself tries several ways to trace a module and takes
            # minutes to fail.
            program = torch.export.export(
                module, inputs, dynamic_shapes=dynamic_shapes, strict=False
            )
            model = torch.onnx.export(
                program,
                dynamo=True,
                input_names=input_names,
                output_names=output_names,
                custom_translation_table={nms._opoverload: _onnx_nms},
                external_data=False,
                verbose=False,
            ).model_proto
    except OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
            if "translating node" in str(cause) or "dispatch" in str(cause).lower():
                break
        raise UserError(
            f"{name} holds an operator that PyTorch's ONNX exporter lacks: "
            f"{str(cause).splitlines()[0]}"
        ) from error
    except (RuntimeError, torch._dynamo.exc.UserError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{name} cannot be traced by torch.export: {reason}") from error
    del model.graph.value_info[:]  # formulas, the largest part of a small model
    return model


def _onnx_nms(boxes: Any, scores: Any, iou_threshold: float, max_per_img: int) -> Any:
    """:func:`ghostdet.export.graph.nms` in ONNX's operators."""
    from onnxscript import opset18 as op

    selected = op.NonMaxSuppression(  # rows of image, class, box
        boxes,
        op.Unsqueeze(scores, op.Constant(value_ints=[1])),
        op.Constant(value_ints=[max_per_img]),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[0.0]),
    )
    index = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
    nothing = op.Mul(scores, op.Constant(value_float=0.0))
    return op.ScatterND(nothing, index, op.GatherND(scores, index))


def save(model: Any, path: Path) -> None:
    """Write an ONNX or OpenVINO model in the format that the suffix names."""
    if path.suffix == SUFFIXES["openvino"]:
        import openvino

        if not isinstance(model, openvino.Model):
            model = to_openvino(model)
        openvino.save_model(model, path, compress_to_fp16=False)
        return
    import onnx

    for node in model.graph.node:
        node.ClearField("metadata_props")  # paths on this machine
    onnx.save(model, path)


def to_openvino(model: onnx.ModelProto) -> Any:
    """Read an ONNX model into OpenVINO, so that both formats share one graph."""
    import onnx
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder, "model.onnx"))
        return openvino.convert_model(Path(folder, "model.onnx"))


def require_packages(*names: str, extra: str = "export") -> None:
    """Raise a UserError if one of the packages of an extra cannot be imported."""
    missing = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise UserError(
            f"{', '.join(missing)} cannot be imported; type: "
            f"pip install 'ghostdet[{extra}]'"
        )
