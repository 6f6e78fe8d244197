"""Make annotations and detections, to measure COCO's evaluation with."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch

SIZE = np.array([640, 480])  # of an image, in px


def synthetic_coco(
    images: int = 5000, classes: int = 80, seed: int = 0
) -> dict[str, list[dict]]:
    """Make COCO annotations as many as in val2017: 36,781 boxes, 446 of them crowds.

    Args:
        images: Number of images, of 640 by 480 px.
        classes: Number of categories.
        seed: Seed of the random numbers.

    Returns:
        The content of an annotation file.

    Example:
        >>> coco = synthetic_coco(images=100)
        >>> len(coco['images']), len(coco['annotations']), len(coco['categories'])
        (100, 764, 80)
    """
    rng = np.random.default_rng(seed)
    count = rng.poisson(36781 / 5000, images)
    image_ids = np.repeat(np.arange(1, images + 1), count)
    boxes = _boxes(rng, len(image_ids))
    area = boxes[:, 2:].prod(axis=1) * rng.uniform(0.4, 1, len(boxes))
    annotations = zip(
        image_ids.tolist(),
        boxes.tolist(),
        area.tolist(),
        rng.integers(1, classes + 1, len(boxes)).tolist(),
        (rng.random(len(boxes)) < 446 / 36781).astype(int).tolist(),
    )
    width, height = SIZE.tolist()
    return dict(
        images=[
            dict(id=i, file_name=f"{i}.jpg", width=width, height=height)
            for i in range(1, images + 1)
        ],
        annotations=[
            dict(
                id=number,
                image_id=image_id,
                category_id=category,
                bbox=box,
                area=area,
                iscrowd=crowd,
            )
            for number, (image_id, box, area, category, crowd) in enumerate(
                annotations, start=1
            )
        ],
        categories=[dict(id=i, name=f"class {i}") for i in range(1, classes + 1)],
    )


def synthetic_detections(
    coco: dict[str, list[dict]], per_image: int = 100, seed: int = 0
) -> list[dict[str, Any]]:
    """Make detections as a mediocre detector would.

    Half of them lie around annotated boxes, a fifth of these with another label; the
    others lie anywhere. Scores have two decimals, so that many are equal.

    Args:
        coco: The content of an annotation file.
        per_image: Number of detections in each image.
        seed: Seed of the random numbers.

    Returns:
        For each image the sample that ``CocoMetric.process`` reads.
    """
    rng = np.random.default_rng(seed)
    labels = {category["id"]: i for i, category in enumerate(coco["categories"])}
    annotated = defaultdict(list)
    for annotation in coco["annotations"]:
        label = labels[annotation["category_id"]]
        annotated[annotation["image_id"]].append([*annotation["bbox"], label])
    samples = []
    for image in coco["images"]:
        objects = np.array(annotated[image["id"]] or np.empty((0, 5)))
        near = objects[
            rng.integers(len(objects), size=per_image // 2 if len(objects) else 0)
        ]
        boxes = np.concatenate([near[:, :4], _boxes(rng, per_image - len(near))])
        boxes[: len(near)] += rng.normal(0, 0.1, near[:, :4].shape) * np.tile(
            near[:, 2:4], 2
        )
        boxes[:, 2:] = boxes[:, :2] + np.abs(boxes[:, 2:])
        found = rng.integers(len(labels), size=per_image)
        kept = rng.random(len(near)) < 0.8
        found[: len(near)][kept] = near[kept, 4]
        samples.append(
            dict(
                img_id=image["id"],
                ori_shape=(image["height"], image["width"]),
                pred_instances=dict(
                    bboxes=torch.tensor(boxes, dtype=torch.float32),
                    scores=torch.tensor(
                        rng.random(per_image).round(2), dtype=torch.float32
                    ),
                    labels=torch.tensor(found),
                ),
            )
        )
    return samples


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Make boxes of 8 to 400 px anywhere in an image: x, y, width, height."""
    size = np.minimum(8 * 50 ** rng.random((count, 2)), SIZE)
    return np.concatenate([rng.random((count, 2)) * (SIZE - size), size], axis=1)
