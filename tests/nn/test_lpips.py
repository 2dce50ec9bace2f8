import os
from pathlib import Path

import pytest
import torch

from vocalface.errors import AssetError
from vocalface.nn import lpips
from vocalface.nn.lpips import Lpips

HEADS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512),
         "squeeze": (64, 128, 256, 384, 384, 512, 512)}  # fmt: skip


def random_model(net, seed=0):
    torch.manual_seed(seed)
    model = Lpips(net)
    for head in model.heads:
        head.uniform_(0, 1)
    return model


@pytest.mark.parametrize("net, parameters", [("alex", 2_469_696), ("vgg", 14_714_688), ("squeeze", 722_496)])
def test_structure(net, parameters):
    model = Lpips(net)
    assert sum(p.numel() for p in model.features.parameters()) == parameters
    assert tuple(len(h) for h in model.heads) == HEADS[net]
    taps = model._taps(torch.rand(1, 64, 64, 3))
    assert tuple(t.shape[1] for t in taps) == HEADS[net] and all(min(t.shape[2:]) > 0 for t in taps)
    assert all((t >= 0).all() for t in taps)  # taps lie after the ReLU


def test_key_names_are_torchvisions():
    assert [k for k in Lpips("alex").state_dict() if k.startswith("f")] == [
        f"features.{i}.{kind}" for i in (0, 3, 6, 8, 10) for kind in ("weight", "bias")
    ]
    vgg = {k.split(".")[1] for k in Lpips("vgg").state_dict() if k.startswith("f")}
    assert vgg == {str(i) for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}
    assert Lpips("squeeze").state_dict()["features.12.expand3x3.weight"].shape == (256, 64, 3, 3)


@pytest.mark.parametrize("net", HEADS)
def test_is_a_distance(net):
    model = random_model(net)
    x, y = torch.rand(2, 2, 70, 64, 3)
    distance = model(x, y)
    assert distance.shape == (2,) and (distance > 0).all()
    torch.testing.assert_close(model(y, x), distance)
    assert model(x, x).tolist() == [0, 0]
    torch.testing.assert_close(model(x[1], y[1])[0], distance[1])
    assert (model(x, 0.9 * x + 0.1 * y) < distance).all()


def test_equals_the_formula_for_one_tap():
    model = random_model("alex")
    for head in model.heads[1:]:
        head.zero_()
    x, y = torch.rand(2, 64, 64, 3)
    scale, shift = torch.tensor([0.458, 0.448, 0.450]), torch.tensor([-0.030, -0.088, -0.188])
    features = [model.features[:2](((2 * i - 1 - shift) / scale).permute(2, 0, 1))[None] for i in (x, y)]
    unit = [torch.nn.functional.normalize(f, dim=1) for f in features]
    expected = ((unit[0] - unit[1]).square() * model.heads[0].view(1, -1, 1, 1)).sum(1).mean()
    torch.testing.assert_close(model(x, y)[0], expected, rtol=1e-4, atol=1e-6)


def test_gradient_flows_to_the_image_alone():
    model = random_model("squeeze")
    x = torch.rand(64, 64, 3, requires_grad=True)
    model(x, torch.rand(64, 64, 3)).backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.parameters())


def test_dead_features_give_no_nan():
    model = random_model("squeeze")
    for parameter in model.features.parameters():
        parameter.zero_()
    x = torch.rand(64, 64, 3, requires_grad=True)
    model(x, torch.rand(64, 64, 3)).backward()
    assert x.grad.isfinite().all()


def test_files_round_trip(tmp_path):
    source = random_model("alex", 1)
    trunk, heads = tmp_path / "trunk.pth", tmp_path / "heads.pth"
    state = {f"features.{k}": v for k, v in source.features.state_dict().items()}
    torch.save({**state, "classifier.1.weight": torch.zeros(2)}, trunk)
    torch.save({f"lin{i}.model.1.weight": h.view(1, -1, 1, 1) for i, h in enumerate(source.heads)}, heads)
    model, why = lpips.load(trunk, heads, "alex")
    x, y = torch.rand(2, 64, 64, 3)
    assert why == "" and torch.equal(model(x, y), source(x, y))
    with pytest.raises(AssetError, match="vgg"):
        lpips.load(trunk, heads, "vgg")


def test_absent_weights_give_a_reason(tmp_path):
    assert lpips.load(None, None) == (None, "alexnet-owt-7be5be79.pth is not at hand")
    assert lpips.load(tmp_path / "no.pth", None, "squeeze")[0] is None


@pytest.mark.parametrize("net", HEADS)
def test_published_heads_load(net):
    root = os.environ.get("VOCALFACE_ASSETS")
    path = Path(root or "/nonexistent") / "lpips" / f"lpips_lin_v0.1_{net}.pth"
    if not path.is_file():
        pytest.skip("LPIPS heads not at hand (VOCALFACE_ASSETS)")
    model = Lpips(net)
    model.load_heads(torch.load(path, map_location="cpu", weights_only=True))
    assert all((h >= 0).all() and h.sum() > 0 for h in model.heads)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="expected"):
        Lpips("alex")(torch.rand(3, 64, 64), torch.rand(3, 64, 64))
