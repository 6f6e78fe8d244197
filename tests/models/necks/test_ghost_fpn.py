import pytest
import torch
from mmdet.models.necks import FPN
from mmdet.registry import MODELS

from ghostdet.errors import ConfigError
from ghostdet.models import GhostNet, GhostNetFPN


@pytest.mark.parametrize(
    "strides, indices",
    [((8, 16, 32), (1, 2, 3)), ((4, 8, 16, 32), (0, 1, 2, 3)), ((16,), (2,))],
)
@pytest.mark.parametrize("width", [0.5, 1.1])
@torch.no_grad()
def test_is_fpn_on_ghostnets_levels(strides, indices, width):
    """Equal to MMDetection's FPN with the channels written out and the same weights."""
    arguments = dict(out_channels=8, num_outs=5, add_extra_convs="on_output")
    backbone = GhostNet(width, out_indices=indices).eval()
    neck = MODELS.build(
        dict(type="GhostNetFPN", widen_factor=width, strides=strides, **arguments)
    )
    fpn = FPN(in_channels=list(backbone.out_channels), **arguments)
    fpn.load_state_dict(neck.state_dict())
    inputs = backbone(torch.randn(1, 3, 75, 130))
    for ours, theirs in zip(neck(inputs), fpn(inputs), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("strides", [(), (8, 32), (16, 8), (2, 4), (16, 32, 64)])
def test_refuses_strides_that_do_not_double(strides):
    with pytest.raises(ConfigError, match="strides is .* such as \\(8, 16, 32\\)"):
        GhostNetFPN(strides=strides)


@pytest.mark.parametrize(
    "received",
    [
        [(52, 8, 12), (144, 4, 6), (208, 2, 3)],  # another width
        [(24, 16, 24), (40, 8, 12), (112, 4, 6), (160, 2, 3)],
        [(112, 4, 6), (160, 2, 3)],
        [(40, 8, 12), (112, 8, 12), (160, 2, 3)],
    ],
)
def test_states_expected_and_received(received):
    neck = GhostNetFPN(widen_factor=1.0, out_channels=8)
    with pytest.raises(ConfigError) as error:
        neck([torch.zeros(1, *shape) for shape in received])
    text = str(error.value)
    assert "expects 3 levels with channels [40, 112, 160]" in text
    shapes = ", ".join(map(str, received))
    assert f"received {len(received)} with (C, H, W) {shapes};" in text
    assert "widen_factor=1.0 and out_indices=(1, 2, 3)" in text
