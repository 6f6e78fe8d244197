import pytest
import torch
from timm.models.ghostnet import _create_ghostnet

from ghostdet.errors import ConfigError, UserError
from ghostdet.models import GhostNet, GhostNetV2
from ghostdet.weights import widen_state_dict


@pytest.mark.parametrize("source, target", [(1.0, 1.1), (1.0, 1.3), (0.5, 1.6)])
def test_logits_and_taps_stay(classifier, source, target):
    """With timm's classifiers as the judge; each tap has the old channels, repeated."""
    narrow = classifier(source)
    wide = _create_ghostnet("ghostnet_100", width=target).eval()
    wide.load_state_dict(widen_state_dict(narrow.state_dict(), target))
    x = torch.randn(2, 3, 75, 130)
    with torch.no_grad():
        expected, actual = narrow(x), wide(x)
        assert (actual - expected).abs().max() < 1e-4 * expected.abs().max()
        old, new = (net.act1(net.bn1(net.conv_stem(x))) for net in (narrow, wide))
        for old_block, new_block in zip(narrow.blocks, wide.blocks):
            old, new = old_block(old), new_block(new)
            parts = 1 if new_block is wide.blocks[9] else 2  # a half each of primary
            half = old.shape[1] // parts  # and of ghost maps
            index = torch.arange(new.shape[1] // parts) % half
            index = torch.cat([index + part * half for part in range(parts)])
            torch.testing.assert_close(new, old[:, index], rtol=1e-4, atol=1e-4)


def test_clip_gate_and_unrounded_reduction():
    """As PaddleClas has them: 18 reduced channels, not 20, at width 1.0."""
    arguments = dict(out_indices=(4,), se_gate="clip", se_divisor=1)
    narrow = GhostNet(1.0, **arguments).eval()
    wide = GhostNet(1.3, **arguments).eval()
    wide.load_state_dict(widen_state_dict(narrow.state_dict(), 1.3))
    assert len(wide.blocks[3][0].se.conv_reduce.bias) == 92 // 4
    with torch.no_grad():
        (old,), (new,) = (net(torch.ones(1, 3, 64, 64)) for net in (narrow, wide))
    index = torch.arange(new.shape[1]) % old.shape[1]
    torch.testing.assert_close(new, old[:, index])


def test_noise_parts_repeated_channels_alone():
    state_dict = GhostNet(1.0).state_dict()
    exact, noisy, again, other = (
        widen_state_dict(state_dict, 1.3, noise, seed)
        for noise, seed in ((0.0, 0), (0.1, 0), (0.1, 0), (0.1, 1))
    )
    name = "blocks.5.0.ghost1.primary_conv.0.weight"
    old = len(state_dict[name])
    assert torch.equal(noisy[name][:old], exact[name][:old])
    difference = noisy[name][old:] - exact[name][old:]
    assert difference.std() / exact[name].std() == pytest.approx(0.1, rel=0.1)
    assert all(torch.equal(noisy[n], again[n]) for n in noisy)
    assert not torch.equal(noisy[name], other[name])


def test_keeps_types_and_arguments():
    state_dict = {n: v.double() for n, v in GhostNet(0.5).state_dict().items()}
    state_dict = {
        n: v.long() if n.endswith("tracked") else v for n, v in state_dict.items()
    }
    before = {name: value.clone() for name, value in state_dict.items()}
    wide = widen_state_dict(state_dict, 1.0, noise=0.1)
    assert all(wide[n].dtype == state_dict[n].dtype for n in wide)
    assert all(torch.equal(state_dict[n], before[n]) for n in before)


def test_refuses_what_it_cannot_widen():
    with pytest.raises(ConfigError, match="widen_factor=0.5 is less than the"):
        widen_state_dict(GhostNet(1.0).state_dict(), 0.5)
    for arguments in ((float("nan"),), (0,), (1.3, float("nan")), (1.3, -1)):
        with pytest.raises(ConfigError, match="widen_factor is .* and noise"):
            widen_state_dict(GhostNet(1.0).state_dict(), *arguments)
    with pytest.raises(UserError, match="only a GhostNet .* has .*short_conv"):
        widen_state_dict(GhostNetV2(1.0).state_dict(), 1.3)
    with pytest.raises(UserError, match="this has layer1.0.weight"):
        widen_state_dict({"layer1.0.weight": torch.ones(2)}, 1.3)
