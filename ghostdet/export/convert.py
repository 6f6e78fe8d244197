"""From a PyTorch module to a file for ONNX Runtime or OpenVINO."""

from __future__ import annotations

import ast
import importlib
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ghostdet.errors import UserError
from ghostdet.utils.files import atomic_outputs
from ghostdet.utils.text import quiet

if TYPE_CHECKING:
    import onnx

#: What each format needs, and the suffix of its file.
REQUIRED = {"onnx": ("onnx", "onnxscript", "onnxruntime")}
REQUIRED["openvino"] = (*REQUIRED["onnx"], "openvino")
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}

POSTPROCESSING = "postprocessing/"

# Adds rows and columns, so that the sides are multiples of ``divisor``.
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

    Batch and size are dynamic.

    Args:
        module: Takes float32 ``(N, 3, H, W)`` and returns a tensor or a sequence of
            tensors; in evaluation mode, best as :func:`ghostdet.export.fuse` leaves
            it.
        path: The file to write, ``.onnx``, or ``.xml`` for OpenVINO, whose weights are
            put beside it, ending in ``.bin``. Its input is called ``image``.
        output_names: What the outputs are called; by default ``output_0`` and so on.

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
            f"{str(path)!r} is to be exported to, expected a file that ends in "
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
    """See that what a module does with other sizes was exported as well."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    for shape in ((1, 3, 160, 96), (3, 3, 75, 131)):
        image = torch.rand(shape)
        expected = module(image)
        outputs = session.run(None, {"image": image.numpy()})
        for out, other in zip(
            outputs, [expected] if isinstance(expected, torch.Tensor) else expected
        ):
            if other.shape != out.shape or not torch.allclose(
                torch.from_numpy(out), other, rtol=1e-3, atol=1e-4
            ):
                raise UserError(
                    f"{type(module).__name__} was exported for one size of images: on "
                    f"{'x'.join(map(str, shape))} it gives something else than in "
                    "PyTorch; what it does must not depend on the size"
                )


def detector_to_onnx(
    graph: nn.Module, divisor: int, pad_value: float
) -> onnx.ModelProto:
    """Export a :class:`~ghostdet.export.graph.DetectionGraph`, with padding in front.

    The exporter sees padded images only: with sides that are multiples of ``divisor``
    it can tell that the sizes of a pyramid's levels fit each other.

    Args:
        graph: The graph.
        divisor: What the sides are padded to a multiple of.
        pad_value: With what.

    Returns:
        A model of ``image`` whose nodes behind the network are called by names that
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
    """What a node's name begins with, by the module that it comes from.

    Of a head its layers belong to the network and all between and behind them to the
    post-processing, such as distances in pixels out of what is predicted.
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
        UserError: If an operator cannot be exported.
    """
    from torch.onnx.errors import OnnxExporterError

    if module.training:
        raise UserError("the module is in training mode; call its eval() first")
    from ghostdet.export.graph import nms

    try:
        with torch.no_grad(), quiet(logging.getLogger("torch.onnx")):
            # By torch.export first, once: torch.onnx.export tries it in several ways
            # and takes minutes to fail.
            program = torch.export.export(
                module, inputs, dynamic_shapes=dynamic_shapes, strict=False
            )
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=input_names,
                output_names=output_names,
                custom_translation_table={nms._opoverload: _onnx_nms},
                external_data=False,
                verbose=False,
            )
    except OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
            if "translating node" in str(cause) or "dispatch" in str(cause).lower():
                break
        raise UserError(
            f"{type(module).__name__} holds an operator that PyTorch's ONNX exporter "
            f"lacks: {str(cause).splitlines()[0]}"
        ) from error
    except (RuntimeError, torch._dynamo.exc.UserError) as error:
        raise UserError(
            f"{type(module).__name__} cannot be traced by torch.export: "
            f"{(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error
    model = exported.model_proto
    del model.graph.value_info[:]  # formulas, and the largest part of a small model
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
    """Write a model as ONNX or, by the suffix, as OpenVINO's ``.xml`` and ``.bin``.

    Args:
        model: An ONNX model, or an ``openvino.Model``.
        path: The file.
    """
    if path.suffix == SUFFIXES["openvino"]:
        import openvino

        if not isinstance(model, openvino.Model):
            model = to_openvino(model)
        openvino.save_model(model, path, compress_to_fp16=False)
        return
    import onnx

    for node in model.graph.node:
        node.ClearField("metadata_props")  # with paths of this machine
    onnx.save(model, path)


def to_openvino(model: onnx.ModelProto) -> Any:
    """Read an ONNX model into OpenVINO, so that there is one graph for both."""
    import onnx
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder, "model.onnx"))
        return openvino.convert_model(Path(folder, "model.onnx"))


def require_packages(*names: str) -> None:
    """See that packages are there.

    Raises:
        UserError: If one cannot be imported.
    """
    missing = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise UserError(
            f"{', '.join(missing)} cannot be imported; type: "
            "pip install 'ghostdet[export]'"
        )
