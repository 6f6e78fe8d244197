import pytest
import torch
from mmdet.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ghostdet.models import GhostNet

# Parameters and MACs at 224x224 of bottlenecks alone and with the final convolution, in
# millions, and tap channels: ../shared/ghostnet-facts.md, computed from the official
# network; 512 entries of its state dict less the four behind the backbone.
WIDTHS = {
    0.5: (0.65, 38.6, 0.69, 40.4, (12, 20, 56, 80, 480)),
    1.0: (2.52, 131.1, 2.67, 138.6, (24, 40, 112, 160, 960)),
    1.1: (3.03, 155.2, 3.22, 164.4, (28, 44, 124, 176, 1056)),
    1.3: (4.22, 211.4, 4.48, 224.1, (32, 52, 144, 208, 1248)),
}


def params_and_macs(model):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, 224, 224))
    params = sum(p.numel() for p in model.parameters())
    return params / 1e6, counter.get_total_flops() / 2e6


@pytest.mark.parametrize("width", WIDTHS)
def test_size_is_the_papers(width):
    body = params_and_macs(GhostNet(width, out_indices=(3,)))
    whole = params_and_macs(GhostNet(width, out_indices=(4,)))
    assert [round(v, d) for v, d in zip(body + whole, (2, 1, 2, 1))] == list(
        WIDTHS[width][:4]
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (1, 2, 3), (2,), (0, 4)])
def test_channels_and_strides_are_those_delivered(width, out_indices):
    model = GhostNet(width, out_indices=out_indices).eval()
    with torch.no_grad():
        outs = model(torch.zeros(1, 3, 97, 64))
    assert model.out_channels == tuple(WIDTHS[width][4][i] for i in out_indices)
    assert [tuple(x.shape[1:]) for x in outs] == [
        (c, -(-97 // s), 64 // s) for c, s in zip(model.out_channels, model.out_strides)
    ]


def test_taps_are_the_outputs_of_the_authors_blocks():
    """By identity: bottlenecks 3, 5, 11 and 16, counted flat, and the final one."""
    model = GhostNet(0.5, out_indices=(0, 1, 2, 3, 4), channels_last=False).eval()
    flat = [block for stage in model.blocks for block in stage]
    seen = {}
    for number, block in enumerate(flat, start=1):
        block.register_forward_hook(lambda m, i, o, n=number: seen.update({n: o}))
    outs = model(torch.randn(1, 3, 64, 64))
    assert len(flat) == 17
    assert [id(x) for x in outs] == [id(seen[n]) for n in (3, 5, 11, 16, 17)]


def test_official_parameter_names():
    names = GhostNet(out_indices=(4,)).state_dict()
    assert len(names) == 508
    for name in (
        "conv_stem.weight",
        "bn1.running_mean",
        "blocks.0.0.ghost1.primary_conv.0.weight",
        "blocks.8.3.ghost2.cheap_operation.1.num_batches_tracked",
        "blocks.7.0.conv_dw.weight",
        "blocks.7.0.bn_dw.bias",
        "blocks.3.0.se.conv_reduce.bias",
        "blocks.6.3.shortcut.3.weight",
        "blocks.9.0.conv.weight",
        "blocks.9.0.bn1.weight",
    ):
        assert name in names


def test_layers_behind_the_last_output_are_not_built():
    assert len(GhostNet(out_indices=(0, 1)).blocks) == 5


@pytest.mark.parametrize("frozen_stages", range(-1, 6))
def test_frozen_stages(frozen_stages):
    """Frozen parameters get no gradient, frozen BN keeps its statistics; no others."""
    model = GhostNet(0.5, out_indices=(4,), frozen_stages=frozen_stages)
    built = [parameter.requires_grad for parameter in model.parameters()]
    model.train()
    assert built == [parameter.requires_grad for parameter in model.parameters()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model(torch.randn(2, 3, 64, 64, requires_grad=True))[0].sum().backward()
    stages = {
        0: ["conv_stem.", "bn1."],
        1: ["blocks.0.", "blocks.1.", "blocks.2."],
        2: ["blocks.3.", "blocks.4."],
        3: ["blocks.5.", "blocks.6."],
        4: ["blocks.7.", "blocks.8."],
        5: ["blocks.9."],
    }
    frozen = tuple(p for i in range(frozen_stages + 1) for p in stages[i]) or ("-",)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen)
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            assert torch.equal(value, before[name]) == name.startswith(frozen), name


def test_norm_eval():
    model = GhostNet(0.5, norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(m.training for m in norms) and model.training
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    "arguments",
    [
        {"widen_factor": 0},
        {"out_indices": ()},
        {"out_indices": (3, 1)},
        {"out_indices": (1, 5)},
        {"frozen_stages": 6},
    ],
)
def test_refuses(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        GhostNet(**arguments)


def test_is_registered_with_norm_cfg_and_no_num_classes():
    """A num_classes attribute would be checked by MMDetection against the data set."""
    model = MODELS.build(
        dict(type="GhostNet", norm_cfg=dict(type="GN", num_groups=1), widen_factor=0.5)
    )
    assert isinstance(model, GhostNet)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert not any(hasattr(m, "num_classes") for m in model.modules())


@pytest.mark.parametrize(
    "channels_last, last", [(None, False), (True, True), (False, False)]
)
def test_memory_layout_changes_nothing_else(channels_last, last):
    torch.manual_seed(0)
    model = GhostNet(0.5, channels_last=channels_last).double()
    plain = GhostNet(0.5, channels_last=False).double()
    plain.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 66, 97).double()
    outs, expected = model(x), plain(x)
    for out in outs:
        assert out.is_contiguous(memory_format=torch.channels_last) == last
    torch.testing.assert_close(outs, expected, rtol=0, atol=1e-11)
    grads = [
        torch.autograd.grad(sum(o.square().sum() for o in o_), list(m.parameters()))
        for m, o_ in ((model, outs), (plain, expected))
    ]
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)
    for parameter in model.parameters():
        assert parameter.is_contiguous()
