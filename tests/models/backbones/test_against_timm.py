"""GhostNets compared with timm's, block by block, with one state dict in both."""

import pytest
import torch
from random_norms import timm_ghostnet

from ghostdet.models import GhostNet, GhostNetV2, GhostNetV3

NETWORKS = {
    **{f"v1-{width}": (GhostNet, "v1", width) for width in (0.5, 1.0, 1.1, 1.3)},
    **{f"v2-{width}": (GhostNetV2, "v2", width) for width in (1.0, 1.3, 1.6)},
    "v3-1.0": (GhostNetV3, "v3", 1.0),
}
SIZES = [(64, 96), (49, 67)]
LEVELS = (2, 4, 6, 8, 9)  # indices into timm's ``blocks``


@pytest.fixture(params=NETWORKS)
def networks(request):
    """Ours and timm's with the same weights; no BN is the identity."""
    network, version, width = NETWORKS[request.param]
    theirs = timm_ghostnet(width, version)
    weights = {
        name: value.clone()
        for name, value in theirs.state_dict().items()
        if not name.startswith(("conv_head.", "classifier."))
    }
    ours = network(width, out_indices=(0, 1, 2, 3, 4))
    ours.load_state_dict(weights)
    return ours, theirs


def levels_of(theirs, x):
    """Outputs of the levels, running timm's modules one after another."""
    x = theirs.act1(theirs.bn1(theirs.conv_stem(x)))
    outs = []
    for index, block in enumerate(theirs.blocks):
        x = block(x)
        if index in LEVELS:
            outs.append(x)
    return outs


def assert_close(ours, theirs, what):
    error = (ours - theirs).norm() / theirs.norm()
    limit = 1e-5 if ours.dtype == torch.float32 else 1e-9
    assert error < limit, f"{what}: {error:.1e}"


@pytest.mark.parametrize("size", SIZES)
def test_evaluation(networks, size):
    ours, theirs = (network.eval() for network in networks)
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        for index, pair in enumerate(zip(ours(x), levels_of(theirs, x), strict=True)):
            assert_close(*pair, f"level {index}")


def test_training(networks):
    """Outputs, gradients of the input and of all parameters, and BN's statistics.

    In double precision: BN over few values and ReLU amplify the rounding of single
    precision to a hundredth of a gradient, timm's against itself in double precision.
    """
    ours, theirs = (network.train().double() for network in networks)
    x = torch.randn(3, 3, *SIZES[1]).double()
    results = []
    for run in (ours, lambda x: levels_of(theirs, x)):
        image = x.clone().requires_grad_()
        outs = run(image)
        sum(out.square().mean() for out in outs).backward()
        results.append([*outs, image.grad])
    for index, pair in enumerate(zip(*results, strict=True)):
        assert_close(*pair, f"result {index}")
    expected = dict(theirs.named_parameters())
    largest = max(p.grad.norm() for p in ours.parameters())
    for name, parameter in ours.named_parameters():
        if expected[name].grad.norm() < 1e-12 * largest:  # zero but for rounding
            assert parameter.grad.norm() < 1e-11 * largest
        else:
            assert_close(parameter.grad, expected[name].grad, name)
    expected = theirs.state_dict()
    for name, value in ours.state_dict().items():
        assert_close(value.double(), expected[name].double(), name)


@pytest.mark.parametrize("networks", ["v3-1.0"], indirect=True)
def test_merged_branches(networks):
    ours, theirs = (network.eval() for network in networks)
    x = torch.randn(1, 3, *SIZES[1])
    with torch.no_grad():
        before = ours(x)
        ours.switch_to_deploy()
        ours.switch_to_deploy()  # a second call changes nothing
        theirs.convert_to_deploy()
        after = ours(x)
        merged = levels_of(theirs, x)
    for index in range(5):
        assert_close(after[index], before[index], f"level {index}")
        assert_close(after[index], merged[index], f"level {index}")
    names = [name for name, _ in ours.named_parameters()]
    assert not any("rpr" in name for name in names)
    expected = [n for n, _ in theirs.named_parameters()]
    assert sorted(names) == sorted(n for n in expected if n.startswith(tuple(names)))
