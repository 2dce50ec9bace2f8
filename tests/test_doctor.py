"""The doctor names what lacks, and the command that mends it."""

from vocalface import doctor


def test_missing_model_files_come_with_their_command(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("VOCALFACE_ASSETS", raising=False)
    found = {f.name: f for f in doctor.check()}
    lacking = found["mediapipe/face_landmarker.task"]
    assert lacking.status == "missing" and lacking.mend == "vocalface fetch mediapipe/face_landmarker.task"
    assert all(f.mend for f in found.values() if f.status == "missing")
    assert {f.status for f in found.values()} <= {"ok", "weak", "missing"}


def test_a_lost_kernel_is_noticed(monkeypatch):
    monkeypatch.setattr(doctor.native, "available", lambda name="gaussians": False)
    kernels = [f for f in doctor.check() if f.name.startswith("CPU kernel")]
    assert len(kernels) == 2 and all(f.status == "missing" and "pip install" in f.mend for f in kernels)
