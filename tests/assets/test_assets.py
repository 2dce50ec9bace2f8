"""Model files: where they are looked for, how they come, and what is said when they do not."""

import hashlib
import http.server
import threading

import pytest

from vocalface import assets
from vocalface.errors import AssetError

NAME = "mediapipe/face_landmarker.task"


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.delenv("VOCALFACE_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("VOCALFACE_OFFLINE", "1")


def put(folder, name=NAME, size=None):
    """A file of the registry's size (or another), full of zeros."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as f:
        f.truncate(assets.registry()[name].bytes if size is None else size)
    return file


def test_every_entry_is_honest_about_itself():
    known = assets.registry()
    assert NAME in known and len(known) > 20
    for name, entry in known.items():
        assert entry.licence and entry.purpose and not entry.verified
        assert entry.sha256 == "" or (len(entry.sha256) == 64 and int(entry.sha256, 16))
        assert all(url.startswith(("https://", "http://")) for url in (*entry.mirrors, *filter(None, [entry.url])))
        assert entry.url or entry.get, "no address, then the way to it"
        assert entry.commercial or any(word in entry.licence for word in ("NC", "non-commercial", "research", "check"))
        assert not name.startswith(("/", ".")) and ".." not in name and isinstance(entry.bytes, int)
    assert not any(known[n].commercial for n in known if n.startswith(("sadtalker/", "wav2lip/")))


def test_the_named_folder_comes_before_the_cache(tmp_path, monkeypatch):
    cached = put(assets.cache_folder())
    assert assets.path(NAME) == cached
    mine = put(tmp_path / "mine")
    monkeypatch.setenv("VOCALFACE_ASSETS", str(tmp_path / "mine"))
    assert assets.path(NAME) == mine == assets.find(NAME)


def test_an_absent_file_names_the_command_that_gets_it():
    assert assets.find(NAME) is None and assets.intact(NAME) is None
    with pytest.raises(AssetError) as error:
        assets.path(NAME)
    assert error.value.fix == f"vocalface fetch {NAME}"
    with pytest.raises(AssetError) as error:
        assets.path("wav2lip/wav2lip.pth")
    assert "README" in error.value.fix and str(assets.cache_folder()) in error.value.fix


def test_a_file_cut_short_is_noticed():
    short = put(assets.cache_folder(), size=1000)
    with pytest.raises(AssetError, match="1000 bytes") as error:
        assets.path(NAME)
    assert str(short) in error.value.fix
    put(assets.cache_folder())
    assert assets.path(NAME) == short and assets.intact(NAME) is False


def test_fetch_says_what_it_cannot_do():
    with pytest.raises(AssetError, match="unknown: nonsense"):
        assets.fetch(["nonsense"])
    with pytest.raises(AssetError, match="OFFLINE"):
        assets.fetch([NAME])
    assert len(assets.group("sadtalker", assets.registry())) == 4


def test_what_is_not_published_says_how_to_come_by_it(monkeypatch):
    monkeypatch.delenv("VOCALFACE_OFFLINE")
    with pytest.raises(AssetError, match="not published") as error:
        assets.fetch(["audio/audio_visual_encoder.pth"])
    assert "SyncTalk" in error.value.fix and "copy it to" in error.value.fix


def test_a_file_that_is_here_is_not_fetched_again(tmp_path, monkeypatch):
    mine = put(tmp_path)
    monkeypatch.setenv("VOCALFACE_ASSETS", str(tmp_path))
    told = []
    assert assets.fetch([NAME], progress=lambda *a: told.append(a)) == [mine] and told == [(1, 1, "fetching")]


# ------------------------------------------------------------------------------------------------------------- download
CONTENT = bytes(range(256)) * 300
LENGTH = len(CONTENT)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of this machine alone that has /good and /bad; (address, requests seen)."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.path)
            body = {"/good": CONTENT, "/bad": CONTENT[:-1]}.get(self.path)
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_):
            pass

    monkeypatch.delenv("VOCALFACE_OFFLINE")
    monkeypatch.setenv("NO_PROXY", "*")
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}", seen
    serving.shutdown()
    serving.server_close()


def register(monkeypatch, url, mirrors=(), digest=None, size=LENGTH):
    digest = hashlib.sha256(CONTENT).hexdigest() if digest is None else digest
    entry = assets.Asset("test/file.bin", url, digest, size, "none", True, False, "tests", tuple(mirrors))
    monkeypatch.setattr(assets, "registry", lambda: {entry.name: entry})
    return entry


def test_a_download_is_checked_kept_and_told(server, monkeypatch):
    address, seen = server
    register(monkeypatch, f"{address}/good")
    told = []
    (file,) = assets.fetch(["test"], progress=lambda *a: told.append(a))
    assert file == assets.cache_folder() / "test/file.bin" and file.read_bytes() == CONTENT
    assert told[-2] == (len(CONTENT), len(CONTENT), "fetching test/file.bin") and told[-1] == (1, 1, "fetching")
    assert assets.fetch(["test/file.bin"]) == [file] and seen == ["/good"] and assets.intact("test/file.bin")


@pytest.mark.parametrize("size", [0, len(CONTENT)])
def test_a_mirror_serves_where_the_first_address_fails(server, monkeypatch, size):
    address, seen = server
    register(monkeypatch, f"{address}/none", [f"{address}/bad", f"{address}/good"], size=size)
    (file,) = assets.fetch(["test/file.bin"])
    assert file.read_bytes() == CONTENT and seen == ["/none", "/bad", "/good"]


@pytest.mark.parametrize("digest", [None, ""])
def test_other_bytes_are_refused_and_not_kept(server, monkeypatch, digest):
    address, _ = server
    entry = register(monkeypatch, f"{address}/bad", digest=digest)
    with pytest.raises(AssetError, match="could not be fetched") as error:
        assets.fetch([entry.name])
    assert "hash or size differs" in error.value.where and "copy it to" in error.value.fix
    assert not [f for f in assets.cache_folder().rglob("*") if f.is_file()]


def test_a_file_cut_short_is_fetched_again(server, monkeypatch):
    address, seen = server
    entry = register(monkeypatch, f"{address}/good")
    stump = assets.cache_folder() / entry.name
    stump.parent.mkdir(parents=True)
    stump.write_bytes(CONTENT[:99])
    assert assets.fetch([entry.name])[0].read_bytes() == CONTENT and seen == ["/good"]


def test_offline_means_offline(server, monkeypatch):
    address, seen = server
    entry = register(monkeypatch, f"{address}/good")
    monkeypatch.setenv("VOCALFACE_OFFLINE", "1")
    with pytest.raises(AssetError, match="OFFLINE"):
        assets.fetch([entry.name])
    assert seen == []
