import numpy as np
import pytest
import torch
from random_norms import with_random_norms
from torch import nn

from ghostdet.analysis import capture, ghost_origins, similar_pairs
from ghostdet.analysis.feature_maps import ghost_of
from ghostdet.errors import UserError
from ghostdet.models.backbones.ghostnetv2 import GhostModuleV2
from ghostdet.models.backbones.ghostnetv3 import GhostModuleV3
from ghostdet.models.layers.ghost_conv import GhostConv
from ghostdet.models.layers.ghost_module import GhostModule

# Of four channels, without ReLU, which would hide changes.
MODULES = {
    "even": lambda: GhostModule(4, 8, act_cfg=None),
    "cut": lambda: GhostModule(4, 25, ratio=4, act_cfg=None),
    "cut by more than an intrinsic map has": lambda: GhostModule(
        4, 6, ratio=5, act_cfg=None
    ),
    "conv": lambda: GhostConv(4, 16, 3, padding=1, ratio=3, dw_kernel=1),
    "groups": lambda: GhostConv(4, 14, 3, padding=1, ratio=2, dw_kernel=5, groups=2),
    "v2": lambda: GhostModuleV2(4, 9, act_cfg=None),
    "v3": lambda: GhostModuleV3(4, 9, dfc=True, act_cfg=None),
    "v3 merged": lambda: merged(GhostModuleV3(4, 9, act_cfg=None)),
}


def merged(module):
    module.eval().switch_to_deploy()
    return module


@pytest.fixture(params=MODULES)
def module(request):
    torch.manual_seed(0)
    return with_random_norms(MODULES[request.param]())


def test_kernels_make_the_ghost_maps(module):
    """By the kernel, each ghost map is the convolution of its intrinsic map.

    That a module returns the intrinsic maps first is tested in tests/models/layers.
    """
    x = torch.rand(1, 4, 6, 8)
    ghost = ghost_of(module)
    intrinsic, ghosts = capture([ghost.primary, ghost.cheap], lambda: module(x))
    count, kernel = intrinsic.shape[1], ghost.conv.kernel_size[0]
    origins = ghost_origins(module)
    assert len(origins) == module.out_channels
    assert origins[:count] == list(range(min(count, len(origins))))
    for j, origin in enumerate(origins[count:]):
        expected = nn.functional.conv2d(
            intrinsic[:, origin : origin + 1],
            ghost.conv.weight[j : j + 1],
            ghost.conv.bias[j : j + 1],
            padding=kernel // 2,
        )
        assert torch.allclose(expected, ghosts[:, j : j + 1], atol=1e-5)


@pytest.mark.parametrize(
    "module",
    [
        GhostModule(3, 8, ratio=1),
        GhostConv(8, 8, 3, groups=8),  # depthwise
        nn.Conv2d(3, 8, 1),
    ],
    ids=lambda module: type(module).__name__,
)
def test_no_ghost_maps(module):
    assert ghost_of(module) is None
    with pytest.raises(UserError, match=f"a {type(module).__name__} makes no ghost"):
        ghost_origins(module)


def by_brute_force(maps, count):
    """Greedily, from the matrix of numpy.corrcoef."""
    left = np.abs(np.nan_to_num(np.corrcoef(maps.reshape(len(maps), -1))))
    np.fill_diagonal(left, 0)
    pairs = []
    while len(pairs) < count and left.any():
        pair = sorted(int(i) for i in np.unravel_index(left.argmax(), left.shape))
        pairs.append((*pair, left[tuple(pair)]))
        left[pair] = left[:, pair] = 0
    return pairs


@pytest.mark.parametrize("channels", [2, 7, 12])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_pairs_against_numpy(channels, count):
    maps = np.random.default_rng(0).normal(size=(channels, 5, 7)).astype(np.float32)
    maps[0] = 3.0
    maps[-1] += maps[1]
    pairs = similar_pairs(maps, count)
    expected = by_brute_force(maps, count)
    assert [pair[:2] for pair in pairs] == [pair[:2] for pair in expected]
    assert [p[2] for p in pairs] == pytest.approx([p[2] for p in expected], abs=1e-6)
    assert len(pairs) == min(count, (channels - 1) // 2)


def test_capture_keeps_the_first_output_before_it_is_written_over():
    layer, unused = nn.Conv2d(1, 1, 1), nn.Identity()
    model = nn.Sequential(layer, nn.ReLU(inplace=True))
    first, second = -torch.rand(2, 1, 1, 3, 3)
    expected = layer(first).detach()
    layer.bias.data -= expected.max() + 1

    def run():
        model(first)
        model(second)

    kept, none = capture([layer, unused], run)
    assert none is None and not layer._forward_hooks
    assert (kept < 0).all() and torch.equal(kept, layer(first))
