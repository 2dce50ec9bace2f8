"""How fast the published renderer draws, and how soon, on this machine: rows of coefficients to frames in host memory.

python benchmarks/official_renderer.py                             (random weights)
python benchmarks/official_renderer.py --weights SadTalker_V0.0.2_256.safetensors --mapping mapping_00229-model.pth.tar
python benchmarks/official_renderer.py --fill PARITY_FOLDER        (weights that are a function of their keys)
python benchmarks/official_renderer.py --sizes 256 --batches 2 --reference --frames 2     (on a processor)

Weights do not change the speed. The first line for a size says how soon its first frame is there, libraries and kernels
loaded on the way; only that of the first size is that of a fresh process. Goal, on an H200: 60 frames a second at 256
px, the first within 3 s.
"""

import argparse
import importlib.util
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from vocalface.nn.spade import fold_spectral_norm
from vocalface.sadtalker import checkpoints, fast, official
from vocalface.sadtalker.facevid2vid import OcclusionAwareSPADEGenerator
from vocalface.sadtalker.keypoints import KPDetector
from vocalface.sadtalker.mapping import MappingNet

TINY = {"base": 8, "volume": 4, "depth": 4, "blocks": 2}


def networks(a: argparse.Namespace) -> tuple[list[torch.nn.Module], str]:
    """Mapping, keypoints and generator, and a word about their weights."""
    if a.weights:
        found = checkpoints.load_published(a.weights, ("kp_extractor", "generator"))
        mapping = checkpoints.load_mapping(a.mapping) if a.mapping else MappingNet().eval()
        return [mapping, found["kp_extractor"], found["generator"]], f"{a.weights.name}"
    torch.manual_seed(0)
    if a.tiny:
        made = [MappingNet(width=16), KPDetector(4, 4, 2), OcclusionAwareSPADEGenerator(**TINY)]
        return made, "random, TINY networks: no figures of the published ones"
    made = [MappingNet(), KPDetector(), OcclusionAwareSPADEGenerator()]
    if not a.fill:
        return made, "random"
    spec = importlib.util.spec_from_file_location("fill", a.fill / "fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    shapes = json.loads((a.fill / "state_dicts.json").read_text())
    for network, name in zip(made, ("mapping_70", "kp_extractor", "generator")):
        arrays = fill.fill_state_dict(shapes[name], skip=lambda key: key == "down.weight")
        state = {key: torch.from_numpy(array) for key, array in arrays.items()}
        network.load_state_dict(fold_spectral_norm(state), strict=False)
    return made, "made up, a function of their keys"


class Readable:
    """The readable network behind the face of `fast.Lanes`."""

    def __init__(self, renderer: official.Renderer, source) -> None:
        self.generator, self.source = renderer.networks.generator, source

    @torch.no_grad()
    def __call__(self, batches):
        for driving in batches:
            yield from fast.to_pixels(self.generator.draw(self.source, driving).prediction).cpu().numpy()


def peak(device: torch.device, reset: bool = False) -> float:
    """Peak memory in MB: of the device, or of this process."""
    if device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 2**20
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


@torch.no_grad()
def operations(renderer: official.Renderer, reference: bool) -> float:
    """GFLOP a frame, two for each multiplication with its sum."""
    lanes = renderer.draw
    driving = lanes.portrait.keypoints if not reference else lanes.source.keypoints
    with FlopCounterMode(display=False) as counter:
        if reference:
            lanes.generator.draw(lanes.source, driving)
        else:
            lanes.network(lanes.portrait, driving)
    return counter.get_total_flops() / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="a SadTalker safetensors file")
    parser.add_argument("--mapping", type=Path, help="mapping_00229-model.pth.tar (default: random)")
    parser.add_argument("--fill", type=Path, help="a folder with fill.py and state_dicts.json")
    parser.add_argument("--tiny", action="store_true", help="few channels, to try the command")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precisions", nargs="+", default=None, choices=fast.PRECISIONS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--batches", type=int, nargs="+", default=None)
    parser.add_argument("--frames", type=int, default=None, help="drawn in each of the repeats")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--reference", action="store_true", help="the readable network too")
    parser.add_argument("--no-graph", action="store_true", help="CUDA: do not record batches")
    parser.add_argument("--compile", action="store_true", help="by torch.compile; the first batch takes minutes")
    parser.add_argument("--search", action="store_true", help="CUDA: let cuDNN try its algorithms first")
    a = parser.parse_args()

    device = torch.device(a.device)
    cuda = device.type == "cuda"
    batches = a.batches or ([1, 4, 8, 16] if cuda else [1, 2])
    frames = a.frames or (128 if cuda else 2)
    precisions = a.precisions or (["bfloat16", "float16", "float32"] if cuda else ["float32"])
    torch.backends.cudnn.benchmark = a.search
    made, word = networks(a)
    name = torch.cuda.get_device_name(device) if cuda else f"processor, {torch.get_num_threads()} threads"
    print(f"{name}; torch {torch.__version__}; weights: {word}")

    began = time.perf_counter()
    for network in made:
        network.eval().requires_grad_(False).to(device)
    if cuda:
        torch.cuda.synchronize()
    moved = time.perf_counter() - began
    rng = np.random.default_rng(0)
    print(f"networks to the device: {moved:.2f} s")
    for size in a.sizes:
        square = rng.integers(0, 256, (size, size, 3), np.uint8)
        rows = rng.normal(0, 0.3, (max(frames, *batches), made[0].channels)).astype(np.float32)
        net = official.Networks(None, None, None, *made, size=size)
        for kind in [*precisions, *(["reference"] if a.reference else [])]:
            readable = kind == "reference"
            for count in batches:
                peak(device, reset=True)
                began = time.perf_counter()
                renderer = official.Renderer(
                    net, square, rows[0], count, "float32" if readable else kind, record=not (a.no_graph or a.compile)
                )
                if readable:
                    image = torch.from_numpy(square).to(device).permute(2, 0, 1)[None] / 255
                    with torch.no_grad():
                        source = net.generator.encode(image, renderer.draw.portrait.keypoints)
                    renderer.draw = Readable(renderer, source)
                elif a.compile:
                    renderer.draw.network.compile(dynamic=False)
                ready = time.perf_counter() - began
                next(renderer(rows[:count]))
                first = time.perf_counter() - began
                if count == batches[0]:
                    print(
                        f"{size} px, {kind}: {operations(renderer, readable):.0f} GFLOP a frame; portrait ready after "
                        f"{ready:.2f} s, first frame after {first:.2f} s"
                    )
                took, worked = [], []
                for _ in range(a.repeats):
                    began, cpu = time.perf_counter(), time.process_time()
                    drawn = sum(1 for _ in renderer(rows[:frames]))
                    took.append((time.perf_counter() - began) / drawn)
                    worked.append((time.process_time() - cpu) / drawn)
                graph = ", recorded" if not readable and renderer.draw.recorded is not None else ""
                print(
                    f"  batch {count:2}{graph}: {1 / statistics.median(took):8.3f} frames a second, "
                    f"{statistics.median(took):.4f} s a frame ({statistics.median(worked):.4f} s of processor), "
                    f"peak {peak(device):.0f} MB",
                    flush=True,
                )
                del renderer


if __name__ == "__main__":
    main()
