"""The module that replaces ``mmcv._ext``.

``mmcv.ops`` asks for about a hundred operators by name when it is imported. The ones in
:data:`OPERATORS` work; any other name is a function that raises an error with that
name when it is called.
"""

from collections.abc import Callable
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import torchvision

from ghostdet.ops import (
    boxes,
    deform_attn,
    deform_conv,
    focal_loss,
    nms,
    roi_align,
    roi_pool,
)


def get_compiler_version() -> str:
    """Tell environment reports that nothing was compiled."""
    return f"not compiled, ghostdet on torchvision {torchvision.__version__}"


def get_compiling_cuda_version() -> str:
    """Tell environment reports the same as an MMCV compiled without CUDA."""
    return "not available"


#: The public functions of the modules beside this one, by name.
OPERATORS: dict[str, Callable] = {
    name: value
    for module in (
        boxes,
        deform_attn,
        deform_conv,
        focal_loss,
        nms,
        roi_align,
        roi_pool,
    )
    for name, value in vars(module).items()
    if getattr(value, "__module__", "") == module.__name__ and name[0] != "_"
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


def load_operators(name: str) -> ModuleType:
    """Make the module under a name, without putting it into ``sys.modules``.

    Args:
        name (str): ``'mmcv._ext'``.

    Returns:
        ModuleType: A module with :data:`OPERATORS`.
    """
    module = OperatorModule(name, __doc__)
    # MMCV takes a module without a loader for a missing one.
    module.__loader__ = Loader()
    module.__spec__ = ModuleSpec(name, module.__loader__)
    vars(module).update(
        OPERATORS,
        get_compiler_version=get_compiler_version,
        get_compiling_cuda_version=get_compiling_cuda_version,
    )
    return module
