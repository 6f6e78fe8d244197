import pytest
import torch
import torch.nn.functional as F

from ghostdet.errors import ConfigError
from ghostdet.models import GhostBottleneck, GhostConv, GhostModule
from ghostdet.models.layers.ghost_module import join


@pytest.mark.parametrize("kernel_size, dw_kernel", [(1, 5), (3, 1)])
@pytest.mark.parametrize("ratio", [1, 2, 3, 5])
@pytest.mark.parametrize("out_channels", [1, 7, 16])
def test_ghost_module_is_its_definition(kernel_size, ratio, dw_kernel, out_channels):
    """The first maps are convolutions, each of the others filters one of them."""
    module = GhostModule(5, out_channels, kernel_size, ratio, dw_kernel, stride=2)
    module.eval()
    x = torch.randn(2, 5, 9, 11)
    conv, norm = module.primary_conv[:2]
    intrinsic = F.relu(norm(F.conv2d(x, conv.weight, None, 2, kernel_size // 2)))
    expected = list(intrinsic.unbind(1))
    if ratio > 1:
        conv, norm = module.cheap_operation[:2]
        maps = [
            F.conv2d(
                intrinsic[:, i // (ratio - 1)].unsqueeze(1),
                kernel.unsqueeze(0),
                padding=dw_kernel // 2,
            )
            for i, kernel in enumerate(conv.weight)
        ]
        expected += F.relu(norm(torch.cat(maps, 1))).unbind(1)
    torch.testing.assert_close(module(x), torch.stack(expected[:out_channels], 1))


@pytest.mark.parametrize("network", [GhostModule, GhostConv, GhostBottleneck])
@pytest.mark.parametrize("arguments", [{"ratio": 0}, {"ratio": 1.5}, {"dw_kernel": 4}])
def test_refuses(network, arguments):
    with pytest.raises(ConfigError, match=f"{next(iter(arguments))} is .*, expected"):
        network(4, 4, 3, **arguments)


def test_bottleneck_refuses_an_even_kernel():
    with pytest.raises(ConfigError, match="kernel_size is 4, expected an odd integer"):
        GhostBottleneck(4, 8, 4, kernel_size=4, stride=2)


@pytest.mark.parametrize("stride, kernel_size", [(1, 3), (2, 7), (3, 3)])
@pytest.mark.parametrize("in_channels, out_channels", [(7, 7), (5, 9)])
@pytest.mark.parametrize("size", [(1, 1), (13, 8)])
def test_bottleneck_shapes(stride, in_channels, out_channels, kernel_size, size):
    block = GhostBottleneck(
        in_channels, 11, out_channels, kernel_size, stride, se_ratio=0.25, ratio=3
    ).eval()
    out = block(torch.randn(2, in_channels, *size))
    assert out.shape == (2, out_channels, *(-(-side // stride) for side in size))


def test_bottleneck_output_is_linear():
    """No activation after the addition: the output has negative values."""
    block = GhostBottleneck(8, 16, 8).eval()
    assert (block(torch.randn(1, 8, 8, 8)) < 0).any()
    assert len(block.shortcut) == 0


@pytest.mark.parametrize("channels", [4, 5, 6])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_join_is_a_concatenation_with_dense_gradients(channels, layout):
    parts = [torch.randn(2, 3, 4, 5).double().to(memory_format=layout) for _ in "ab"]
    out = join(*parts, channels)
    assert torch.equal(out, torch.cat(parts, dim=1)[:, :channels])
    for part in parts:
        part.requires_grad_()
    torch.autograd.gradcheck(lambda *p: join(*p, channels), parts)
    gradient = torch.autograd.grad(join(*parts, 6).square().sum(), parts)[1]
    assert gradient.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("module", [GhostModule(6, 9), GhostBottleneck(6, 8, 6)])
def test_compiles_traces_and_differentiates_twice(module):
    """With gradients switched on, which pass through our hooks."""
    module = module.double().eval()
    x = torch.randn(1, 6, 4, 4).double().requires_grad_()
    torch.autograd.gradgradcheck(module, (x,))
    expected = module(x)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)
    torch.testing.assert_close(torch.jit.trace(module, x)(x), expected)
