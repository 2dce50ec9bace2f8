"""The renderer for use against the readable one: the same pictures, fewer operations."""

import copy
import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compare import error
from torch.utils.flop_counter import FlopCounterMode

from vocalface.errors import ConfigError, DeviceError
from vocalface.nn.spade import fold_spectral_norm
from vocalface.sadtalker import fast
from vocalface.sadtalker.blocks import coordinate_grid, gaussians
from vocalface.sadtalker.facevid2vid import MASK_FLOOR, OcclusionAwareSPADEGenerator, Source

pytestmark = pytest.mark.usefixtures("no_gradients")

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))
TOLERANCE = {torch.float32: 1e-5, torch.float16: 0.006, torch.bfloat16: 0.045}
"""Largest difference of pictures in [0, 1] and of positions in [-1, 1]; 16 bits keep 11 and 8 bits of a number, and
every layer rounds. Measured: 4e-6, 0.0024, 0.021."""


@functools.cache
def network(device: str = "cpu") -> OcclusionAwareSPADEGenerator:
    """Few channels, and norms that do something."""
    torch.manual_seed(3)
    made = OcclusionAwareSPADEGenerator(base=4, volume=4, depth=4, blocks=2).eval().requires_grad_(False)
    for part in made.modules():
        if hasattr(part, "running_mean"):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
            part.weight.uniform_(0.5, 1.5)
            part.bias.normal_(0, 0.2)
    made.dense_motion_network.mask.weight.mul_(30)  # some motions count for nothing
    return made.to(device)


def given(frames: int = 3, height: int = 32, width: int = 48, device: str = "cpu"):
    torch.manual_seed(4)
    source = network(device).encode(
        torch.rand(1, 3, height, width, device=device), torch.rand(1, 15, 3, device=device) - 0.5
    )
    return source, torch.rand(frames, 15, 3, device=device) - 0.5


# ------------------------------------------------------------------------------------------------------ conformance
@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 48)], ids=str)
def test_the_picture_is_that_of_the_readable_network(device, dtype, shape):
    source, driving = given(*shape, device=device)
    with fast.exact():
        made = fast.FastGenerator(network(device), dtype)
        portrait = made.prepare(source)
        picture, (deformation, occlusion) = made(portrait, driving), made.flow(portrait, driving, dtype)
    # In float64: the readable network's own float32 is 1e-5 from it on some processors.
    truth = copy.deepcopy(network(device)).double().draw(Source(*(part.double() for part in source)), driving.double())
    scale = 1 if device == "cpu" else 20  # float32 on other processors: 1e-4
    assert picture.dtype == deformation.dtype == occlusion.dtype == torch.float32
    assert error(picture.double(), truth.prediction) < TOLERANCE[dtype] * scale
    assert error(deformation.double(), truth.flow.deformation) < TOLERANCE[dtype] * scale
    assert error(occlusion.double(), truth.flow.occlusion) < TOLERANCE[dtype] * scale
    assert truth.prediction.std() > 0.05 and (truth.flow.mask < MASK_FLOOR).any()


@pytest.mark.slow
def test_the_picture_is_the_published_one_at_its_size(parity):
    arrays, expected = parity.arrays("generator_256")
    with torch.device("meta"):
        full = OcclusionAwareSPADEGenerator()
    full.load_state_dict(fold_spectral_norm(parity.state("generator_256")), assign=True)
    source = full.eval().encode(arrays["image"], arrays["kp_source"])
    pictures = {}
    for dtype in (torch.float32, torch.bfloat16):
        made = fast.FastGenerator(full, dtype)
        pictures[dtype] = made(made.prepare(source), arrays["kp_driving"])
    assert error(pictures[torch.float32], expected["prediction"]) < 5e-5
    rough = pictures[torch.bfloat16] - expected["prediction"]
    assert rough.abs().max() < 0.1 and -10 * torch.log10(rough.square().mean()) > 38


# ---------------------------------------------------------------------------------------------------------- savings
def test_fewer_operations_at_the_published_size():
    with torch.device("meta"):
        full = OcclusionAwareSPADEGenerator().eval()
        image, keypoints = torch.empty(1, 3, 256, 256), torch.empty(1, 15, 3)
        counts = {}
        for name in ("encode", "draw", "fast"):
            made = fast.FastGenerator(full) if name == "fast" else full
            source = full.encode(image, keypoints)
            portrait = made.prepare(source) if name == "fast" else source
            with FlopCounterMode(display=False) as counter:
                if name == "encode":
                    full.encode(image, keypoints)
                else:
                    (made if name == "fast" else full.draw)(portrait, keypoints)
            counts[name] = counter.get_total_flops() / 1e9
    assert counts["encode"] == pytest.approx(64, abs=1) and counts["draw"] == pytest.approx(1139, abs=1)
    assert counts["fast"] < 962


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("depth", [0, 3])
def test_a_convolution_of_an_enlarged_map_reads_the_small_one(factor, depth):
    weight = torch.randn(5, 4, *(3,) * (3 if depth else 2), dtype=torch.float64)
    x, bias = torch.randn(2, 4, *([depth] if depth else []), 6, 7, dtype=torch.float64), torch.randn(5).double()
    large = F.interpolate(x, scale_factor=(1, factor, factor) if depth else factor, mode="nearest")
    truth = (F.conv3d if depth else F.conv2d)(large, weight, bias, padding=1)
    assert error(fast.Enlarged(weight, bias, factor)(x), truth) < 1e-12


def test_slices_are_the_volumes_convolution():
    weight, bias, x = torch.randn(3, 4, 7, 7, 7), torch.randn(3), torch.randn(2, 4, 5, 8, 9)
    assert error(fast.Slices(weight, bias)(x), F.conv3d(x, weight, bias, padding=3)) < 1e-4


def test_batch_norm_lies_in_the_convolution():
    conv, norm = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 3)
    x = torch.randn(1, 3, 6, 6)
    assert error(fast.layer(*fast.folded(conv, norm))(x), norm(conv(x))) < 1e-5


def test_a_half_sized_map_scales_as_if_it_were_enlarged():
    small, gamma, beta = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 6, 10), torch.randn(2, 4, 6, 10)
    large = F.interpolate(small, scale_factor=2)
    assert error(fast.scaled(small, gamma, beta), large * gamma + beta) < 1e-6
    assert torch.equal(fast.scaled(small, gamma), large * gamma)
    assert torch.equal(fast.scaled(large, gamma), large * gamma)


def test_bumps_axis_by_axis():
    grid, points = coordinate_grid(4, 6, 8, torch.zeros(1)), torch.rand(2, 15, 3) * 2 - 1
    assert error(fast.bumps(points, grid), gaussians(points, grid)) < 1e-6


def test_statistics_of_16_bits_are_taken_in_32():
    x = (100 + torch.randn(1, 3, 64, 64)).bfloat16()
    wide = x.double()
    truth = (wide - wide.mean((2, 3), keepdim=True)) / (wide.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    made = fast.normalised(x)
    assert made.dtype == torch.bfloat16
    assert ((made.double() - truth).abs() <= 2**-8 * truth.abs() + 1e-4).all()


def test_maps_keep_their_layout_between_layers():
    """A map that comes in another layout is copied before it is multiplied."""
    made = fast.FastGenerator(network())
    copied = []

    def look(name, module, inputs, output):
        for x in (inputs[0], output):
            layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
            if not x.is_contiguous(memory_format=layout):
                copied.append(name)

    for name, part in made.named_modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.Conv3d | fast.Enlarged):
            part.register_forward_hook(functools.partial(look, name))
    source, driving = given()
    made(made.prepare(source), driving)
    # The occlusion sees slices as channels; the guides of equal blocks are parts of one map.
    assert all(n == "flow.occlusion" or n.startswith("decoder.middle") for n in copied), copied


def test_a_compiler_sees_one_graph():
    source, driving = given()
    made = fast.FastGenerator(network())
    portrait = made.prepare(source)
    compiled = torch.compile(made, backend="eager", fullgraph=True, dynamic=False)
    assert error(compiled(portrait, driving), made(portrait, driving)) < 1e-6


# ------------------------------------------------------------------------------------------------------------ lanes
@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("record", [True, False])
def test_frames_come_one_by_one_in_their_order(device, record):
    source, driving = given(7, device=device)
    made = fast.FastGenerator(network(device))
    lanes = fast.Lanes(made, made.prepare(source), 3, record)
    frames = list(lanes(driving.split(3)))
    truth = fast.to_pixels(network(device).draw(source, driving).prediction).cpu().numpy()
    assert len(frames) == 7 and frames[0].shape == (32, 48, 3) and frames[0].dtype == np.uint8
    assert np.abs(np.stack(frames).astype(int) - truth).max() <= 1
    assert list(lanes(iter(()))) == []


def test_no_batch_waits_for_the_next_where_nothing_runs_beside():
    source, driving = given(4)
    made = fast.FastGenerator(network())
    asked = []
    frames = fast.Lanes(made, made.prepare(source), 2)(asked.append(i) or d for i, d in enumerate(driving.split(2)))
    next(frames)
    assert asked == [0]


def test_a_batch_that_does_not_fit_is_said(monkeypatch):
    source, driving = given(2)
    made = fast.FastGenerator(network())
    lanes = fast.Lanes(made, made.prepare(source), 2)

    def full(portrait, keypoints):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(made, "pixels", full)
    with pytest.raises(DeviceError, match="2 frames do not fit"):
        next(lanes([driving]))


def test_pixels_are_rounded_and_stay_in_range():
    image = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.0]).expand(1, 3, 1, 4)
    assert fast.to_pixels(image)[0, 0, :, 0].tolist() == [0, 0, 1, 255]


def test_precisions_have_names_and_flags_are_put_back():
    assert fast.precision("auto", "cpu") == fast.precision("float32", "cpu") == torch.float32
    assert fast.precision("bfloat16", "cpu") == torch.bfloat16
    with pytest.raises(ConfigError, match="--precision"):
        fast.precision("int4", "cpu")
    before = torch.backends.cudnn.allow_tf32
    with fast.exact():
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before
