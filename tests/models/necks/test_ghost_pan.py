import pytest
import torch
from random_norms import with_random_norms
from torch.nn.functional import interpolate

from ghostdet.errors import ConfigError
from ghostdet.models import GhostPAN


def test_is_its_definition():
    """Laterals, then top-down, then bottom-up, written out for three levels."""
    neck = with_random_norms(GhostPAN([8, 12, 16], 6, num_outs=5))
    c3, c4, c5 = inputs = levels(8, 12, 16, size=(25, 38))
    (l3, l4, l5), down = neck.lateral_convs, neck.downsample_convs
    with torch.no_grad():
        t5 = l5(c5)
        t4 = neck.top_down_blocks[1](l4(c4) + interpolate(t5, (13, 19)))
        p3 = neck.top_down_blocks[0](l3(c3) + interpolate(t4, (25, 38)))
        p4 = neck.bottom_up_blocks[0](t4 + down[0](p3))
        p5 = neck.bottom_up_blocks[1](t5 + down[1](p4))
        p6 = down[2](p5)
        expected = p3, p4, p5, p6, down[3](p6)
        for out, other in zip(neck(inputs), expected, strict=True):
            torch.testing.assert_close(out, other)
    assert expected[-1].shape[1:] == (6, 2, 3)


def test_every_output_sees_every_input():
    neck = with_random_norms(GhostPAN([8, 12, 16], 6, num_outs=4))
    inputs = [x.requires_grad_() for x in levels(8, 12, 16, size=(16, 16))]
    for out in neck(inputs):
        gradients = torch.autograd.grad(out.sum(), inputs, retain_graph=True)
        assert all(g.abs().sum() > 0 for g in gradients)


def test_refuses_other_inputs():
    inputs = levels(8, 12, 20, size=(16, 16))
    with pytest.raises(
        ConfigError, match=r"GhostPAN expects 3 .*\(20, 4, 4\); set in_c"
    ):
        GhostPAN([8, 12, 16], 6)(inputs)


@pytest.mark.parametrize("arguments", [{"num_outs": 1}, {"kernel_size": 4}])
def test_refuses(arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        GhostPAN([8, 12], 6, **arguments)


def levels(*channels, size):
    """Random inputs, each half the size of the one before, rounded up."""
    outs = []
    for c in channels:
        outs.append(torch.randn(1, c, *size))
        size = tuple(-(-side // 2) for side in size)
    return outs
