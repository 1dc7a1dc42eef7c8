"""Time a pre-training step beside the bare model, and write `pretraining.csv` beside this file.

    python benchmarks/pretraining.py [--archs t16 s16] [--rounds 5] [--batch-size 32]

A step is all of it: drawing and cutting the views from images in memory, teacher, student, loss,
backward, clipping, optimizer, moving average. The bare model is timm's transformer alone at the
same numbers of tokens and precision: forward without gradient on the two global views, forward and
backward on all views. The two are timed in turns; a ratio is the median over the rounds.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from timm import create_model

from radiodino_utils.core.environment import git_revision, set_threads, versions
from radiodino_utils.core.fabric import make_fabric
from radiodino_utils.core.files import write_text
from radiodino_utils.pretraining.config import PretrainConfig, architecture
from radiodino_utils.pretraining.config_files import load_config
from radiodino_utils.pretraining.corpus import Corpus
from radiodino_utils.pretraining.plan import Plan, RunOptions
from radiodino_utils.pretraining.progress import Clock
from radiodino_utils.pretraining.run import Run
from radiodino_utils.pretraining.schedules import schedule

BAR = 0.85
TABLE = Path(__file__).with_suffix(".csv")


def synthetic_corpus(images: int) -> Corpus:
    """Return random images of 256 pixels, in memory."""
    generator = np.random.default_rng(0)
    arrays = [generator.integers(0, 256, (256, 256), np.uint8) for _ in range(images)]
    names = [str(row) for row in range(images)]
    return Corpus(names, np.zeros(images, int), np.ones(1), ["made"], names, 0.0, images=arrays)


class Bare:
    """Forward and backward of the transformer alone, on ready tensors of the same sizes."""

    def __init__(self, arch: str, config: PretrainConfig, fabric: Fabric) -> None:
        self.fabric, device = fabric, fabric.device
        self.model = (
            create_model(architecture(arch), num_classes=0, dynamic_img_size=True)
            .to(device)
            .train()
        )
        for block in self.model.blocks:
            block.attn.fused_attn = device.type == "cuda"
        sizes = ((2, config.global_size), (config.local_count, config.local_size))
        self.views = [
            torch.randn(count * config.batch_size, 3, size, size, device=device)
            for count, size in sizes
            if count
        ]

    def __call__(self) -> None:
        """Make one pass."""
        with self.fabric.autocast():
            with torch.no_grad():
                self.model(self.views[0])
            outputs = [self.model(views) for views in self.views]
        sum(output.float().sum() for output in outputs).backward()
        self.model.zero_grad()


def seconds(work: object, device: torch.device) -> float:
    """Return the time of one call, the device's work included."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archs", nargs="+", default=["t16", "s16"], help="architectures to time")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of one step of each")
    parser.add_argument("--batch-size", type=int, default=32, help="images per step")
    parser.add_argument("--threads", type=int, help="processors to use; all by default")
    options = parser.parse_args()
    threads = set_threads(options.threads)
    corpus, lines, fabric = synthetic_corpus(256), [], make_fabric()
    for arch in options.archs:
        config = load_config("small", images=len(corpus), batch_size=options.batch_size, steps=1000)
        with tempfile.TemporaryDirectory() as folder:
            run = Run(Plan(arch, config), corpus, Path(folder), RunOptions(), fabric)
        batches, clock, now = iter(run.batches()), Clock(), schedule(config, 500)
        works = {
            "ours": lambda: run.training_step(batches, now, clock),  # noqa: B023
            "bare": Bare(arch, config, fabric),
        }
        for work in 2 * list(works.values()):
            work()
        clock.waited, taken = 0.0, {name: [] for name in works}
        for turn in range(options.rounds):
            for name in sorted(works, reverse=turn % 2):
                taken[name].append(seconds(works[name], fabric.device))
        ours, alone = taken["ours"], taken["bare"]
        share = clock.waited / sum(ours)
        ratio = statistics.median(b / a for a, b in zip(ours, alone, strict=True))
        rates = [options.batch_size / statistics.median(times) for times in (ours, alone)]
        views = f"2x{config.global_size}+{config.local_count}x{config.local_size}"
        lines.append(
            f"{arch},{views},{options.batch_size},{rates[0]:.1f},{rates[1]:.1f},{ratio:.3f},{BAR},{share:.4f},"
            f"{fabric.device.type},{fabric._precision.precision},{threads},{options.rounds},"
            f"{versions(('torch',))['torch']},{git_revision()}"
        )
        print(
            f"{arch} {views}: {rates[0]:.1f} images/s, bare {rates[1]:.1f}, ratio {ratio:.3f}, "
            f"lost to data {share:.1%}"
        )
    header = (
        "arch,views,batch_size,images_per_second,bare_images_per_second,ratio,bar,data_share,device,precision,threads,"
        "rounds,torch,git"
    )
    write_text(TABLE, "\n".join([header, *lines]) + "\n")


if __name__ == "__main__":
    main()
