"""The classes of a model and of its data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import nn

from ghostdet.checks.findings import Finding
from ghostdet.errors import UserError
from ghostdet.utils.text import shorten


def check_num_classes(model: nn.Module, classes: Sequence[str] | None) -> None:
    """Raise a ``UserError`` if a head has another number of classes than a dataset."""
    for name, module in model.named_modules():
        name = name.removeprefix("module.")  # with several processes
        count = getattr(module, "num_classes", None)
        proposes = type(module).__name__.endswith("RPNHead")  # always one class
        detects = "bbox_head" in name and not proposes
        fits = not classes or count in (None, len(classes))
        if (detects or name == "head") and not fits:
            own = len(classes)
            remedy = f"set num_classes={own}, or metainfo=dict(classes=...) of the data"
            if not detects:
                remedy = f"--cfg-options model.head.num_classes={own}"
            text = f"{name} has num_classes={count}, and the dataset has {own} classes"
            raise UserError(f"{text}: {shorten(classes)}; {remedy}")


def compare_classes(
    source: str,
    classes: Sequence[str],
    listed: Sequence[str],
    learnt: Sequence[str],
    objects: Counter[int],
) -> Finding:
    """Check that each label means the class of that number in the config.

    ``listed`` has all categories of the file, ``learnt`` one for each label in order.
    """
    others = [name for name in listed if name not in classes]
    if learnt == classes and not others:
        without = [name for label, name in enumerate(classes) if not objects[label]]
        text = f"{len(classes)}, as in the file: {shorten(classes)}"
        text += f"; without objects: {shorten(without)}" * bool(without)
        return Finding("classes", "pass", text)
    if learnt == classes:
        text = f"{source}: objects of {shorten(others)}, which are not in the config's "
        text += "classes, become background"
        remedy = "To detect them as well, add them to metainfo=dict(classes=...) in the"
        return Finding("classes", "warn", text, f"{remedy} file's order")
    missing = [name for name in classes if name not in learnt]
    text = f"{source}: the file's categories differ from the config's classes, or in "
    text += f"their order\n  in the config: {shorten(classes)}\n"
    text += f"  in the file: {shorten(listed)}"
    remedy = "In all datasets, set metainfo=dict(classes=...) to the file's names, and "
    remedy += "num_classes of the head to their number"
    if twice := [name for name, count in Counter(listed).items() if count > 1]:
        remedy = f"Merge the categories named {shorten(twice)} into one, with one id"
    elif alike := {(a, b) for a in missing for b in listed if a == b.strip()}:
        remedy = "Remove the spaces: "
        remedy += ", ".join(f"{b!r} should be {a!r}" for a, b in alike)
    elif missing and learnt:
        remedy = f"Add the category {shorten(missing)} to the file, also where it has "
        remedy += "no objects; or leave it out of all metainfo and num_classes"
    return Finding("classes", "fail", text, remedy)
