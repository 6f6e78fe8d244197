"""The module that stands in for ``mmcv._ext``.

``mmcv.ops`` asks for about a hundred operators by name when it is imported. Those in
:data:`OPERATORS` work; any other name is a function that raises, when called, an
error with the name of the operator.
"""

from collections.abc import Callable
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_loader
from types import ModuleType
from typing import Any, NoReturn

import torchvision

from ghostdet.ops.boxes import bbox_overlaps
from ghostdet.ops.deform_attn import ms_deform_attn_backward, ms_deform_attn_forward
from ghostdet.ops.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from ghostdet.ops.focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from ghostdet.ops.nms import nms, nms_match, softnms
from ghostdet.ops.roi_align import roi_align_backward, roi_align_forward
from ghostdet.ops.roi_pool import roi_pool_backward, roi_pool_forward


def get_compiler_version() -> str:
    """Tell environment reports that nothing was compiled."""
    return f"not compiled, ghostdet on torchvision {torchvision.__version__}"


def get_compiling_cuda_version() -> str:
    """Tell environment reports what an MMCV compiled without CUDA tells them."""
    return "not available"


OPERATORS: dict[str, Callable] = {
    function.__name__: function
    for function in (
        bbox_overlaps,
        deform_conv_backward_input,
        deform_conv_backward_parameters,
        deform_conv_forward,
        get_compiler_version,
        get_compiling_cuda_version,
        modulated_deform_conv_backward,
        modulated_deform_conv_forward,
        ms_deform_attn_backward,
        ms_deform_attn_forward,
        nms,
        nms_match,
        roi_align_backward,
        roi_align_forward,
        roi_pool_backward,
        roi_pool_forward,
        sigmoid_focal_loss_backward,
        sigmoid_focal_loss_forward,
        softmax_focal_loss_backward,
        softmax_focal_loss_forward,
        softnms,
    )
}


class OperatorModule(ModuleType):
    """A module that has every operator, although most can only raise."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

        def missing(*args: Any, **kwargs: Any) -> NoReturn:
            raise RuntimeError(
                f"The operator {name!r} needs an MMCV with compiled operators, and "
                "mmcv-lite has none. How to compile one: docs/operators.md, section "
                "'A compiled MMCV'."
            )

        missing.__name__ = name
        return missing


class OperatorLoader(Loader):
    """Makes the module, so that its ``__spec__`` is like that of any other."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make the empty module."""
        return OperatorModule(spec.name, __doc__)

    def exec_module(self, module: ModuleType) -> None:
        """Put the operators in."""
        vars(module).update(OPERATORS)


def load_operators(name: str) -> ModuleType:
    """Make the module under a name, without putting it into ``sys.modules``.

    Args:
        name (str): ``'mmcv._ext'``.

    Returns:
        ModuleType: With all of :data:`OPERATORS`.
    """
    spec = spec_from_loader(name, OperatorLoader())
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
