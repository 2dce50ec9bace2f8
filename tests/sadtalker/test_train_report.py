"""What a training leaves beside its weights: losses of the whole run, and what the network does with other people."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from moving import Moving

from vocalface.metrics.image import psnr
from vocalface.sadtalker import train_expnet, train_facevid2vid, train_mapping, train_posevae, train_run
from vocalface.sadtalker.train_report import History, Shown, evenly, strip, write
from vocalface.training.distributed import World

TINY = replace(train_facevid2vid.PRESETS["tiny"], size=32, steps=4, base=4, critic_base=4, checkpoint_seconds=0.0)


def test_losses_are_means_over_equal_stretches_however_long_the_run():
    history = History(2000)
    for step in range(2000):
        history.add(step, {"a": float(step), "b": 1.0})
    steps, curves = history.curves()
    assert len(steps) == 400 and steps[:3].tolist() == [0, 5, 10]
    assert curves["a"][:2].tolist() == [2.0, 7.0] and (curves["b"] == 1).all()
    short = History(3)
    short.add(0, {"a": 4.0})
    short.add(2, {"a": 6.0})  # a step that was left out
    assert short.curves()[0].tolist() == [0, 2] and short.curves()[1]["a"].tolist() == [4.0, 6.0]


class Counting:
    """A trainer whose loss is the step's number."""

    kind, prefix, terms, told = "counting", "", {}, ""

    def __init__(self, dies_at=None):
        self.config, self.world, self.net = replace(TINY, steps=6), World(), torch.nn.Linear(1, 1)
        self.dies_at = dies_at

    def step(self, k):
        if k == self.dies_at:
            raise KeyboardInterrupt
        return {"a": float(k), "b": 0.1}

    def state(self):
        return {"net": self.net.state_dict()}

    def restore(self, state):
        self.net.load_state_dict(state["net"])


def test_an_interruption_leaves_no_trace_in_the_losses(tmp_path):
    told = []

    def trained(name, **how):
        train_run.run(Counting(**how), tmp_path / name, report=lambda history: told.append(history.rows))

    trained("a.safetensors")
    with pytest.raises(KeyboardInterrupt):
        trained("b.safetensors", dies_at=4)
    assert len(told) == 1
    trained("b.safetensors")
    assert told[1] == told[0] == [[k, 1, {"a": float(k), "b": 0.1}] for k in range(6)]


def test_frames_to_look_at_are_spread_over_runs_and_along_them():
    one, two = Moving(0, frames=40), Moving(1, frames=10)
    assert [f for _, f in evenly([one])] == sorted({f for _, f in evenly([one])}) and len(evenly([one])) == 8
    both = evenly([one, two])
    assert [run for run, _ in both].count(one) == 4 and all(0 < f < len(run) for run, f in both)
    assert len({id(run) for run, _ in evenly([Moving(k) for k in range(50)])}) == 8


@pytest.mark.parametrize("estimator", [True, False])
def test_a_renderer_and_its_mapping_draw_frames_they_are_compared_with(estimator):
    runs = [Moving(0), Moving(1, frames=2)]
    stage1 = train_facevid2vid.Trainer(runs, TINY)
    before = {k: v.clone() for k, v in stage1.net.state_dict().items()}
    shown = stage1.examine([*runs, Moving(2, frames=1)])
    assert all(torch.equal(v, before[k]) for k, v in stage1.net.state_dict().items())
    assert set(shown.figures) == {"psnr", "psnr_first_frame", "head_pose"} and len(shown.pictures) == 8
    assert shown.pictures[0].shape == (32, 96, 3) and shown.pictures[0].dtype == np.uint8
    source = train_facevid2vid.picture(runs[0].face(0), 32)
    assert np.array_equal(shown.pictures[0][:, :32], strip(source))

    names = ("kp_extractor", "generator", "he_estimator")
    networks = [stage1.net[n] for n in names[: 3 if estimator else 2]] + ([] if estimator else [None])
    config = replace(train_mapping.PRESETS["tiny"], width=8, critic_base=4, alignment="fixed")
    mapping = train_mapping.Trainer(runs, train_mapping.Renderer(*networks, 32), config)
    shown = mapping.examine(runs)
    own = {"psnr_stage_1", "keypoints"} if estimator else set()
    assert set(shown.figures) == {"psnr", "psnr_first_frame"} | own
    assert shown.pictures[0].shape == (32, 32 * (4 if estimator else 3), 3)


class Told(torch.nn.Module):
    """An ExpNet that knows."""

    def __init__(self, answer):
        super().__init__()
        self.answer = torch.from_numpy(answer)[None]

    def forward(self, mel, reference, blink):
        assert mel.shape[1:] == (20, 1, 80, 16) and reference.shape == (1, 20, 64) and blink.shape == (1, 20, 1)
        return self.answer[:, : mel.shape[1]]


def test_an_expnet_is_held_against_what_was_seen():
    draw = np.random.default_rng(0)
    seen = np.zeros((30, 64), np.float32)
    seen[:, :3] = draw.normal(size=(30, 3))
    clip = train_expnet.Clip(np.zeros((30, 1, 80, 16), np.float32), seen)
    examine = train_expnet.Trainer.examine
    here = SimpleNamespace(device="cpu")
    right = examine(SimpleNamespace(net=Told(seen), landmarks=None, world=here), [clip], frames=20).figures
    assert right["mse"] == 0 and right["correlation"] == pytest.approx(1) and right["mse_at_rest"] > 0.01
    rest = np.repeat(seen[:1], 30, 0)
    shown = examine(SimpleNamespace(net=Told(rest), landmarks=None, world=here), [clip], frames=20)
    assert shown.figures["mse"] == shown.figures["mse_at_rest"] and shown.figures["correlation"] == 0
    (curves,) = shown.curves.values()
    assert np.array_equal(curves["seen"], seen[:20, int(seen[:20].std(0).argmax())])


def test_a_posevae_is_held_against_a_head_that_rests(monkeypatch):
    from test_train_posevae import SmallEar, material

    monkeypatch.setattr("vocalface.sadtalker.posevae.AudioEncoder", SmallEar)
    trainer = train_posevae.Trainer(material(), train_posevae.PRESETS["tiny"])
    torch.nn.init.zeros_(trainer.net.netG.decoder.pose_linear.weight)
    torch.nn.init.zeros_(trainer.net.netG.decoder.pose_linear.bias)
    shown = trainer.examine([*material(2), *material(1, frames=9)])
    assert shown.figures["mse"] == shown.figures["mse_at_rest"] > 0 and shown.figures["swing"] == 0
    (curves,) = shown.curves.values()
    assert np.ptp(curves["drawn"]) == 0 < np.ptp(curves["seen"]) and {len(v) for v in curves.values()} == {33}


def test_psnr_and_strips():
    a = np.zeros((3, 4, 4), np.float32)
    assert psnr(a + 0.1, a) == pytest.approx(20, abs=1e-4) and psnr(a, a) == pytest.approx(100)
    assert strip(a, a + 2).tolist() == [[[0] * 3] * 4 + [[255] * 3] * 4] * 4


def test_the_page_has_all_of_it(tmp_path):
    history = History(2)
    for step in range(2):
        history.add(step, {"pose": 2.0, "gan": -0.1})
    picture = strip(np.zeros((3, 4, 4), np.float32))
    shown = Shown({"psnr": 21.5}, [picture], "source | drawn", {"yaw": {"seen": np.arange(3.0)}})
    page = write(tmp_path / "r.html", "sadtalker.renderer", {"voice": "from scratch"}, history, shown, "held out")
    text = page.read_text()
    for part in ("from scratch", "21.5", "held out: source | drawn", "held out: yaw", "may be negative", ">pose<"):
        assert part in text
    assert text.count("<svg") == 3 and text.count("<img") == 1
