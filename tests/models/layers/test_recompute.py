import copy

import pytest
import torch

from ghostdet.models import GhostBottleneck
from ghostdet.models.layers.recompute import recompute


@pytest.mark.parametrize(
    "norm_cfg",
    [
        dict(type="BN"),
        dict(type="BN", momentum=None),
        dict(type="BN", track_running_stats=False),
        dict(type="GN", num_groups=1),
    ],
    ids=str,
)
def test_changes_nothing(norm_cfg):
    """Outputs, gradients and BN statistics, in training, over two steps."""
    plain = GhostBottleneck(6, 12, 10, stride=2, se_ratio=0.25, norm_cfg=norm_cfg)
    plain.double()
    saving = copy.deepcopy(plain)
    for _ in range(2):
        x = torch.randn(3, 6, 8, 8, dtype=torch.float64)
        results = []
        for block, run in ((plain, plain), (saving, lambda x: recompute(saving, x))):
            image = x.clone().requires_grad_()
            out = run(image)
            inputs = [image, *block.parameters()]
            results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
        torch.testing.assert_close(*results)
        torch.testing.assert_close(plain.state_dict(), saving.state_dict())
