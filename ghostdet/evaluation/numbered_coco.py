"""Ground truth for faster-coco-eval, which takes only integers as ids of images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from faster_coco_eval import COCO


class NumberedCOCO(COCO):
    """A ``COCO`` of faster-coco-eval whose images may have any id.

    Images are numbered in the order of their ids, in which pycocotools evaluates them
    too.

    Args:
        truth: Annotations in COCO's format, or a file of them.
    """

    def __init__(self, truth: dict | str) -> None:
        truth = self.load_json(truth)
        ids = {image["id"] for image in truth["images"]}
        ordered = sorted(ids, key=lambda i: (isinstance(i, str), i))
        self.numbers = {i: number for number, i in enumerate(ordered)}
        images = self._numbered(truth["images"], "id")
        annotations = self._numbered(truth.get("annotations", []), "image_id")
        super().__init__({**truth, "images": images, "annotations": annotations})

    def loadRes(self, found: Sequence[dict]) -> COCO:
        """Read detections in COCO's format."""
        return super().loadRes(self._numbered(found, "image_id"))

    def _numbered(self, items: Iterable[dict], key: str) -> list[dict]:
        unknown = -1  # an image that is not listed, as in the file
        return [{**item, key: self.numbers.get(item[key], unknown)} for item in items]
