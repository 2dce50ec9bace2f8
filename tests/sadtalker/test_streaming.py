"""Speech of any length in constant memory: a stream gives what the same networks give on the whole at once."""

import itertools
import random

import numpy as np
import pytest
import torch
from test_official import CROPPED, calm, humming, networks, rows, subject

from vocalface.observe.speech.mel import log_mel
from vocalface.sadtalker import framing, official
from vocalface.sadtalker.coefficients import Settings, mel_windows, residuals, smoothed
from vocalface.sadtalker.keypoints import transform
from vocalface.sadtalker.mapping import window
from vocalface.sadtalker.motion import Style, poses
from vocalface.sadtalker.posevae import smooth


def cut(samples, *sizes):
    for size in itertools.cycle(sizes):
        if not len(samples):
            return
        yield samples[:size]
        samples = samples[size:]


@pytest.mark.parametrize("samples", [1, 300, 640, 641, 32_000, 47_777])
def test_mel_windows_of_a_stream_are_those_of_the_whole(samples):
    sound = humming(3.2).samples[:samples]
    frames = -(-samples // 640)
    whole = framing.mel_windows(log_mel(np.pad(sound, (0, frames * 640 - samples))), frames)[:, 0]
    for sizes in ((samples,), (777, 33), (5000,)):
        np.testing.assert_allclose(np.concatenate(list(mel_windows(cut(sound, *sizes)))), whole, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 3, 12, 13, 14, 32, 33, 34, 64, 65, 70])
def test_heads_of_a_stream_are_those_of_the_whole(frames):
    net = networks().posevae
    torch.manual_seed(frames)
    mel, reference = torch.randn(1, frames, 1, 80, 16), torch.randn(6)
    draw = torch.Generator().manual_seed(5)
    z = torch.stack([torch.randn(1, 64, generator=draw) for _ in range(3)])
    with torch.no_grad():
        voice = net.voice(mel)[0]
        whole = smooth(net.generate(mel, reference[None], 3, z=z).numpy()[0])
    made = smoothed(residuals((voice[i : i + 7] for i in range(0, frames, 7)), net.netG.decoder, reference, 3, 5))
    np.testing.assert_allclose(np.stack(list(made)) + reference.numpy(), whole, atol=1e-5)


def test_windows_of_the_mapping_are_those_of_the_whole():
    given = np.random.default_rng(0).normal(size=(40, CROPPED)).astype(np.float32)
    whole = window(torch.from_numpy(given), torch.arange(40)).numpy()
    np.testing.assert_array_equal(np.stack(list(official.windows_around(given))), whole)


def test_coefficients_do_not_depend_on_how_the_speech_is_cut():
    whole = rows(3.0)
    for sizes in ((16_000,), (4_801, 77)):
        assert np.abs(rows(3.0, pieces=lambda s, sizes=sizes: cut(s, *sizes)) - whole).max() < 1e-4


@pytest.mark.parametrize("frames", [21, 75])
def test_a_stream_is_one_pass_over_the_whole_speech(frames):
    """Every stage on all frames at once, as the published code goes, against the stream, speech cut anywhere."""
    net, portrait = calm(), subject()
    settings = Settings(pose_style=3, seed=7, expression_scale=1.2)
    sound = humming(frames / 25).samples
    source = torch.from_numpy(portrait.coefficients[:CROPPED])
    heard = torch.from_numpy(framing.mel_windows(log_mel(sound), frames))  # [T, 1, 80, 16]
    shut = torch.from_numpy(framing.blinks(frames, random.Random(7))).float()[:, None]
    draw = torch.Generator().manual_seed(7)
    z = torch.stack([torch.randn(1, 64, generator=draw) for _ in range(3)])
    with torch.no_grad():
        made = net.expnet(heard, source[:64].expand(frames, -1), shut)
        head = smooth(net.posevae.generate(heard[None], source[None, 64:], 3, z=z)[0].numpy())
        whole = torch.cat([source[:64] + 1.2 * (made - source[:64]), torch.from_numpy(head)], 1)
        image = torch.from_numpy(portrait.square).permute(2, 0, 1)[None] / 255
        canonical = net.keypoints(image)
        rest = transform(canonical, net.mapping(window(source[None], 0)))
        driven = transform(canonical, net.mapping(window(whole, torch.arange(frames))))
        pictures = net.generator.draw(net.generator.encode(image, rest), driven).prediction
    speaker = official.Speaker(net, portrait, settings, batch=4)
    streamed = np.stack(list(speaker.rows(cut(sound, 4_801, 77), frames)))
    assert np.abs(streamed - whole.numpy()).max() < 1e-4
    points = torch.cat(list(speaker.renderer._keypoints(streamed, {})))
    assert driven.abs().max() < 3 and (points - driven).abs().max() < 1e-4
    lanes = speaker.renderer.draw
    with torch.no_grad():
        assert (lanes.network(lanes.portrait, points) - pictures).abs().max() < 1e-4


def test_frames_of_the_published_networks_come_while_the_speech_goes_on():
    heard = 0

    def speech():
        nonlocal heard
        for _ in range(1000):
            heard += 1
            yield humming(0.2).samples

    speaker = official.Speaker(networks(), subject(), Settings())
    drawn = list(itertools.islice(speaker.frames(speech(), 5000), 10))
    assert len(drawn) == 10 and heard * 5 <= 32 + 32 + 6 + 13 + 10 + 20  # frames: one block, smoothing, window


def test_the_built_in_motion_does_not_depend_on_how_the_speech_is_cut():
    sound = humming(6.0).samples
    whole = list(poses([sound], Style()))
    assert len(whole) == 150
    for sizes in ((16_000,), (4_801, 77)):
        for a, b in zip(whole, poses(cut(sound, *sizes), Style()), strict=True):
            for name in (
                "jaw",
                "aperture",
                "width",
                "round",
                "tuck",
                "upper",
                "tongue",
                "brow",
                "blink",
                "angles",
                "shift",
            ):
                np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-4, err_msg=name)


def test_what_waits_between_the_stages_does_not_grow_with_the_speech():
    """The peak of what Python holds, over half a minute and over eight seconds."""
    import tracemalloc

    def kept(seconds: int) -> int:
        def speech():
            for _ in range(seconds):
                yield piece

        tracemalloc.start()
        for _ in poses(speech(), Style(still=True)):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    piece = humming(1.0).samples
    kept(3)
    assert kept(30) < 1.1 * kept(8)


def test_what_waits_between_the_published_stages_does_not_grow_with_the_speech():
    import tracemalloc

    speaker = official.Speaker(networks(), subject(), Settings(head=np.zeros((9, 6)), lids=np.zeros(9)))
    piece = humming(1.0).samples

    def kept(seconds: int) -> int:
        tracemalloc.start()
        rows = speaker.rows((piece for _ in range(seconds)), 25 * seconds)
        assert sum(1 for _ in official.windows_around(rows)) == 25 * seconds
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    kept(3)
    assert kept(24) < 1.1 * kept(8)
