"""Networks for the tests of ``ghostdet.weights``: none can be downloaded here."""

import pytest
import torch
import torch.nn.functional as F
from random_norms import timm_ghostnet
from torch import nn

from ghostdet.models import GhostNet
from ghostdet.models.backbones.ghostnet import BLOCKS
from ghostdet.weights import pretrained
from ghostdet.weights.paddle import BOTTLENECKS

ROWS = [row for rows in BLOCKS for row in rows]


@pytest.fixture(scope="session")
def classifier():
    return timm_ghostnet


@pytest.fixture
def log(monkeypatch):
    """Lines that loading pretrained weights logs."""
    lines = []
    monkeypatch.setattr(pretrained, "print_log", lambda text, **_: lines.append(text))
    return lines


class PaddleLayers(nn.Module):
    """PaddleClas's GhostNet, from its description: an oracle for the conversion.

    https://github.com/PaddlePaddle/PaddleClas/blob/develop/ppcls/arch/backbone/model_zoo/ghostnet.py
    """

    def __init__(self, width):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        sizes = GhostNet(width, out_indices=(4,), se_divisor=1).state_dict()
        self.arrays = {}

        def array(name, shape, low=None, high=None):
            if low is None:  # as large at every layer
                high = (3 / max(1, torch.Size(shape[1:]).numel())) ** 0.5
                low = -high
            values = torch.rand(shape, generator=generator) * (high - low) + low
            self.arrays[name] = values.numpy()

        def conv_norm(name, shape):
            array(f"{name}._conv.weight", shape)
            for key, low in (("weight", 0.5), ("bias", -0.5), ("_mean", -0.1)):
                array(f"{name}._batch_norm.{key}", shape[:1], low, low + 1)
            array(f"{name}._batch_norm._variance", shape[:1], 0.5, 1.5)

        conv_norm("conv1", sizes["conv_stem.weight"].shape)
        for number, name in enumerate(BOTTLENECKS):
            theirs = f"_ghostbottleneck_{number}"
            for ours, layer in (
                ("ghost1.primary_conv.0", "ghost_module_1.primary_conv"),
                ("ghost1.cheap_operation.0", "ghost_module_1.cheap_operation"),
                ("conv_dw", "depthwise_conv"),
                ("ghost2.primary_conv.0", "ghost_module_2.primary_conv"),
                ("ghost2.cheap_operation.0", "ghost_module_2.cheap_operation"),
                ("shortcut.0", "shortcut_depthwise"),
                ("shortcut.2", "shortcut_conv"),
            ):
                if f"{name}.{ours}.weight" in sizes:
                    conv_norm(f"{theirs}.{layer}", sizes[f"{name}.{ours}.weight"].shape)
            if f"{name}.se.conv_reduce.bias" in sizes:
                exp = len(sizes[f"{name}.se.conv_expand.bias"])
                array(f"{theirs}.se_block.squeeze.weight", (exp, exp // 4))
                array(f"{theirs}.se_block.squeeze.bias", (exp // 4,))
                array(f"{theirs}.se_block.excitation.weight", (exp // 4, exp))
                array(f"{theirs}.se_block.excitation.bias", (exp,))
        conv_norm("conv_last", sizes["blocks.9.0.conv.weight"].shape)
        conv_norm("fc_0", (1280, sizes["blocks.9.0.conv.weight"].shape[0], 1, 1))
        array("fc_1.weight", (1280, 10))
        array("fc_1.bias", (10,))

    def conv_norm(self, x, name, stride=1, relu=False):
        p = {
            n[len(name) + 1 :]: torch.as_tensor(v).to(x)
            for n, v in self.arrays.items()
            if n.startswith(f"{name}.")
        }
        weight = p["_conv.weight"]
        groups = x.shape[1] if weight.shape[1] == 1 and x.shape[1] > 1 else 1
        x = F.conv2d(x, weight, None, stride, weight.shape[2] // 2, 1, groups)
        x = F.batch_norm(
            x,
            p["_batch_norm._mean"],
            p["_batch_norm._variance"],
            p["_batch_norm.weight"],
            p["_batch_norm.bias"],
        )
        return x.relu() if relu else x

    def ghost(self, x, name, relu):
        x = self.conv_norm(x, f"{name}.primary_conv", relu=relu)
        return torch.cat([x, self.conv_norm(x, f"{name}.cheap_operation", 1, relu)], 1)

    def linear(self, x, name):
        weight, bias = (
            torch.as_tensor(self.arrays[f"{name}.{k}"]).to(x)
            for k in ("weight", "bias")
        )
        return x @ weight + bias

    def forward(self, x):
        x = self.conv_norm(x, "conv1", 2, True)
        for number, row in enumerate(ROWS):
            name = f"_ghostbottleneck_{number}"
            y = self.ghost(x, f"{name}.ghost_module_1", True)
            if row.stride == 2:
                y = self.conv_norm(y, f"{name}.depthwise_conv", 2)
            if row.se:
                gate = self.linear(y.mean((2, 3)), f"{name}.se_block.squeeze").relu()
                gate = self.linear(gate, f"{name}.se_block.excitation").clip(0, 1)
                y = y * gate[:, :, None, None]
            y = self.ghost(y, f"{name}.ghost_module_2", False)
            if f"{name}.shortcut_conv._conv.weight" in self.arrays:
                x = self.conv_norm(x, f"{name}.shortcut_depthwise", row.stride)
                x = self.conv_norm(x, f"{name}.shortcut_conv")
            x = x + y
        return self.conv_norm(x, "conv_last", 1, True)


@pytest.fixture(scope="session")
def paddle():
    """PaddleClas's GhostNet of a width; ``arrays`` is what its files hold."""
    return PaddleLayers
