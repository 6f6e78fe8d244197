"""The whole way from a config, a checkpoint and an image to a picture."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from torch import Tensor, nn

from ghostdet.analysis.draw import draw_ghosts, draw_pairs
from ghostdet.analysis.feature_maps import (
    GHOST_MODULES,
    capture,
    ghost_of,
    ghost_origins,
    similar_pairs,
)
from ghostdet.apis.model import load_model
from ghostdet.config import load_config, require
from ghostdet.datasets.classification import load_image
from ghostdet.errors import UserError
from ghostdet.models.classifier import ImageClassifier
from ghostdet.models.exported_detector import is_exported
from ghostdet.utils.files import atomic_outputs

PAIRS = 6  # as many as there are colours that are told apart easily


def visualize(
    picture: str,
    config: str | Path | Config,
    checkpoint: str | Path,
    image: str | Path,
    layer: str | None = None,
    out: str | Path | None = None,
) -> Path:
    """Draw what a layer of a network makes of an image.

    Args:
        picture: ``'pairs'``, all maps of a layer with the most similar ones framed, see
            :func:`similar_pairs` (figure 1 of the paper); or ``'ghosts'``, each
            intrinsic map of a Ghost module above the ghost maps that were made from it
            (figure 4).
        config: The config of a detector or a classifier, or for published weights their
            ``.json`` file.
        checkpoint: Its checkpoint.
        image: An image, which goes through the config's test pipeline.
        layer: Name of the layer, as of ``model.named_modules()``. Defaults to the
            second Ghost module, as the paper's figure 4 shows that of Ghost-VGG-16,
            or the next that makes ghost maps; where there is none, to the second
            convolution.
        out: The PNG to write. Defaults to one in ``outputs/`` that is called as the
            image, the layer and the picture.

    Returns:
        The path of the picture.

    Raises:
        UserError: If a file is missing or the weights do not fit, the image cannot be
            read, there is no such layer, it has no feature maps, or the picture cannot
            be written.
    """
    if picture not in ("pairs", "ghosts"):
        raise UserError(f"picture is {picture!r}, expected 'pairs' or 'ghosts'")
    cfg = config if isinstance(config, Config) else load_config(config)
    require(cfg, "model", "test_dataloader")
    image = Path(image)
    if not image.is_file():
        raise UserError(f"no image at {str(image)!r}; give the path of one")
    if is_exported(checkpoint):
        raise UserError(
            f"{checkpoint} is exported and has no layers; give the checkpoint"
        )
    model = load_model(cfg, checkpoint)
    layer = _find_layer(model, layer, picture)
    out = Path(out or f"outputs/{image.stem}-{layer}-{picture}.png")
    if out.suffix.lower() != ".png":
        raise UserError(f"--out is {str(out)!r}, expected a .png file")
    if out.is_file() and out.samefile(image):
        raise UserError(f"--out {str(out)!r} is the image itself; give another file")

    batch = _read(cfg, model, image)
    shown = batch["inputs"][0]
    data = model.data_preprocessor(batch, False)
    padded = data["inputs"].shape[2:]

    def maps_of(*modules: nn.Module) -> list[np.ndarray]:
        outputs = capture(modules, lambda: model(**data, mode="predict"))
        return [_image_part(o, shown.shape[1:], padded, layer) for o in outputs]

    picture_of = dict(
        image=_displayed(model, shown),
        layer=layer,
        source=f"{Path(cfg.filename or 'config').stem}, {Path(checkpoint).name}, "
        f"{image.name}",
    )
    module = model.get_submodule(layer)
    if picture == "pairs":
        (maps,) = maps_of(module)
        pairs = similar_pairs(maps, PAIRS)
        figure = draw_pairs(maps, pairs, **picture_of)
        said = f"{len(maps)} maps, {len(pairs)} pairs framed"
    else:
        ghost, origins = ghost_of(module), ghost_origins(module)
        intrinsic, ghosts = maps_of(ghost.primary, ghost.cheap)
        kernels = ghost.conv.weight.detach()[:, 0].cpu().numpy()
        figure = draw_ghosts(intrinsic, ghosts, kernels, origins, **picture_of)
        said = (
            f"{len(intrinsic)} intrinsic maps, {len(origins) - len(intrinsic)} ghost "
            "maps"
        )
    with atomic_outputs(out) as folder:
        figure.savefig(folder / out.name)
    print(f"{layer}: {said}\npicture: {out}")
    return out


def _find_layer(model: nn.Module, name: str | None, picture: str) -> str:
    """See that a layer is there, or choose one."""
    modules = {n: m for n, m in model.named_modules() if n}
    names = list(modules)
    if picture == "ghosts":
        names = [n for n in names if ghost_of(modules[n]) is not None]
        if not names:
            raise UserError(
                "this network has no Ghost module of ratio 2 or more; draw pairs of it"
            )
    if name is None:
        # Those of ratio 1 count: a network is drawn where its Ghost form is.
        for kind in (GHOST_MODULES, nn.Conv2d, nn.Module):
            layers = [n for n, module in modules.items() if isinstance(module, kind)]
            if layers:
                return next(n for n in layers[1:] + layers[:1] if n in names)
    if name in names:
        return name
    if picture == "ghosts":
        raise UserError(
            f"{name!r} is no Ghost module of ratio 2 or more of this network; "
            f"{_near(name, names)}all of them: {', '.join(names)}"
        )
    raise UserError(
        f"no layer {name!r} in this network; {_near(name, names)}{_inside(model, name)}"
    )


def _near(name: str, names: Sequence[str]) -> str:
    """What was meant, perhaps."""
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.8)
    return f"near it: {', '.join(near)}; " if near else ""


def _inside(model: nn.Module, name: str) -> str:
    """What there is in the last part of a name that there is."""
    modules = dict(model.named_modules())
    while name not in modules:
        name = name.rpartition(".")[0]
    children = [child for child, _ in modules[name].named_children()]
    return f"in {name or 'it'} there are {', '.join(children) or 'none'}"


def _read(cfg: Config, model: nn.Module, path: Path) -> dict[str, Any]:
    """A batch of the one image."""
    pipeline = Compose(get_test_pipeline_cfg(cfg))
    if isinstance(model, ImageClassifier):
        return dict(inputs=[pipeline(load_image(str(path)))])
    try:
        sample = pipeline(dict(img_path=str(path), img_id=0))
    except cv2.error as error:
        raise UserError(f"{path} cannot be resized: {error.err}") from error
    return {key: [value] for key, value in sample.items()}


def _displayed(model: nn.Module, inputs: Tensor) -> np.ndarray:
    """The image as the network gets it but for its normalisation, RGB."""
    if not isinstance(model, ImageClassifier):
        inputs = inputs.flip(0)  # MMDetection's pipelines give BGR
    return inputs.permute(1, 2, 0).clamp(0, 255).to(torch.uint8).cpu().numpy()


def _image_part(
    output: Any, size: tuple[int, int], padded: tuple[int, int], layer: str
) -> np.ndarray:
    """Maps ``(C, H, W)`` of the image, less what lies on its padding."""
    if isinstance(output, (tuple, list)) and len(output) == 1:
        output = output[0]
    if output is None:
        raise UserError(
            f"{layer} is not run as a whole; give a layer inside it, or around it"
        )
    if not isinstance(output, Tensor):
        many = f" of {len(output)}" if isinstance(output, (tuple, list)) else ""
        raise UserError(
            f"{layer} gives a {type(output).__name__}{many}, expected one tensor; give "
            "a layer inside it"
        )
    if output.dim() != 4 or len(output) != 1 or output[0, 0].numel() < 2:
        raise UserError(
            f"{layer} gives {tuple(output.shape)}, expected feature maps of one image, "
            "(1, C, H, W); give another layer"
        )
    if not output.isfinite().all():
        raise UserError(f"{layer} gives values that are not finite")
    height, width = (
        -(-side * part // whole)
        for side, part, whole in zip(output.shape[2:], size, padded)
    )
    return output[0, :, :height, :width].float().cpu().numpy()
