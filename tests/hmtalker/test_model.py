"""The networks of HM-Talker against the paper's numbers and equations."""

import math

import pytest
import torch

from vocalface.hmtalker.config import MOUTH_REACH, Config
from vocalface.hmtalker.model import (
    A2AM,
    AudioAttNet,
    ExplicitEncoder,
    FaceField,
    Fusion,
    GaussianField,
    MouthField,
    TriPlaneEncoder,
    alignment_loss,
    audio_net,
    composite,
    draw_mask,
    draw_path,
    outputs,
)


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture
def face():
    torch.manual_seed(0)
    return FaceField(Config(), 512)


def test_parameter_counts_are_the_papers():
    assert count(audio_net(512)) == 168_352
    assert count(AudioAttNet()) == 2_149
    assert count(ExplicitEncoder()) == 1_078
    assert count(A2AM()) == 2_112
    assert count(Fusion()) == 3_136
    face, mouth = FaceField(Config(), 512), MouthField(Config(), 512)
    assert count(face.head) == 9_536
    assert count(face) == 217_619
    assert count(mouth) == 313_597


@pytest.mark.parametrize("base, desired, entries", [(16, 38.4, 28_392), (64, 57.6, 139_800)])
def test_encoder_is_a_partition_of_unity_inside_and_zero_outside(base, desired, entries):
    encoder = TriPlaneEncoder(base, desired)
    assert encoder.table.numel() == entries
    assert max(s * s for s in encoder.sides) < 2**17  # no level ever hashes
    encoder.table.data.fill_(1)
    x = torch.rand(200, 3) * 0.3 - 0.15
    assert torch.allclose(encoder(x), torch.ones(200, 36), atol=1e-5)
    assert (encoder(x + torch.tensor([0.31, 0.0, 0.0])) == 0).all()


def test_encoder_gradient_to_the_grid_sums_to_one_a_channel():
    encoder = TriPlaneEncoder(16, 38.4)
    h = encoder(torch.rand(1, 3) * 0.2 - 0.1)
    for channel in (0, 13, 35):
        (grad,) = torch.autograd.grad(h[0, channel], encoder.table, retain_graph=True)
        assert grad.sum().item() == pytest.approx(1, abs=1e-4)


def test_encoder_is_continuous_across_cells():
    encoder = TriPlaneEncoder(16, 38.4)
    encoder.table.data.normal_()
    steps = []
    for n in (4001, 8001):  # a jump at a cell's edge would not shrink with the step
        x = torch.linspace(-0.14, 0.14, n)[:, None].repeat(1, 3)
        steps.append(encoder(x).diff(dim=0).abs().max().item())
    assert steps[1] == pytest.approx(steps[0] / 2, rel=0.1)


def test_attention_is_a_convex_combination():
    net = AudioAttNet()
    x = torch.randn(5, 8, 32)
    y = net(x)
    assert (y <= x.amax(1) + 1e-6).all() and (y >= x.amin(1) - 1e-6).all()
    same = torch.ones(1, 8, 32) * torch.randn(32)
    assert torch.allclose(net(same)[0], same[0, 0], atol=1e-6)


def test_explicit_keeps_raw_action_units_and_a2am_is_not_negative(face):
    a = torch.rand(10) * 5
    c_ev = face.explicit(a)
    assert c_ev.shape == (32,) and torch.equal(c_ev[22:], a)
    assert (face.mapper(torch.randn(64, 32)) >= 0).all()


def test_gate_saturates_to_either_source_and_is_the_mean_at_one_half():
    fusion = Fusion()
    c_i, c_e = torch.randn(32), torch.randn(32)
    for p in fusion.mlp.parameters():
        p.data.zero_()
    assert torch.allclose(fusion(c_i, c_e)[0], (c_i + c_e) / 2)
    fusion.mlp[2].bias.data.fill_(1e3)
    assert torch.allclose(fusion(c_i, c_e)[0], c_e)
    fusion.mlp[2].bias.data.fill_(-1e3)
    assert torch.allclose(fusion(c_i, c_e)[0], c_i)
    assert torch.equal(Fusion("explicit")(c_i, c_e)[0], c_e)
    assert torch.equal(Fusion("implicit")(c_i, c_e)[0], c_i)
    assert torch.allclose(Fusion("fixed", 0.25)(c_i, c_e)[0], 0.25 * c_e + 0.75 * c_i)


def test_audio_path_never_touches_action_units(face):
    units = torch.rand(10, requires_grad=True)
    window, upper = torch.randn(8, 512), torch.rand(7)
    motion = face.motion(window, upper, units, "audio")
    (grad,) = torch.autograd.grad(motion.c_f.sum(), units, allow_unused=True)
    assert grad is None or (grad == 0).all()
    again = face.motion(window, upper, torch.rand(10), "audio")
    assert torch.equal(motion.c_f, again.c_f)


def test_paths_and_masks_are_drawn_at_the_papers_rates():
    config, gen = Config(), torch.Generator().manual_seed(0)
    draws = [draw_path(config, gen) for _ in range(10_000)]
    for name, p in (("audio", 0.4), ("masked", 0.4), ("vanilla", 0.2)):
        assert abs(draws.count(name) - 1e4 * p) < 3 * math.sqrt(1e4 * p * (1 - p))
    zeros = torch.stack([1 - draw_mask(config, gen) for _ in range(4_000)]).mean()
    assert zeros.item() == pytest.approx(0.2, abs=0.01)


def test_alternate_pairing_takes_audio_every_other_step():
    config, gen = Config(pairing="alternate"), torch.Generator().manual_seed(0)
    drawn = [draw_path(config, gen, step) for step in range(100)]
    assert all(d == "audio" for d in drawn[::2]) and all(d != "audio" for d in drawn[1::2])


def test_zero_head_leaves_the_canonical_field_and_outside_nothing_moves(face):
    means = torch.rand(20, 3) * 0.2 - 0.1
    field = GaussianField(means, torch.rand(20, 3), torch.full((20,), 0.01), 0)
    far = GaussianField(means + 1, torch.rand(20, 3), torch.full((20,), 0.01), 0)
    outside = face.deform(face.regions(far), torch.randn(32), torch.randn(7))
    assert (outside.means == 0).all() and (outside.quats == 0).all() and (outside.scales == 0).all()
    face.head[4].weight.data.zero_()
    still = face.deform(face.regions(field), torch.randn(32), torch.randn(7))
    a, b = field.gaussians(), field.gaussians(still)
    assert torch.equal(a.means, b.means) and torch.equal(a.scales, b.scales)


def test_deformation_never_alters_opacity_or_colour(face):
    field = GaussianField(torch.rand(20, 3) * 0.1, torch.rand(20, 3), torch.full((20,), 0.01), 2)
    delta = face.deform(face.regions(field), torch.randn(32), torch.randn(7))
    eye = torch.tensor([0.0, 0.0, 0.7])
    a, b = field.gaussians(None, eye, 2), field.gaussians(delta, eye, 2)
    assert torch.equal(a.opacities, b.opacities) and torch.equal(a.colors, b.colors)


def test_mouth_moves_mostly_up_and_down():
    mouth = MouthField(Config(), 16)
    mouth.head[4].weight.data.fill_(1e-3)
    h = torch.rand(4, 36)
    with torch.no_grad():
        d = mouth.deform(h, torch.rand(32)).means
    assert torch.allclose(d[:, 0] * 5, d[:, 1], rtol=1e-2) and torch.allclose(d[:, 2] * 5, d[:, 1], rtol=1e-2)


def test_nothing_in_the_mouth_leaves_it_and_what_strays_is_called_back():
    mouth = MouthField(Config(), 16)
    mouth.head[4].weight.data.fill_(1e4)
    d = mouth.deform(torch.rand(4, 36), torch.rand(32)).means
    assert (d.abs() < torch.tensor(MOUTH_REACH)).all() and d.abs().max() > 0.015
    d.abs().sum().backward()
    assert mouth.head[4].weight.grad.abs().max() > 1e-12


def test_alignment_is_zero_for_equal_features_and_can_detach():
    x = torch.rand(32, requires_grad=True)
    assert alignment_loss(x, x).item() == 0
    y = torch.rand(32, requires_grad=True)
    alignment_loss(x, y, detach=True).backward()
    assert y.grad is None and x.grad is not None


def test_composite_follows_equation_10():
    f, m, b = torch.rand(3, 4, 4, 3)
    one, zero = torch.ones(4, 4), torch.zeros(4, 4)
    assert torch.equal(composite(f, one, m, one, b), f)
    assert torch.equal(composite(f * 0, zero, m * 0, zero, b), b)
    a_f, a_m = torch.rand(2, 4, 4)
    expected = f * 0.5 + (1 - a_f)[..., None] * (m * 0.5 + (1 - a_m)[..., None] * b)
    assert torch.allclose(composite(f * 0.5, a_f, m * 0.5, a_m, b), expected)


@pytest.mark.parametrize("dim", [10, 22, 52])
def test_explicit_features_of_any_width_give_32(dim):
    assert ExplicitEncoder(dim)(torch.rand(3, dim)).shape == (3, 32)


@pytest.mark.parametrize(
    "change",
    [
        {"fusion": "concat"}, {"fusion": "fixed"}, {"fusion": "implicit"}, {"fusion": "explicit"},
        {"mapper": "expnet"}, {"color_motion": True}, {"deformation": "linear"},
        {"deformation": "linear", "color_motion": True}, {"embedding": 4},
    ],
)  # fmt: skip
def test_every_ablation_switch_builds_and_has_gradients(change):
    config = Config(**change)
    net = FaceField(config, 24)
    field = GaussianField(torch.rand(6, 3) * 0.1, torch.rand(6, 3), torch.full((6,), 0.01), 0)
    if config.deformation == "linear":
        field.basis = torch.nn.Parameter(torch.randn(6, outputs(config), config.linear_rank))
    field.embedding = torch.nn.Parameter(torch.zeros(6, config.embedding))
    motion = net.motion(torch.randn(8, 24), torch.rand(7), torch.rand(10), "vanilla")
    delta = net.deform(net.regions(field), motion.c_f, motion.c_u)
    assert (delta.colors is not None) == config.color_motion
    (delta.means.square().sum() + alignment_loss(motion.c_ea, motion.c_ev)).backward()
    learns = field.basis if config.deformation == "linear" else net.encoder.table
    assert torch.isfinite(learns.grad).all() and learns.grad.any()
    assert not config.embedding or field.embedding.grad.any()
    assert net.listening(net.regions(field)).shape == (6, 32)
    upper = torch.rand(7)
    whole = net.deform(net.regions(field), motion.c_f, upper)
    held = net.deform_upper(net.regions(field), motion.c_f)(upper)
    for name in ("means", "quats", "scales"):
        torch.testing.assert_close(getattr(held, name), getattr(whole, name))


def test_gaussians_at_one_place_move_apart_by_their_own_embedding_alone():
    """A lid over an iris: the tri-plane's finest cell, 8 mm, holds both."""
    net = FaceField(Config(embedding=4), 24)
    field = GaussianField(torch.tensor([[0.01, 0.02, 0.03]]).repeat(2, 1), torch.rand(2, 3), torch.full((2,), 0.01), 0)
    field.embedding = torch.nn.Parameter(torch.zeros(2, 4))
    net, field = net.double(), field.double()  # some processors round the rows of one product differently
    c_f, c_u = torch.rand(32).double(), torch.rand(7).double()
    same = net.deform(net.regions(field), c_f, c_u).means
    near = {"rtol": 1e-9, "atol": 0}
    assert torch.allclose(same[0], same[1], **near)
    field.embedding.data[0] += 1
    own = net.deform(net.regions(field), c_f, c_u).means
    assert torch.allclose(own[1], same[1], **near) and (own[0] - own[1]).norm() > 1e-6
