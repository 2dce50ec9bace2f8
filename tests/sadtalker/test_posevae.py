"""PoseVAE: numbers of the published code under known weights, the rule of blocks, styles, smoothing."""

import copy

import numpy as np
import pytest
import torch
from compare import error

from vocalface.errors import ConfigError
from vocalface.sadtalker import posevae
from vocalface.sadtalker.posevae import Audio2Pose, PoseEncoder, PoseVAE

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture(scope="module")
def official(parity):
    network = Audio2Pose().eval()
    network.load_state_dict(parity.state("audio2pose_parts"), strict=True)
    return network


def test_parts_parity(parity, official):
    given, expected = parity.arrays("audio2pose_parts")
    voice = expected["audio_emb"]
    # In a batch the published code files the embeddings by frame and reads them by clip; ours stay with their clip.
    # In float64, free of the order in which a processor sums.
    heard = copy.deepcopy(official).double().voice(given["mel"].double())
    assert error(heard.transpose(0, 1).reshape(2, 32, 512), voice) < 1e-5
    made = official.netG.decoder(given["z"], given["ref"], voice, given["class_id"])
    assert error(made, expected["pose_motion_pred"]) < 1e-5
    assert error(official.netG.decoder.resunet(given["resunet_x"]), expected["resunet_y"]) < 1e-5
    assert error(official.netD_motion(given["pose_motion_gt"]), expected["disc"]) < 1e-5


def test_encoder_parity_and_the_mended_log_variance(parity, official):
    given, expected = parity.arrays("audio2pose_parts")
    voice = expected["audio_emb"]
    published = PoseEncoder(published_logvar=True).eval()
    published.load_state_dict(official.netG.encoder.state_dict())
    arguments = given["pose_motion_gt"], given["ref"], voice, given["class_id"]
    mean, logvar = published(*arguments)
    assert error(mean, expected["enc_mu"]) < 1e-5
    assert error(logvar, expected["enc_logvar_official"]) < 1e-5
    mended_mean, mended = official.netG.encoder(*arguments)
    assert torch.equal(mended_mean, mean)
    assert error(mended, logvar) > 0.1


@pytest.mark.parametrize("frames", [20, 33])
def test_whole_speech_parity(parity, official, frames):
    given, expected = parity.arrays(f"audio2pose_full_T{frames}")
    reference = given["ref70"][:, 0, 64:]
    pose = official.generate(given["indiv_mels"], reference, given["class_id"], z=given["z"])
    assert error(pose, expected["pose_pred"]) < 1e-5
    assert error(torch.from_numpy(posevae.smooth(pose.numpy())), expected["pose_smoothed"]) < 1e-5


def test_structure():
    with torch.device("meta"):
        network = Audio2Pose()
    assert sum(p.numel() for p in network.parameters()) == 11_251_897
    state = network.state_dict()
    assert len(state) == 419
    assert {key.split(".")[0] for key in state} == {"audio_encoder", "netG", "netD_motion"}
    assert state["netG.encoder.MLP.L0.weight"].shape == (128, 454)
    assert state["netG.decoder.MLP.L0.weight"].shape == (128, 262)
    assert state["netG.decoder.resunet.up_residual_conv1.conv_block.2.weight"].shape == (128, 384, 3, 3)


def test_both_layers_learn():
    torch.manual_seed(1)
    with torch.enable_grad():
        network = PoseVAE()
        made, mean, logvar = network(
            torch.randn(2, 32, 6), torch.randn(2, 6), torch.randn(2, 32, 512), torch.tensor([0, 45])
        )
        divergence = -0.5 * (1 + logvar - mean**2 - logvar.exp()).mean()
        (made.square().mean() + divergence).backward()
    assert made.shape == (2, 32, 6) and mean.shape == logvar.shape == (2, 64)
    for layer in (network.encoder.linear_means, network.encoder.linear_logvar):
        assert layer.weight.grad.abs().max() > 0


@pytest.mark.parametrize("frames", [1, 2, 3, 12, 20, 32, 33, 34, 64, 65, 66, 100])
def test_blocks_cover_every_frame_once(frames):
    blocks = list(posevae.blocks_of(frames))
    covered = [i for block in blocks for i in range(block.stop - block.kept, block.stop)]
    assert covered == list(range(1, frames))
    assert all(1 <= block.first < block.stop <= frames and block.stop - block.first <= 32 for block in blocks)
    assert len(blocks) == -(-(frames - 1) // 32)


def test_no_frames_is_an_error():
    with pytest.raises(ConfigError):
        list(posevae.blocks_of(0))


@pytest.mark.parametrize("frames", [1, 2, 34])
def test_any_length_and_a_seed_decides(frames):
    network = Audio2Pose().eval()
    mel, reference = torch.randn(2, frames, 1, 80, 16), torch.randn(2, 6)

    def poses(seed):
        return network.generate(mel, reference, 3, generator=torch.Generator().manual_seed(seed))

    first = poses(1)
    assert first.shape == (2, frames, 6) and torch.equal(first[:, 0], reference)
    assert torch.equal(first, poses(1))
    assert torch.equal(first, poses(2)) is (frames == 1)


def test_clips_of_a_batch_do_not_mix():
    network = Audio2Pose().eval()
    mel = torch.randn(2, 5, 1, 80, 16)
    assert error(network.voice(mel), torch.cat([network.voice(mel[:1]), network.voice(mel[1:])])) < 1e-5


def test_whole_blocks_do_not_depend_on_what_follows():
    network = Audio2Pose().eval()
    mel, reference, z = torch.randn(1, 38, 1, 80, 16), torch.randn(1, 6), torch.randn(2, 64)
    whole = network.generate(mel, reference, 0, z=z)
    assert error(network.generate(mel[:, :33], reference, 0, z=z), whole[:, :33]) < 1e-5


@pytest.mark.parametrize("style", [-1, 46, [0, 99]])
def test_styles_outside_the_range_are_refused(style):
    with pytest.raises(ConfigError, match="0 to 45"):
        posevae.check_style(torch.tensor(style))


def test_every_style_moves_differently():
    network = Audio2Pose().eval()
    mel, reference, z = torch.randn(1, 2, 1, 80, 16).expand(46, -1, -1, -1, -1), torch.zeros(46, 6), torch.randn(1, 64)
    made = network.generate(mel, reference, torch.arange(46), z=z)
    assert len(torch.unique(made[:, 1], dim=0)) == 46


def test_too_few_latents_are_refused():
    with pytest.raises(ConfigError, match="latents"):
        Audio2Pose().generate(torch.zeros(1, 40, 1, 80, 16), torch.zeros(1, 6), z=torch.zeros(1, 64))


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 12, 13, 50])
def test_smoothing_keeps_parabolas_and_calms_noise(frames):
    t = np.linspace(-1, 1, frames)[:, None]
    parabola = (t**2 * np.arange(6) + t - 2).astype(np.float32)
    assert posevae.smooth(parabola).dtype == np.float32
    assert np.abs(posevae.smooth(parabola) - parabola).max() < 1e-5
    if frames >= 12:
        noise = np.random.default_rng(0).normal(size=(frames, 6))
        assert np.abs(np.diff(posevae.smooth(noise), axis=0)).mean() < 0.5 * np.abs(np.diff(noise, axis=0)).mean()
