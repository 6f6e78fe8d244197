import pytest
import torch
from mmdet.models.necks import FPN
from mmdet.registry import MODELS

from ghostdet.models import GhostNet, GhostNetFPN


@pytest.mark.parametrize(
    "strides, indices",
    [((8, 16, 32), (1, 2, 3)), ((4, 8, 16, 32), (0, 1, 2, 3)), ((16,), (2,))],
)
@pytest.mark.parametrize("width", [0.5, 1.1])
def test_is_fpn_on_the_taps(strides, indices, width):
    """Equal to MMDetection's FPN with the channels written out, weights in common."""
    arguments = dict(out_channels=8, num_outs=5, add_extra_convs="on_output")
    backbone = GhostNet(width, out_indices=indices).eval()
    neck = MODELS.build(
        dict(type="GhostNetFPN", widen_factor=width, strides=strides, **arguments)
    )
    fpn = FPN(in_channels=list(backbone.out_channels), **arguments)
    fpn.load_state_dict(neck.state_dict())
    with torch.no_grad():
        inputs = backbone(torch.randn(1, 3, 75, 130))
        for ours, theirs in zip(neck(inputs), fpn(inputs), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("strides", [(), (8, 32), (16, 8), (2, 4), (16, 32, 64)])
def test_refuses_strides_that_do_not_double(strides):
    with pytest.raises(ValueError, match="strides"):
        GhostNetFPN(strides=strides)


@pytest.mark.parametrize(
    "backbone, received",
    [
        (
            dict(widen_factor=1.3, out_indices=(1, 2, 3)),
            "52 at stride 8, 144 at stride 16, 208 at stride 32",
        ),
        (
            dict(widen_factor=1.0, out_indices=(0, 1, 2, 3)),
            "24 at stride 4, 40 at stride 8, 112 at stride 16, 160 at stride 32",
        ),
        (
            dict(widen_factor=1.0, out_indices=(2, 3)),
            "112 at stride 16, 160 at stride 32",
        ),
        (
            dict(widen_factor=1.0, out_indices=(1, 2, 4)),
            "40 at stride 8, 112 at stride 16, 960 at stride 32",
        ),
    ],
)
def test_states_expected_and_received(backbone, received):
    neck = GhostNetFPN(widen_factor=1.0, out_channels=8)
    inputs = GhostNet(**backbone).eval()(torch.zeros(1, 3, 64, 96))
    with pytest.raises(ValueError) as error:
        neck(inputs)
    expected = "40 at stride 8, 112 at stride 16, 160 at stride 32"
    assert f"expects 3 levels with channels {expected}" in str(error.value)
    assert f"received {len(inputs)} with {received}" in str(error.value)
    assert "out_indices=(1, 2, 3)" in str(error.value)


def test_refuses_sizes_that_do_not_halve():
    sizes = ((40, 8), (112, 8), (160, 2))
    with pytest.raises(ValueError, match="112 at stride 8"):
        GhostNetFPN(out_channels=8)([torch.zeros(1, c, s, s) for c, s in sizes])
