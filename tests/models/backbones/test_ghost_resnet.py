import pytest
import torch
import torchvision
from torch import nn

from ghostdet import CONFIGS
from ghostdet.analysis import complexity
from ghostdet.models import GhostConv, GhostResNet

# Others count the same: https://github.com/huawei-noah/Efficient-AI-Backbones/issues/146.
# The paper has 13M and 2.2G, 6.5M and 1.2G.
FIGURES = {2: ("", 13.95, 2.15), 4: ("_s4", 8.15, 1.18)}


@pytest.mark.parametrize("ratio", FIGURES)
def test_parameters_and_macs(ratio):
    """From torchvision's network: each convolution but the first in its Ghost form."""
    suffix, *figures = FIGURES[ratio]
    result = complexity(f"{CONFIGS}/classification/ghost_resnet50{suffix}_in1k.py")
    macs, params = [], []

    def hook(module, inputs, output):
        s = ratio if macs and isinstance(module, nn.Conv2d) else 1
        weights = module.weight.numel() // s
        if s > 1:
            weights += 9 * module.out_channels // s * (s - 1)
        macs.append(weights * (output.shape[-1] ** 2 if output.ndim == 4 else 1))
        params.append(weights)

    with torch.device("meta"):
        plain = torchvision.models.resnet50().eval()
        for module in plain.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(hook)
        plain(torch.empty(1, 3, 224, 224))
    others = sum(p.numel() for p in plain.parameters() if p.ndim == 1)
    assert result["macs"]["total"] == sum(macs)
    assert result["params"]["total"] == sum(params) + others
    total = sum(params) + others
    assert [round(total / 1e6, 2), round(sum(macs) / 1e9, 2)] == figures


def test_the_stem_is_ordinary():
    network = GhostResNet(18, ratio=3, dw_kernel=5)
    assert type(network.conv1) is nn.Conv2d
    ghosts = [m for m in network.modules() if isinstance(m, GhostConv)]
    assert len(ghosts) == 19
    assert {m.cheap_operation.kernel_size for m in ghosts} == {(5, 5)}
