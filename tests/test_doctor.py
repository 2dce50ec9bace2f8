"""The doctor names what lacks, and the command that mends it."""

import builtins
import importlib

import pytest

from vocalface import assets, doctor
from vocalface.errors import ConfigError


@pytest.fixture
def bare(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("VOCALFACE_ASSETS", raising=False)
    return tmp_path


def found(name):
    return next(f for f in doctor.check() if f.name == name)


def test_every_finding_is_complete(bare, capsys):
    findings = doctor.check()
    assert {f.status for f in findings} <= {"ok", "weak", "missing"}
    assert all(f.detail for f in findings) and all(bool(f.mend) == (f.status != "ok") for f in findings)
    assert len({f.name for f in findings}) == len(findings)
    assert capsys.readouterr() == ("", "")


def test_missing_model_files_come_with_their_command(bare):
    name = "mediapipe/face_landmarker.task"
    assert found(name).status == "missing" and found(name).mend == f"vocalface fetch {name}"
    assert found("optional: lpips").mend == "vocalface fetch lpips"
    assert "README" in found("optional: wav2lip").mend and "commercial" in found("optional: wav2lip").detail


def test_a_damaged_model_file_is_noticed(bare):
    name = "mediapipe/face_landmarker.task"
    file = assets.cache_folder() / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"half a file")
    assert found(name).status == "missing" and "damaged" in found(name).detail and str(file) in found(name).mend


def test_a_lost_kernel_is_noticed(monkeypatch):
    monkeypatch.setattr(doctor.native, "available", lambda name="gaussians": False)
    kernels = [f for f in doctor.check() if f.name.startswith("CPU kernel")]
    assert len(kernels) == 2 and all(f.status == "missing" and "pip install" in f.mend for f in kernels)


def test_lost_libraries_are_one_apt_line(monkeypatch):
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    monkeypatch.setattr(doctor, "_loads", lambda library: library == "libGLESv2.so.2")
    assert found("libraries of MediaPipe").status == "missing"
    assert found("libraries of MediaPipe").mend.endswith("apt-get install -y libegl1 libgl1")


def test_a_lost_package_is_noticed(monkeypatch):
    load = importlib.import_module

    def without(name, *args):
        if name.startswith("ai_edge_litert"):
            raise ImportError("no module")
        return load(name, *args)

    monkeypatch.setattr(doctor.importlib, "import_module", without)
    assert found("ai-edge-litert").status == "missing" and found("ai-edge-litert").mend == "pip install ai-edge-litert"


def test_without_torch_speaking_still_works(monkeypatch):
    load = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "torch":
            raise ImportError("no torch")
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    (finding,) = doctor._torch()
    assert finding.status == "missing" and "not to speak" in finding.detail and finding.mend == "pip install torch"


def test_a_broken_part_hides_no_other(monkeypatch):
    def broken(name="gaussians"):
        raise ConfigError("VOCALFACE_CPU=vax is no variant", "environment", "unset it")

    monkeypatch.setattr(doctor.native, "available", broken)
    monkeypatch.setattr(doctor.native, "threads", lambda: 1 / 0)
    findings = {f.name: f for f in doctor.check()}
    assert findings["kernels"].mend == "unset it" and findings["cores"].status == "weak" and "memory" in findings


def test_scarcity_is_told(monkeypatch, bare):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1e9}))
    monkeypatch.setattr(doctor.native, "threads", lambda: 1)
    monkeypatch.setenv("VOCALFACE_OFFLINE", "1")
    for name in ("disk here", "disk of the cache", "processors", "network"):
        assert found(name).status == "weak" and found(name).mend
