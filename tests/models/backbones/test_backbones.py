"""Rules that hold for every backbone: registration, levels, freezing, BN, memory."""

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from ghostdet.errors import ConfigError
from ghostdet.models import GhostNet, GhostNetV2, GhostNetV3, MobileNetV3

# Number of blocks up to the stem and up to each feature level.
GHOSTNET = (0, 3, 5, 7, 9, 10)
BLOCKS = {
    GhostNet: GHOSTNET,
    GhostNetV2: GHOSTNET,
    GhostNetV3: GHOSTNET,
    MobileNetV3: (0, 3, 6, 12, 15, 16),
}
ALL = dict.fromkeys((network.__name__ for network in BLOCKS), dict(widen_factor=0.5))
ALL |= {"GhostResNet": dict(depth=18), "CifarVGG16": {}, "CifarResNet": dict(depth=8)}
STRIDES = (4, 8, 16, 32, 32)

each = pytest.mark.parametrize("network", BLOCKS, ids=lambda x: x.__name__)


@pytest.mark.parametrize("name", ALL)
def test_is_registered(name):
    """A num_classes attribute would make MMDetection compare it with the dataset."""
    model = MODELS.build(dict(type=name, **ALL[name]))
    model.eval()  # ResNet's returns None
    assert isinstance(model(torch.zeros(1, 3, 64, 64)), tuple)
    assert not any(hasattr(module, "num_classes") for module in model.modules())


@each
@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (1, 3), (2,), (0, 4)])
@torch.no_grad()
def test_states_its_outputs(network, out_indices):
    """Outputs are the levels' last blocks, and no block after the last one is built."""
    model = network(0.5, out_indices, channels_last=False).eval()
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda m, i, o: seen.append(id(o)))
    outs = model(torch.zeros(1, 3, 97, 64))
    counts = [BLOCKS[network][i + 1] for i in out_indices]
    assert [id(x) for x in outs] == [seen[count - 1] for count in counts]
    assert len(model.blocks) == counts[-1]
    assert model.out_strides == tuple(STRIDES[i] for i in out_indices)
    assert [tuple(x.shape[1:]) for x in outs] == [
        (c, -(-97 // s), 64 // s) for c, s in zip(model.out_channels, model.out_strides)
    ]


@each
@pytest.mark.parametrize("frozen_stages", range(-1, 6))
def test_frozen_stages(network, frozen_stages):
    """Before and after ``train()``; frozen BN stays in evaluation mode."""
    model = network(0.5, (4,), frozen_stages=frozen_stages)
    frozen = []
    if frozen_stages >= 0:
        frozen = [*model.stem, *model.blocks[: BLOCKS[network][frozen_stages]]]
    expected = {id(p) for module in frozen for p in module.parameters()}
    for _ in range(2):
        fixed = {id(p) for p in model.parameters() if not p.requires_grad}
        assert fixed == expected
        model.train()
    still = {id(m) for module in frozen for m in module.modules()}
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.training == (id(m) not in still) for m in norms)


@each
def test_norm_eval(network):
    model = network(0.5, norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(m.training for m in norms) and model.training
    assert all(p.requires_grad for p in model.parameters())


def step(model, x):
    """Outputs and gradients of a training step."""
    outs = model.train()(x)
    loss = sum(out.square().mean() for out in outs)
    return outs, torch.autograd.grad(loss, list(model.parameters()))


@each
def test_recomputation(network):
    """A block runs again in the backward pass, in training alone."""
    model = network(0.5, (1,), with_cp=True)
    runs = []
    model.blocks[1].register_forward_pre_hook(lambda *_: runs.append(1))
    x = torch.randn(2, 3, 64, 64)
    step(model, x)
    assert len(runs) == 2
    model.eval()(x)
    assert len(runs) == 3


@each
@pytest.mark.parametrize("channels_last", [None, True, False])
def test_memory_layout_changes_nothing_else(network, channels_last):
    torch.manual_seed(0)
    plain = network(0.5, (0, 1), channels_last=False).double()
    model = network(0.5, (0, 1), channels_last=channels_last).double()
    model.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 34, 49).double()
    results = step(model, x)
    for out in results[0]:
        last = out.is_contiguous(memory_format=torch.channels_last)
        assert last == (channels_last is True)
    torch.testing.assert_close(results, step(plain, x), rtol=1e-7, atol=1e-9)
    assert all(p.is_contiguous() for p in model.parameters())


@pytest.mark.parametrize(
    "arguments",
    [
        {"widen_factor": 0},
        {"out_indices": ()},
        {"out_indices": (3, 1)},
        {"out_indices": (1, 5)},
        {"frozen_stages": 6},
        {"frozen_stages": -2},
    ],
    ids=str,
)
def test_refuses(arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        GhostNet(**arguments)
