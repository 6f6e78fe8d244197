"""The classes of a model and of its data."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ghostdet.errors import UserError
from ghostdet.utils.text import shorten


def check_num_classes(model: nn.Module, classes: Sequence[str] | None) -> None:
    """Raise a ``UserError`` if a head has not as many classes as a dataset."""
    for name, module in model.named_modules():
        name = name.removeprefix("module.")  # of a model in several processes
        count = getattr(module, "num_classes", None)
        proposes = type(module).__name__.endswith("RPNHead")  # of one class by nature
        detects = "bbox_head" in name and not proposes
        if not classes or count in (None, len(classes)):
            continue
        if detects or name == "head":
            remedy = (
                f"set num_classes={len(classes)}, or metainfo=dict(classes=...) of "
            )
            remedy += "the datasets"
            if not detects:
                remedy = f"--cfg-options model.head.num_classes={len(classes)}"
            raise UserError(
                f"{name} has num_classes={count}, and the dataset has "
                f"{len(classes)} classes: {shorten(classes)}; {remedy}"
            )
