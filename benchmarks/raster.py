"""How fast Gaussians are drawn here: `python benchmarks/raster.py`, about 20 seconds; `--help` lists the options.

The scene is a talking head's in the large: 60 % on an ellipsoid (face), 25 % on a shell (hair), 15 % on another
ellipsoid (neck and shoulders); flat along the normal, 1-3 px on the screen at 512 x 512 (log-uniform), opacity
0.1-0.99. It covers 43 % of the picture, a splat touches 1.6 tiles of 32 px.

Wall time is what a user waits, CPU time is what it costs when the machine is shared; medians and minima of `--runs`.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vocalface.render import native, rasterize
from vocalface.types import Camera, Gaussians


def head(count: int, size: int, channels: int = 3, seed: int = 0) -> tuple[Gaussians, Camera]:
    """The scene: NumPy Gaussians and a camera 0.75 m away."""
    rng = np.random.default_rng(seed)
    focal, distance = 1200 * size / 512, 0.75
    face, hair = int(0.6 * count), int(0.25 * count)
    parts = [
        _ellipsoid(rng, face, (0.075, 0.1, 0.08), (0, 0, 0)),
        _ellipsoid(rng, hair, (0.09, 0.115, 0.095), (0, 0.01, -0.01), upper=True),
        _ellipsoid(rng, count - face - hair, (0.11, 0.06, 0.06), (0, -0.14, -0.02)),
    ]
    means, normals = (np.concatenate(p) for p in zip(*parts, strict=True))
    scales = np.exp(rng.uniform(0, np.log(3), (count, 3))) * (size / 512) * distance / focal
    scales[:, 2] *= 0.1
    quats = np.concatenate([1 + normals[:, 2:], np.cross([0.0, 0.0, 1.0], normals)], axis=1)  # turns z to the normal
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[2, 3] = distance
    arrays = (means, quats, scales, rng.uniform(0.1, 0.99, count), rng.uniform(0, 1, (count, channels)))
    camera = Camera(focal, focal, size / 2, size / 2, size, size, pose.astype(np.float32))
    return Gaussians(*(a.astype(np.float32) for a in arrays)), camera


def _ellipsoid(rng, count, radii, centre, upper=False) -> tuple[np.ndarray, np.ndarray]:
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    if upper:
        direction[:, 1] = np.abs(direction[:, 1])
    normal = direction / np.array(radii)
    return direction * radii + np.array(centre), normal / np.linalg.norm(normal, axis=1, keepdims=True)


def measure(work: Callable[[], object], runs: int) -> tuple[np.ndarray, np.ndarray]:
    """(median, minimum) in ms of wall time and of this process's CPU time."""
    for _ in range(3):
        work()
    wall, cpu = np.empty(runs), np.empty(runs)
    for i in range(runs):
        w, c = time.perf_counter(), time.process_time()
        work()
        wall[i], cpu[i] = time.perf_counter() - w, time.process_time() - c
    return tuple(1e3 * np.array([np.median(t), t.min()]) for t in (wall, cpu))


def forward_and_backward(g: Gaussians, camera: Camera) -> Callable[[], None]:
    import torch

    torch.set_num_threads(1)  # the rasteriser has its own
    leaves = [torch.from_numpy(a).requires_grad_() for a in (g.means, g.quats, g.scales, g.opacities, g.colors)]
    picture = torch.rand(camera.height, camera.width, g.colors.shape[1])
    alpha = torch.rand(camera.height, camera.width)

    def work() -> None:
        out = rasterize(Gaussians(*leaves), camera, backend="cpu")
        torch.autograd.backward([out.image, out.alpha], [picture, alpha])
        for leaf in leaves:
            leaf.grad = None

    return work


def machine() -> str:
    """Processor, cores, load."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        name = next(
            (line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line), name
        )
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} cores{load}; variant {native.candidates()[0]}, {native.threads()} threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", default="20000@256,20000@512,50000@512,100000@512,50000@1024", help="count@size,...")
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--forward-only", action="store_true")
    options = parser.parse_args()
    print(machine())
    print(f"{'case':>12}  {'':8}  {'wall median':>11}  {'best':>6}  {'CPU median':>10}  {'best':>6}  (ms)")
    for case in options.case.split(","):
        count, size = map(int, case.split("@"))
        g, camera = head(count, size, options.channels)
        jobs = {"forward": lambda g=g, camera=camera: rasterize(g, camera, backend="cpu")}
        if not options.forward_only:
            jobs["+ back"] = forward_and_backward(g, camera)
        for name, work in jobs.items():
            (wall, least), (cpu, cpu_least) = measure(work, options.runs)
            print(f"{case:>12}  {name:8}  {wall:11.2f}  {least:6.2f}  {cpu:10.2f}  {cpu_least:6.2f}", flush=True)


if __name__ == "__main__":
    main()
