import pytest
import torch
import torchvision
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from torch import nn

from ghostdet import CONFIGS
from ghostdet.analysis import complexity
from ghostdet.config import load_config
from ghostdet.models import GhostConv, GhostResNet

CLASSIFIERS = {
    2: f"{CONFIGS}/classification/ghost_resnet50_in1k.py",
    4: f"{CONFIGS}/classification/ghost_resnet50_s4_in1k.py",
}
# Others count the same: https://github.com/huawei-noah/Efficient-AI-Backbones/issues/146.
# The paper has 13M and 2.2G, 6.5M and 1.2G.
FIGURES = {2: (13.95, 2.15), 4: (8.15, 1.18)}


@pytest.mark.parametrize("ratio", CLASSIFIERS)
def test_parameters_and_macs(ratio):
    """From torchvision's network: each convolution but the first in its Ghost form."""
    result = complexity(CLASSIFIERS[ratio])
    macs = []

    def hook(module, inputs, output):
        s = ratio if macs and isinstance(module, nn.Conv2d) else 1
        weights = module.weight.numel() // s
        if s > 1:
            weights += 9 * module.out_channels // s * (s - 1)
        macs.append(weights * (output.shape[-1] ** 2 if output.ndim == 4 else 1))
        params.append(weights)

    params = []
    with torch.device("meta"):
        plain = torchvision.models.resnet50().eval()
        for module in plain.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(hook)
        plain(torch.empty(1, 3, 224, 224))
    others = sum(p.numel() for p in plain.parameters() if p.ndim == 1)
    assert result["macs"]["total"] == sum(macs)
    assert result["params"]["total"] == sum(params) + others
    figures = round(result["params"]["total"] / 1e6, 2), round(sum(macs) / 1e9, 2)
    assert figures == FIGURES[ratio]


def test_plain_is_torchvisions():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50().eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
    ours = GhostResNet(50, ratio=1)
    ours.eval()
    names = {name.replace(".primary_conv", ""): name for name in ours.state_dict()}
    state = theirs.state_dict()
    ours.load_state_dict({own: state[name] for name, own in names.items()})
    x = torch.randn(1, 3, 65, 96)
    maps = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    for layer, out in zip(("layer1", "layer2", "layer3", "layer4"), ours(x)):
        maps = getattr(theirs, layer)(maps)
        torch.testing.assert_close(out, maps, rtol=1e-4, atol=1e-4)


def test_the_stem_is_ordinary():
    network = GhostResNet(18, ratio=3, dw_kernel=5)
    assert type(network.conv1) is nn.Conv2d
    ghosts = [m for m in network.modules() if isinstance(m, GhostConv)]
    assert len(ghosts) == 19
    assert {m.cheap_operation.kernel_size for m in ghosts} == {(5, 5)}


def test_learns_from_scratch():
    """MMDetection's ResNet keeps BN in evaluation mode unless it is told."""
    torch.manual_seed(0)
    cfg = load_config(CLASSIFIERS[2])
    assert cfg.train_dataloader.batch_size == 32
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [m.running_mean.clone() for m in norms]
    labels = dict(gt_label=torch.tensor([1, 2]))
    model(torch.randn(2, 3, 64, 64), labels, mode="loss")["loss"].backward()
    assert len(norms) == 53
    assert not any(map(torch.equal, before, [m.running_mean for m in norms]))
    assert all(p.grad is not None for p in model.parameters())
