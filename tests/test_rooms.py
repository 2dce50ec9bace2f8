"""The way the data goes: which room may know which, and who alone prints, opens media and fetches."""

import ast
from pathlib import Path

import pytest

import vocalface

ROOT = Path(vocalface.__file__).parent
FREE = {"errors", "types", "__version__"}
# What a room knows beside them. Methods know every room but each other, and no room knows a method.
BELOW = {
    "assets": set(),
    "media": set(),
    "render": set(),
    "nn": set(),
    "training": {"media"},
    "presenter": {"media", "observe", "render"},
    "faces": {"assets", "observe", "presenter"},
    "observe": {"assets", "faces", "media", "nn"},
    "articulation": {"observe", "presenter"},
    "metrics": {"assets", "media", "nn", "observe", "training"},
}
METHODS = {"hmtalker", "sadtalker"}
FRONT = {"cli", "demo", "doctor", "__init__"}
SOURCES = sorted(ROOT.rglob("*.py"))


def room_of(path: Path) -> str:
    part = path.relative_to(ROOT).parts[0]
    return part.removesuffix(".py")


def modules_of(tree: ast.AST) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_knows_only_those_below_it(path):
    room, modules = room_of(path), modules_of(ast.parse(path.read_text()))
    known = {m.split(".")[1] for m in modules if m.startswith("vocalface.")} - {room}
    if room in METHODS:
        assert not known & (METHODS | FRONT), "methods are peers"
    elif room not in FRONT | FREE:
        assert known <= BELOW[room] | FREE
    outside = {m.split(".")[0] for m in modules}
    assert not outside & {"av", "PIL", "imageio"} or room in ("media", "doctor"), "only `media` opens media files"
    assert not outside & {"pooch", "urllib", "requests"} or room == "assets", "only `assets` touches the network"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_command_line_prints_exits_and_reads_arguments(path):
    if room_of(path) == "cli":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "exit", "quit"), f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("sys", "argv"), ("sys", "exit"), ("os", "_exit")}, node.lineno
            assert (node.value.id, node.attr) not in {("cv2", "imread"), ("cv2", "VideoCapture")}, node.lineno
