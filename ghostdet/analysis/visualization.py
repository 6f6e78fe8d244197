"""Draw the feature maps of a layer, from a config, a checkpoint and an image."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from torch import Tensor, nn

from ghostdet.analysis.feature_maps import (
    GHOST_MODULES,
    capture,
    ghost_of,
    ghost_origins,
    similar_pairs,
)
from ghostdet.analysis.pictures import draw_ghosts, draw_pairs
from ghostdet.apis.model import load_model
from ghostdet.config import load_config, require
from ghostdet.datasets.classification import load_image
from ghostdet.errors import UserError
from ghostdet.models.classifier import ImageClassifier
from ghostdet.models.exported_detector import is_exported
from ghostdet.utils.files import atomic_outputs

PAIRS = 6  # the number of colours that are easy to tell apart


def visualize(
    picture: str,
    config: str | Path | Config,
    checkpoint: str | Path,
    image: str | Path,
    layer: str | None = None,
    out: str | Path | None = None,
) -> Path:
    """Draw the feature maps of a layer for an image.

    Args:
        picture: ``'pairs'``, all maps with the most similar ones framed
            (:func:`similar_pairs`, figure 1 of the paper); or ``'ghosts'``, each
            intrinsic map of a Ghost module with the ghost maps made from it (figure 4).
        config: The config of a detector or a classifier, or published weights.
        checkpoint: Its checkpoint.
        image: An image, which goes through the config's test pipeline.
        layer: Name of the layer in ``model.named_modules()``. Defaults to the second
            Ghost module (the paper's figure 4 shows that one of Ghost-VGG-16), or to
            the second convolution of a network without Ghost modules.
        out: The PNG to write. Defaults to ``outputs/IMAGE-LAYER-PICTURE.png``.

    Returns:
        The path of the picture.

    Raises:
        UserError: If a file is missing or the weights do not fit, if the image cannot
            be read, if the layer does not exist or has no feature maps, or if the
            picture cannot be written.
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

    titles = (
        layer,
        f"{Path(cfg.filename or 'config').stem}, {Path(checkpoint).name}, {image.name}",
    )
    module, pixels = model.get_submodule(layer), _displayed(model, shown)
    if picture == "pairs":
        (maps,) = maps_of(module)
        figure = draw_pairs(maps, similar_pairs(maps, PAIRS), pixels, titles)
    else:
        ghost = ghost_of(module)
        intrinsic, ghosts = maps_of(ghost.primary, ghost.cheap)
        kernels = ghost.conv.weight.detach()[:, 0].cpu().numpy()
        origins = ghost_origins(module)
        figure = draw_ghosts(intrinsic, ghosts, kernels, origins, pixels, titles)
    with atomic_outputs(out) as folder:
        figure.savefig(folder / out.name, bbox_inches="tight")
    print(f"picture: {out}")
    return out


def _find_layer(model: nn.Module, name: str | None, picture: str) -> str:
    """Check that a layer is in the model, or choose one."""
    modules = {n: m for n, m in model.named_modules() if n}
    names = list(modules)
    if picture == "ghosts":
        names = [n for n in names if ghost_of(modules[n]) is not None]
        if not names:
            raise UserError(
                "this network has no Ghost module of ratio 2 or more; draw 'pairs'"
            )
    if name is None:
        # Modules of ratio 1 count: then VGG-16 and Ghost-VGG-16 show the same layer.
        for kind in (GHOST_MODULES, nn.Conv2d, nn.Module):
            layers = [n for n, module in modules.items() if isinstance(module, kind)]
            if layers:
                return next(n for n in layers[1:] + layers[:1] if n in names)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=5, cutoff=0)
        kind = "Ghost module of ratio 2 or more" if picture == "ghosts" else "layer"
        raise UserError(
            f"this network has no {kind} {name!r}; the nearest names are "
            f"{', '.join(near)}"
        )
    return name


def _read(cfg: Config, model: nn.Module, path: Path) -> dict[str, Any]:
    """Make a batch of one image."""
    pipeline = Compose(get_test_pipeline_cfg(cfg))
    if isinstance(model, ImageClassifier):
        return dict(inputs=[pipeline(load_image(str(path)))])
    sample = pipeline(dict(img_path=str(path), img_id=0))
    return {key: [value] for key, value in sample.items()}


def _displayed(model: nn.Module, inputs: Tensor) -> np.ndarray:
    """Convert the input of a network, before normalisation, to RGB pixels."""
    if not isinstance(model, ImageClassifier):
        inputs = inputs.flip(0)  # MMDetection's pipelines give BGR
    return inputs.permute(1, 2, 0).clamp(0, 255).to(torch.uint8).cpu().numpy()


def _image_part(
    output: Any, size: tuple[int, int], padded: tuple[int, int], layer: str
) -> np.ndarray:
    """Cut the maps ``(C, H, W)`` to the image, without its padding."""
    if isinstance(output, (tuple, list)) and len(output) == 1:
        output = output[0]
    if output is None:
        raise UserError(
            f"{layer} has no forward pass of its own; give a layer inside or around it"
        )
    shape = tuple(output.shape) if isinstance(output, Tensor) else ()
    if len(shape) != 4 or shape[0] != 1:
        raise UserError(
            f"{layer} returns {shape or f'a {type(output).__name__}'}, expected the "
            "feature maps of one image, (1, C, H, W); give another layer"
        )
    if shape[2:] == (1, 1):
        raise UserError(f"{layer} returns maps of one value; give an earlier layer")
    if not output.isfinite().all():
        raise UserError(f"{layer} returns values that are not finite")
    height, width = (
        -(-side * part // whole) for side, part, whole in zip(shape[2:], size, padded)
    )
    return output[0, :, :height, :width].float().cpu().numpy()
