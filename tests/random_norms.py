"""Networks in which no BN is the identity."""

import torch
from timm.models.ghostnet import _create_ghostnet
from torch import nn


def with_random_norms(network: nn.Module) -> nn.Module:
    """Give every BN statistics and scales with which it is not the identity."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def timm_ghostnet(width: float = 1.0, version: str = "v1") -> nn.Module:
    """Build timm's GhostNet with its classifier."""
    torch.manual_seed(0)
    return with_random_norms(
        _create_ghostnet("ghostnet_100", width=width, version=version)
    )
