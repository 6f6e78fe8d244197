"""A small COCO dataset of drawn blood cells, which a detector can learn."""

import json
from pathlib import Path

import cv2
import numpy as np
import torch
from mmdet.datasets import CocoDataset

CELLS = ("RBC", "WBC", "Platelets")
COCO = CocoDataset.METAINFO["classes"]
# COCO's identifiers of its 80 categories have gaps.
COCO_IDS = sorted({*range(1, 91)} - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
# Options of a config whose data is loaded without other processes.
IN_PROCESS = {
    f"{part}_dataloader.{key}": value
    for part in ("train", "val", "test")
    for key, value in (("num_workers", 0), ("persistent_workers", False))
}
# Range of the radius in pixels, and colour in BGR, of each class.
LOOKS = (((9, 13), (90, 70, 200)), ((16, 22), (160, 40, 100)), ((4, 6), (60, 160, 60)))
SIZE = 120, 160  # height, width


def write_cells(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Write a dataset in the layout of ``configs/_base_/datasets/bccd_detection.py``.

    Args:
        root: Folder to write into.
        counts: Number of images by part, such as ``dict(train=12, val=6)``.
        seed: Equal seeds give equal files.
    """
    for number, (part, count) in enumerate(counts.items()):
        write_part(
            root / f"annotations/{part}.json",
            root / "images",
            CELLS,
            [f"{part}_{i}.jpg" for i in range(count)],
            100 * seed + number,
        )
    return root


def write_coco(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Write a dataset in the layout of COCO 2017, with its 80 categories."""
    for number, (part, count) in enumerate(counts.items()):
        write_part(
            root / f"annotations/instances_{part}2017.json",
            root / f"{part}2017",
            COCO,
            [f"{100 * number + i:012}.jpg" for i in range(1, count + 1)],
            100 * seed + number,
        )
    return root


def samples_of(coco: dict, detections: list[dict], labels: dict[int, int]) -> list:
    """Give detections as a ``CocoMetric`` takes them, a sample for each image.

    Args:
        coco: Annotations, with the images.
        detections: In COCO's results format; the score is 1 if they have none.
        labels: Labels by id of the category.
    """
    samples = []
    for image in coco["images"]:
        own = [d for d in detections if d["image_id"] == image["id"]]
        boxes = torch.tensor([d["bbox"] for d in own], dtype=torch.float64)
        boxes = boxes.reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]  # x, y, width, height to corners
        instances = dict(
            bboxes=boxes,
            scores=torch.tensor([d.get("score", 1.0) for d in own]),
            labels=torch.tensor([labels[d["category_id"]] for d in own]).long(),
        )
        shape = image["height"], image["width"]
        samples.append(
            dict(img_id=image["id"], ori_shape=shape, pred_instances=instances)
        )
    return samples


def write_part(ann_file, folder, classes, names, seed):
    """Write images and their annotations.

    The second image is grey, the third has no objects, the fourth has a crowd.
    """
    rng = np.random.default_rng(seed)
    ann_file.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number, name in enumerate(names):
        image = rng.normal(225, 4, (*SIZE, 3))
        for _ in range(0 if number == 2 else rng.integers(3, 7)):
            kind = int(rng.integers(len(LOOKS)))
            (low, high), color = LOOKS[kind]
            radius = int(rng.integers(low, high))
            x, y = (int(rng.integers(radius, side - radius)) for side in SIZE[::-1])
            cv2.circle(image, (x, y), radius, color, -1, cv2.LINE_AA)
            box = [x - radius, y - radius, 2 * radius, 2 * radius]
            angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
            outline = np.stack([np.cos(angles), np.sin(angles)], 1) * radius + (x, y)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number + 1,
                    category_id=kind + 1,
                    bbox=box,
                    area=float(np.pi * radius**2),
                    iscrowd=0,
                    segmentation=[outline.ravel().round(1).tolist()],
                )
            )
        if number == 3:
            height, width = SIZE
            counts = [0, height * 40, height * (width - 40)]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number + 1,
                    category_id=1,
                    bbox=[0, 0, 40, height],
                    area=40.0 * height,
                    iscrowd=1,
                    segmentation=dict(size=list(SIZE), counts=counts),
                )
            )
        image = image.clip(0, 255).astype(np.uint8)
        if number == 1:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        height, width = SIZE
        images.append(dict(id=number + 1, file_name=name, width=width, height=height))
    categories = [dict(id=i, name=name) for i, name in zip(COCO_IDS, classes)]
    content = dict(images=images, annotations=annotations, categories=categories)
    ann_file.write_text(json.dumps(content))
