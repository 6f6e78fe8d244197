"""Image classifiers, which pretrain the backbones of detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseModel
from torch import Tensor, nn

from ghostdet.errors import ConfigError


@MODELS.register_module()
class ClassificationHead(nn.Module):
    """The paper's classifier.

    Global average pooling, 1x1 convolution with bias and without BN, ReLU, dropout,
    linear layer, under the official names ``conv_head`` and ``classifier``.

    Args:
        in_channels: Channels of the backbone's last output.
        num_classes: Number of classes.
        hidden_channels: Channels of the 1x1 convolution; None leaves it out. The paper
            has 1280 at all widths (table 1).
        dropout: Probability of dropout before the linear layer; the official
            ``ghostnet_pytorch/ghostnet.py`` has 0.2.
        label_smoothing: Label smoothing of the loss.

    Raises:
        ConfigError: In ``forward``, if the backbone delivers other channels.

    Example:
        >>> import torch
        >>> head = ClassificationHead(960, num_classes=1000).eval()
        >>> head((torch.rand(2, 960, 7, 7),)).shape
        torch.Size([2, 1000])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        hidden_channels: int | None = 1280,
        dropout: float = 0.2,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.dropout = nn.Dropout(dropout)
        self.conv_head = None
        if hidden_channels is not None:
            self.conv_head = nn.Conv2d(in_channels, hidden_channels, 1)
        self.classifier = nn.Linear(hidden_channels or in_channels, num_classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Classify by the backbone's last output.

        Args:
            features: Outputs of the backbone, the last one ``(N, in_channels, H, W)``.

        Returns:
            Logits ``(N, num_classes)``.
        """
        channels = features[-1].shape[1]
        if channels != self.in_channels:
            raise ConfigError(
                f"head.in_channels is {self.in_channels}, but the backbone has "
                f"{channels}; add --cfg-options model.head.in_channels={channels}"
            )
        x = F.adaptive_avg_pool2d(features[-1], 1)
        if self.conv_head is not None:
            x = F.relu(self.conv_head(x))
        return self.classifier(self.dropout(x.flatten(1)))

    def loss(self, features: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Compute ``loss``, the mean cross entropy for ``labels`` ``(N,)``, int64."""
        logits = self(features)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return dict(loss=loss)


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """A backbone with a classification head, for MMEngine's Runner.

    It loads weights under its own names, such as ``backbone.conv_stem.weight``, or
    under published names, such as ``conv_stem.weight``.

    Args:
        backbone: Config of a backbone.
        head: Config of the head.
        data_preprocessor: Config of the data preprocessor.
        init_cfg: MMEngine initialiser.

    Example:
        >>> import torch
        >>> model = ImageClassifier(
        ...     dict(type='GhostNet', widen_factor=0.5, out_indices=(4,)),
        ...     dict(type='ClassificationHead', in_channels=480, num_classes=10)).eval()
        >>> model(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.head = MODELS.build(head)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any
    ) -> None:
        """Rename published weights, then load."""
        for part in ("backbone", "head"):
            for name in getattr(self, part).state_dict():
                published, own = prefix + name, f"{prefix}{part}.{name}"
                if published in state_dict and own not in state_dict:
                    state_dict[own] = state_dict.pop(published)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(
        self, inputs: Tensor, data_samples: dict | None = None, mode: str = "tensor"
    ) -> Tensor | dict[str, Tensor] | list[dict]:
        """Run the classifier.

        Args:
            inputs: Normalised images ``(N, 3, H, W)``, floating point.
            data_samples: Collated entries of the dataset: ``gt_label`` ``(N,)``,
                int64, and ``img_path``, a list.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``.

        Returns:
            Logits ``(N, num_classes)``; or ``loss``; or for each image ``pred_score``
            ``(num_classes,)``, ``pred_label`` and its ``data_samples``.
        """
        features = self.backbone(inputs)
        if mode == "loss":
            return self.head.loss(features, data_samples["gt_label"])
        logits = self.head(features)
        if mode == "tensor":
            return logits
        columns = dict(
            data_samples or {},
            pred_score=logits.softmax(1),
            pred_label=logits.argmax(1),
        )
        return [dict(zip(columns, row)) for row in zip(*columns.values())]
