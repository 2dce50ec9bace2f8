"""The published pipeline end to end, on networks of its shape with few channels and arbitrary weights."""

import copy
import functools
import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_animate import SIZE, portrait, psnr

from vocalface import media
from vocalface.errors import AssetError, ConfigError, FaceError
from vocalface.observe.landmarks import Face
from vocalface.sadtalker import align, enhance, framing, official
from vocalface.sadtalker.coefficients import CROPPED, WHOLE, Settings
from vocalface.sadtalker.expnet import ExpNet
from vocalface.sadtalker.facevid2vid import OcclusionAwareSPADEGenerator
from vocalface.sadtalker.keypoints import KPDetector, transform
from vocalface.sadtalker.mapping import WINDOW, MappingNet, window
from vocalface.sadtalker.posevae import Audio2Pose
from vocalface.types import Sound

SIDE = 64


def ear() -> torch.nn.Sequential:
    """As `audio_trunk` from outside: [N, 1, 80, 16] -> [N, 512, 1, 1], and fast."""
    nn = torch.nn
    return nn.Sequential(
        nn.AvgPool2d((16, 4)), nn.Flatten(), nn.Linear(20, 512), nn.ReLU(), nn.Unflatten(1, (512, 1, 1))
    )


class Recon(torch.nn.Module):
    """As FaceRecon from outside, and fast."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3 * 7 * 7, 257)

    def forward(self, face: torch.Tensor) -> torch.Tensor:
        assert face.shape[1:] == (3, 224, 224)
        return 0.3 * self.layer(torch.nn.functional.avg_pool2d(face, 32).flatten(1))


@functools.cache
def networks(channels: int = CROPPED) -> official.Networks:
    torch.manual_seed(0)
    made = [
        Recon(), ExpNet(), Audio2Pose(), MappingNet(channels, width=16), KPDetector(4, 4, 2),
        OcclusionAwareSPADEGenerator(4, 4, 4, 2),
    ]  # fmt: skip
    made[1].audio_encoder, made[2].audio_encoder.audio_encoder = ear(), ear()
    with torch.no_grad():  # untrained heads hardly answer their input
        for head in (made[1].mapping1, made[3].fc_yaw, made[3].fc_exp, made[2].netG.decoder.pose_linear):
            head.weight *= 20
    return official.Networks(*(m.eval().requires_grad_(False) for m in made), size=SIDE)


@functools.cache
def calm() -> official.Networks:
    """Networks whose keypoints stay within the picture, so that it shows where they are."""
    mapping = copy.deepcopy(networks().mapping)
    with torch.no_grad():
        mapping.fc_exp.weight /= 400
    return replace(networks(), mapping=mapping)


def found(image):
    scale = (image.shape[1] / SIZE, image.shape[0] / SIZE, image.shape[1] / SIZE)
    return [Face((portrait().landmarks * scale).astype(np.float32), np.zeros(52, np.float32))]


def humming(seconds: float) -> Sound:
    t = np.arange(round(seconds * 16_000)) / 16_000
    return Sound((0.3 * np.sin(900 * t) * np.sin(9 * t)).astype(np.float32), 16_000)


@pytest.fixture
def picture(tmp_path):
    return media.write_image(tmp_path / "p.png", portrait().image)


@functools.cache
def subject(mode: str = "crop") -> official.Subject:
    points = portrait().landmarks
    crop = align.crop_for(align.landmarks_68(points), SIZE, SIZE, mode)
    row = np.random.default_rng(1).normal(0, 0.3, WHOLE).astype(np.float32)
    return official.Subject(align.cut(portrait().image, crop, SIDE), row, crop, portrait().image, 1)


def rows(seconds=1.2, mode="crop", pieces=None, **settings) -> np.ndarray:
    net = networks(WHOLE if mode in align.PASTED else CROPPED)
    speaker = official.Speaker(net, subject(mode), Settings(**settings))
    sound = humming(seconds).samples
    count = -(-len(sound) // 640)
    return np.stack(list(speaker.rows([sound] if pieces is None else pieces(sound), count)))


# --------------------------------------------------------------------------------------- the whole way
@pytest.mark.parametrize("mode", align.MODES)
def test_every_crop_gives_a_whole_video(tmp_path, picture, mode):
    made = official.animate(
        picture, humming(0.5), tmp_path / "o.mp4", networks=networks(WHOLE if mode in align.PASTED else CROPPED),
        mode=mode, search=found,
    )  # fmt: skip
    clip = media.open_clip(made.video)
    assert made.frames == 13 == len(clip.at(25)) and made.faces == 1
    whole = mode in align.PASTED
    assert (clip.width, clip.height) == ((SIZE, SIZE) if whole else (clip.width, clip.height))
    assert media.sound_seconds(made.video) == pytest.approx(0.52, abs=0.1)
    if whole:  # outside the square the picture stays as it is
        image = next(iter(clip.at(25)))
        x0, y0, x1, y1 = subject(mode).crop.box
        away = np.ones((SIZE, SIZE), bool)
        away[max(y0 - 8, 0) : y1 + 8, max(x0 - 8, 0) : x1 + 8] = False
        if away.any():
            assert psnr(image[away], portrait().image[away]) > 28


@pytest.mark.parametrize("frames", [1, 2, 3, 12, 13, 21, 33])
def test_no_length_is_too_short(frames):
    made = rows(frames / 25)
    assert made.shape == (frames, CROPPED) and np.isfinite(made).all()


def test_idle_portraits_live_and_their_video_is_silent(tmp_path, picture):
    made = official.animate(picture, None, tmp_path / "o.mp4", networks=networks(), idle=1.0, search=found)
    assert made.frames == 25
    with pytest.raises(ConfigError, match="--idle"):
        official.animate(picture, None, tmp_path / "x.mp4", networks=networks(), search=found)


def test_weights_that_are_absent_are_named_with_the_command(tmp_path, picture, monkeypatch):
    monkeypatch.setenv("VOCALFACE_ASSETS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(AssetError, match="vocalface fetch sadtalker"):
        official.animate(picture, humming(0.5), tmp_path / "o.mp4", search=found)
    assert not (tmp_path / "o.mp4").exists()


class Finder:
    """In place of MediaPipe."""

    search = staticmethod(found)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_the_command_line_takes_its_options_and_answers_in_json(tmp_path, picture, monkeypatch, capsys):
    from vocalface.cli import main

    asked = {}

    def load(mode, size, device):
        asked.update(mode=mode, size=size)
        return networks(WHOLE)

    monkeypatch.setattr(official, "load_networks", load)
    monkeypatch.setattr(official, "Landmarker", Finder)
    np.save(tmp_path / "e.npy", np.zeros(64))
    voice, out = media.write_sound(tmp_path / "v.wav", humming(0.4)), tmp_path / "o.mp4"
    base = ["animate", str(picture), str(voice), "-o", str(out), "--renderer", "official", "--json", "--quiet"]
    main([
        *base, "--crop", "full", "--size", "512", "--pose-style", "7", "--yaw=-20,20", "--gaze=5,0", "--batch", "4",
        "--precision", "float32", "--expression", str(tmp_path / "e.npy"), "--device", "cpu",
    ])  # fmt: skip
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["frames"] == 10 and said["renderer"] == "official" and said["face"] == "largest" and said["faces"] == 1
    assert out.is_file() and asked == {"mode": "full", "size": 512}
    out.unlink()
    for wrong in (
        ["--emotion", "happy"], ["--head-style", "3"], ["--pose-style", "46"], ["--yaw=120"], ["--batch", "0"],
        ["--expression-scale", "9"], ["--expression", str(picture)], ["--enhancer", str(tmp_path / "no.onnx")],
        ["--face", "4"], ["--idle", "3"], ["--gaze=5"],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as error:
            main([*base, *wrong])
        assert error.value.code == 2 and len(capsys.readouterr().err.strip().splitlines()) == 3, wrong
        assert not list(tmp_path.glob("*.mp4")) and not list(tmp_path.glob(".*")), wrong


def test_the_voice_goes_in_as_it_is(tmp_path, picture):
    import av

    with media.VideoWriter(tmp_path / "voice.mp4", SIZE, SIZE, sound=humming(1.0)) as video:
        for _ in range(25):
            video.write(portrait().image)
    made = official.animate(picture, tmp_path / "voice.mp4", tmp_path / "o.mp4", networks=networks(), search=found)

    def packets(path):
        with av.open(str(path)) as file:
            return [bytes(p) for p in file.demux(file.streams.audio[0]) if p.size]

    given, kept = packets(tmp_path / "voice.mp4"), packets(made.video)
    assert len(kept) >= len(given) - 2 and kept == given[: len(kept)]


def test_videos_serve_as_portrait_and_as_references(tmp_path):
    for name, rate in (("portrait.MP4", 30), ("reference.mp4", 12)):
        with media.VideoWriter(tmp_path / name, SIZE, SIZE, fps=rate) as video:
            for _ in range(rate):
                video.write(portrait().image)
    reference = tmp_path / "reference.mp4"
    made = official.animate(
        tmp_path / "portrait.MP4", humming(0.3), tmp_path / "o.mp4", networks=networks(), search=found,
        pose_from=reference, blink_from=reference, batch=3,
    )  # fmt: skip
    assert made.frames == 8 == len(media.open_clip(made.video).at(25))


# ----------------------------------------------------------------------------------- what options move
def test_whole_pictures_carry_their_crop():
    made = rows(mode="full")
    assert made.shape[1] == WHOLE
    np.testing.assert_array_equal(made[:, CROPPED:], np.broadcast_to(subject("full").coefficients[CROPPED:], (30, 3)))


def test_scales_stillness_and_styles_move_what_they_name():
    base = rows(2.0)
    portrait_row = subject().coefficients[:CROPPED]
    double = rows(2.0, expression_scale=2.0)
    np.testing.assert_allclose(
        double[:, :64] - portrait_row[:64], 2 * (base[:, :64] - portrait_row[:64]), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_array_equal(double[:, 64:], base[:, 64:])
    half = rows(2.0, head_scale=0.5)
    np.testing.assert_allclose(half[:, 64:] - portrait_row[64:], 0.5 * (base[:, 64:] - portrait_row[64:]), atol=1e-5)
    still = rows(2.0, still=True)
    np.testing.assert_array_equal(still[:, 64:], np.broadcast_to(portrait_row[64:], (50, 6)))
    np.testing.assert_array_equal(still[:, :64], base[:, :64])
    assert np.abs(rows(2.0, pose_style=45)[:, 64:] - base[:, 64:]).max() > 1e-4
    assert np.abs(rows(2.0, seed=1)[:, 64:] - base[:, 64:]).max() > 1e-4
    np.testing.assert_array_equal(rows(2.0), base)


@pytest.mark.parametrize("style", [-1, 46])
def test_styles_that_do_not_exist_are_refused(style):
    with pytest.raises(ConfigError, match="0 to 45"):
        Settings(pose_style=style)


def test_an_expression_is_added_and_one_of_another_size_refused():
    offset = np.linspace(-1, 1, 64).astype(np.float32)
    np.testing.assert_allclose(rows(expression=offset)[:, :64] - rows()[:, :64], np.tile(offset, (30, 1)), atol=1e-5)
    with pytest.raises(ConfigError, match="64"):
        Settings(expression=np.zeros(3))


def test_lids_of_a_video_are_played_to_and_fro_and_reach_the_expression_alone():
    lids = np.array([0, 0.5, 1.0])
    made, without = rows(lids=lids), rows(blink=False)
    moved = (made - without)[:, :64]
    direction = networks().expnet.mapping1.weight[:, -1].numpy()  # the only way in for a blink
    order = [0, 1, 2, 1] * 8
    np.testing.assert_allclose(moved, lids[order[:30], None] * direction, atol=1e-4)
    np.testing.assert_array_equal(made[:, 64:], without[:, 64:])


def test_a_reference_head_is_added_also_to_a_still_one():
    head = np.cumsum(np.full((4, 6), 0.1), axis=0) - 0.1
    made, without = rows(head=head, still=True), rows(still=True)
    order = [0, 1, 2, 3, 2, 1] * 5
    np.testing.assert_allclose(made[:, 64:] - without[:, 64:], head[order], atol=1e-6)


def test_free_view_takes_the_place_of_the_driven_angles():
    speaker = official.Speaker(networks(), subject(), Settings(), official.View(yaw=(-30, 30), pitch=(10,)))
    seen, driven = [], speaker.renderer._driven
    speaker.renderer._driven = lambda windows, angles: seen.append(angles) or driven(windows, angles)
    assert len(list(speaker.frames([humming(0.4).samples], 10))) == 10
    np.testing.assert_allclose(np.concatenate([a["yaw"] for a in seen]), framing.camera_path([-30, 30], 10))
    assert all((a["pitch"] == 10).all() and "roll" not in a for a in seen)
    with pytest.raises(ConfigError, match="--roll"):
        official.View(roll=(120,))


@pytest.mark.parametrize("rate", [10, 25, 50])
def test_reference_heads_come_at_25_frames_a_second_from_any_video(tmp_path, rate):
    with media.VideoWriter(tmp_path / "r.mp4", SIZE, SIZE, fps=rate) as video:
        for _ in range(rate):
            video.write(portrait().image)
    head = official.head_of(tmp_path / "r.mp4", networks(), found)
    assert head.shape == (25, 6) and not head[0].any() and np.abs(head).max() < 0.2
    with pytest.raises(FaceError, match="0 of 25"):
        official.head_of(tmp_path / "r.mp4", networks(), lambda image: [])


# ----------------------------------------------------------------------------------------- the picture
def test_batches_of_any_size_draw_the_same_frames():
    given = rows(0.4)
    one, three = (
        list(official.Renderer(networks(), subject().square, subject().coefficients[:CROPPED], batch)(given))
        for batch in (1, 3)
    )
    assert len(one) == len(three) == 10
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(one, three)) <= 1
    with pytest.raises(ConfigError, match="--batch"):
        official.Renderer(networks(), subject().square, subject().coefficients[:CROPPED], 0)


def test_frames_are_those_of_the_readable_networks():
    given, net = rows(0.4), calm()
    renderer = official.Renderer(net, subject().square, subject().coefficients[:CROPPED])
    image = torch.from_numpy(subject().square).permute(2, 0, 1)[None] / 255
    canonical = net.keypoints(image)

    def keypoints(windows: np.ndarray) -> torch.Tensor:
        return transform(canonical, net.mapping(torch.from_numpy(windows)))

    rest = np.repeat(subject().coefficients[None, :CROPPED, None], WINDOW, axis=2)
    driven = keypoints(window(torch.from_numpy(given), torch.arange(10)).contiguous().numpy())
    drawn = net.generator(image, keypoints(rest), driven[:1]).prediction
    assert driven.abs().max() < 3 and drawn.std() > 0.01
    source = net.generator.encode(image, keypoints(rest))
    truth = (net.generator.draw(source, driven).prediction * 255).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(np.stack(list(renderer(given))) - truth).max() <= 1


def test_networks_made_ready_serve_many_portraits_and_another_precision_makes_its_own():
    net = networks().ready()
    row = subject().coefficients[:CROPPED]
    assert official.Renderer(net, subject().square, row).draw.network is net.drawing
    rough = official.Renderer(net, subject().square, row, precision="bfloat16")
    assert rough.draw.network is not net.drawing and rough.draw.network.dtype == torch.bfloat16
    fine = official.Renderer(net, subject().square, row)
    given = rows(0.2)
    pairs = list(zip(fine(given), rough(given), strict=True))
    assert len(pairs) == 5 and all(psnr(a, b) > 30 for a, b in pairs)
    with pytest.raises(ConfigError, match="--precision"):
        official.Renderer(net, subject().square, row, precision="int4")


def test_a_square_goes_back_with_soft_rims_and_the_pictures_colours():
    picture = portrait().image
    crop = align.Crop((20, 30, 100, 110), True)
    back = align.PasteBack(picture, crop)
    whitened = np.clip(0.8 * align.cut(picture, crop, SIDE).astype(float) + 40, 0, 255).astype(np.uint8)
    made = back(whitened)
    inside = np.s_[40:100, 30:90]
    unmatched = psnr(media.resize(whitened, 80, 80)[10:70, 10:70], picture[inside])
    assert psnr(made[inside], picture[inside]) > unmatched + 1
    away = np.ones(picture.shape[:2], bool)
    away[30:110, 20:100] = False
    np.testing.assert_array_equal(made[away], picture[away])
    assert np.abs(made[30:110, 20].astype(int) - picture[30:110, 20]).max() < 12  # no seam
    touching = align.PasteBack(picture, align.Crop((0, 0, SIZE, SIZE), True))
    assert (touching.weight == 1).all()


def test_a_face_of_thousands_of_pixels_is_cropped_and_put_back_in_its_place():
    points = align.landmarks_68(portrait().landmarks)
    small = np.array(align.crop_for(points, SIZE, SIZE, "full").box)
    for k in (8, 24):
        large = np.array(align.crop_for(points * k, SIZE * k, SIZE * k, "full").box)
        np.testing.assert_allclose(large / k, small, atol=4)


def test_upper_case_suffixes_and_transparent_pictures_are_read(tmp_path):
    image = np.dstack([portrait().image, np.full((SIZE, SIZE), 255, np.uint8)])
    image[:30, :, 3] = 0
    (tmp_path / "P.PNG").write_bytes(media.encode_image(image))
    (tmp_path / "P.JPG").write_bytes(media.encode_image(portrait().image, ".jpg"))
    for name in ("P.PNG", "P.JPG"):
        made = official.subject_of(tmp_path / name, networks(), "resize", search=found)
        assert made.square.shape == (SIDE, SIDE, 3) and made.coefficients.shape == (WHOLE,)


def test_of_a_video_the_best_frame_is_taken(tmp_path):
    dark = np.zeros_like(portrait().image)
    with media.VideoWriter(tmp_path / "v.mp4", SIZE, SIZE, crf=4) as video:
        for i in range(40):
            video.write(portrait().image if 12 <= i < 30 else dark)
    seen = official.subject_of(
        tmp_path / "v.mp4", networks(), "crop", search=lambda image: found(image) if image.mean() > 10 else []
    )
    assert psnr(seen.picture, portrait().image) > 28


# ----------------------------------------------------------------------------------------- enhancement
class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(-x, scale_factor=2.0)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_an_enhancer_of_ones_own_is_applied_to_every_square(tmp_path, picture):
    torch.jit.script(Doubled()).save(str(tmp_path / "e.pt"))
    inverted = enhance.load(tmp_path / "e.pt", signed=True)
    square = subject().square
    assert np.abs(inverted(square).astype(int) - (255 - square)).max() <= 2
    plain, better = tmp_path / "a.mp4", tmp_path / "b.mp4"
    for path, given in ((plain, None), (better, inverted)):
        official.animate(picture, humming(0.2), path, networks=networks(), search=found, enhance=given)
    a, b = (next(iter(media.open_clip(p).at(25))).astype(int) for p in (plain, better))
    assert np.abs(a + b - 255).mean() < 12


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_enhancers_that_cannot_be_used_are_said(tmp_path):
    for name in ("e.onnx", "e.pt", "e.bin"):
        (tmp_path / name).write_text("no network")
    unread = AssetError if importlib.util.find_spec("onnxruntime") else ConfigError
    for name, kind in (("none.onnx", AssetError), ("e.onnx", unread), ("e.pt", AssetError), ("e.bin", ConfigError)):
        with pytest.raises(kind) as error:
            enhance.load(tmp_path / name)
        assert len(str(error.value).splitlines()) == 3


# ---------------------------------------------------------------------------------------- at its published size
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["crop", "full"])
def test_networks_of_published_size_go_the_whole_way(tmp_path, picture, parity, monkeypatch, mode):
    """Files laid out as the published ones, with made-up weights; one frame takes a minute of CPU."""
    from safetensors.torch import save_file

    folder = tmp_path / "sadtalker"
    folder.mkdir()
    names = {
        "kp_extractor": "kp_extractor_256", "generator": "generator_256", "audio2exp": "audio2exp",
        "audio2pose": "audio2pose_full_T20", "face_3drecon": "face_3drecon",
    }  # fmt: skip
    whole = {}
    for prefix, fixture in names.items():
        state = parity.state(fixture)
        if prefix == "kp_extractor":
            state.setdefault("down.weight", KPDetector().down.weight.detach().clone())
        whole |= {f"{prefix}.{key}": value.contiguous() for key, value in state.items()}
    save_file(whole, folder / "SadTalker_V0.0.2_256.safetensors")
    channels, number = (73, "00109") if mode in align.PASTED else (70, "00229")
    torch.save({"mapping": parity.state(f"mapping_{channels}")}, folder / f"mapping_{number}-model.pth.tar")
    monkeypatch.setattr(official.assets, "path", lambda name: tmp_path / name)
    made = official.animate(picture, humming(0.2), tmp_path / "o.mp4", mode=mode, search=found, batch=2)
    assert made.frames == 5 and media.open_clip(made.video).width == (SIZE if mode == "full" else 256)
