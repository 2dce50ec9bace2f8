"""Model files: where they are looked for, and what is said when they are not there."""

import pytest

from vocalface import assets
from vocalface.errors import AssetError

NAME = "mediapipe/face_landmarker.task"


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.delenv("VOCALFACE_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("VOCALFACE_OFFLINE", "1")


def test_every_entry_is_honest_about_itself():
    known = assets.registry()
    assert NAME in known and len(known) > 8
    for entry in known.values():
        assert entry.licence and entry.purpose and not entry.verified
        assert entry.sha256 == "" or len(entry.sha256) == 64
        assert entry.url == "" or entry.url.startswith(("https://", "http://"))
        assert entry.commercial or "NC" in entry.licence or "check" in entry.licence


def test_the_named_folder_comes_before_the_cache(tmp_path, monkeypatch):
    cached = assets.cache_folder() / NAME
    cached.parent.mkdir(parents=True)
    cached.write_text("cache")
    assert assets.path(NAME) == cached
    mine = tmp_path / "mine" / NAME
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    monkeypatch.setenv("VOCALFACE_ASSETS", str(tmp_path / "mine"))
    assert assets.path(NAME) == mine


def test_an_absent_file_names_the_command_that_gets_it():
    assert assets.find(NAME) is None
    with pytest.raises(AssetError) as error:
        assets.path(NAME)
    assert error.value.fix == f"vocalface fetch {NAME}"


def test_fetch_says_what_it_cannot_do():
    with pytest.raises(AssetError, match="unknown: nonsense"):
        assets.fetch(["nonsense"])
    with pytest.raises(AssetError, match="OFFLINE"):
        assets.fetch([NAME])
    assert len(assets.group("sadtalker", assets.registry())) == 4


def test_a_file_that_is_here_is_not_fetched_again(tmp_path, monkeypatch):
    mine = tmp_path / NAME
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    monkeypatch.setenv("VOCALFACE_ASSETS", str(tmp_path))
    told = []
    assert assets.fetch([NAME], progress=lambda *a: told.append(a)) == [mine] and told == [(1, 1, "fetching")]
