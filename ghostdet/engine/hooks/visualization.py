"""Pictures of the detections in a test set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmdet.engine.hooks import DetVisualizationHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class FolderVisualizationHook(DetVisualizationHook):
    """``DetVisualizationHook`` that keeps the folders of the images.

    MMDetection's writes all pictures into one folder, where one of ``cam1/0.jpg`` and
    ``cam2/0.jpg`` replaces the other.
    """

    def before_test(self, runner: Runner) -> None:
        """Find the folder that all images have in common."""
        dataset = runner.test_loop.dataloader.dataset
        paths = (dataset.get_data_info(i)["img_path"] for i in range(len(dataset)))
        self._images = os.path.commonpath({os.path.dirname(path) for path in paths})
        self._pictures = self.test_out_dir

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Sequence[Any]
    ) -> None:
        """Draw a batch, each image into its own folder."""
        for output in outputs:
            folder = os.path.relpath(os.path.dirname(output.img_path), self._images)
            self.test_out_dir = os.path.normpath(os.path.join(self._pictures, folder))
            super().after_test_iter(runner, batch_idx, data_batch, [output])
