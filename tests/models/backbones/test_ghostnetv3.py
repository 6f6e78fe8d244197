import pytest
import torch

from ghostdet.errors import ConfigError
from ghostdet.models import GhostNetV3


def test_merging_refuses_training_and_other_norms():
    with pytest.raises(ConfigError, match="training mode; call model.eval"):
        GhostNetV3(0.5).switch_to_deploy()
    model = GhostNetV3(0.5, norm_cfg=dict(type="GN", num_groups=1)).eval()
    with pytest.raises(ConfigError, match="branches with GroupNorm cannot be merged"):
        model.switch_to_deploy()


def test_merged_model_freezes_and_keeps_its_taps():
    model = GhostNetV3(0.5, out_indices=(1, 3), frozen_stages=2).eval()
    x = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        expected = model(x)
        model.switch_to_deploy()
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    frozen = [not p.requires_grad for p in model.blocks[4].parameters()]
    assert frozen and all(frozen)
