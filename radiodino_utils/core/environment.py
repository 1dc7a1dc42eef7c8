"""Where a number comes from: versions, git revision, processor and threads."""

import json
import os
import platform
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path

from .extras import extra
from .files import REPOSITORY, write_json

PACKAGES = (
    "torch",
    "timm",
    "openvino",
    "faiss-cpu",
    "scikit-learn",
    "umap-learn",
    "numpy",
    "pandas",
)


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the installed version of each package, or "absent", by its name on PyPI."""

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "absent"

    return {package: version(package) for package in packages}


@cache
def git_revision(folder: Path = REPOSITORY) -> str:
    """Return the short git revision of the code, followed by "+" if the package differs from it.

    It is that of the first call: what a process has imported does not change.

    Args:
        folder: Root of the checkout.

    Returns:
        Ten hexadecimal digits, or "unversioned" outside a git checkout of this project.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        ).stdout

    try:
        # fails in the checkout of another project whose environment holds the package
        git("ls-files", "--error-unmatch", "--", "radiodino_utils/core/environment.py")
        changes = git("status", "--porcelain", "--", "radiodino_utils").strip()
        return git("rev-parse", "--short=10", "HEAD").strip() + ("+" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unversioned"


def cpu_count() -> int:
    """Return the number of processors that this process may use, at most `$OMP_NUM_THREADS`."""
    has_affinity = hasattr(os, "sched_getaffinity")
    count = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(count, int(limit)) if limit.isdecimal() and int(limit) else count


def launched() -> tuple[int, int, int]:
    """Return what the launcher says of this process and its group.

    Only the whole set of `torchrun`'s variables counts, or what Lightning passes to the processes
    that a run starts. Others, left by a job or shell, are removed from the environment, so that no
    library waits for processes that do not exist.

    Returns:
        Rank of this process, number of processes, and number of processes on this machine.
    """
    numbers = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
    whole = all(os.environ.get(name, "").isdecimal() for name in numbers)
    if whole and "TORCHELASTIC_RUN_ID" in os.environ and "MASTER_ADDR" in os.environ:
        rank, world, local = (int(os.environ[name]) for name in numbers[:3])
        return rank, world, local
    if STARTED in os.environ:
        count = int(os.environ[STARTED])
        return int(os.environ.get("LOCAL_RANK", 0)), count, count
    for name in _LAUNCHER:
        os.environ.pop(name, None)
    return 0, 1, 1


STARTED = "RADIODINO_PROCESSES"  # how many processes a run starts by itself; set for those only
_LAUNCHER = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "ROLE_RANK"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "SLURM_PROCID", "JSM_NAMESPACE_RANK"),
)


def set_threads(threads: int | None = None) -> int:
    """Set the number of threads of torch and faiss.

    Args:
        threads: Number of threads; `None` takes every processor that the process may use.

    Returns:
        The number that was set.
    """
    with extra("evaluation"):
        import faiss
    import torch

    threads = threads or cpu_count()
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    return threads


# The order of sums changes with the number of threads, and after some steps the result with it.
TRAINING_THREADS = 1


@contextmanager
def training_threads() -> Iterator[None]:
    """Run a block, or a decorated function, with `TRAINING_THREADS` threads of torch.

    Training then gives the same result with any number of processors or parallel jobs, and any
    `OMP_NUM_THREADS`.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(TRAINING_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# names of /proc/cpuinfo, best first
_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "avx", "asimd", "neon")


def processor() -> str:
    """Return the processor and its widest instruction set in use: "AMD EPYC (avx512_bf16)"."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        cpuinfo = ""
    model = re.search(r"^model name\s*: (.+)$", cpuinfo, re.M)
    name = model[1].strip() if model else platform.processor() or "unknown processor"
    flags = re.search(r"^(?:flags|Features)\s*: (.+)$", cpuinfo, re.M)
    available = flags[1].split() if flags else []
    widest = next((each for each in _INSTRUCTIONS if each in available), platform.machine())
    return f"{name} ({os.environ.get('ATEN_CPU_CAPABILITY') or widest})"


_RECORD = "processors.json"
_recording = threading.Lock()


def record_processor(folder: Path, notebook: str, *, threads: int) -> None:
    """Record in a results folder on which processor a notebook ran, and with how many threads.

    Args:
        folder: Results folder of a profile.
        notebook: Name of the notebook.
        threads: Number of threads that it could use; training uses `TRAINING_THREADS`.
    """
    with _recording:
        records = _recorded(folder) | {notebook: {"processor": processor(), "threads": threads}}
        write_json(folder / _RECORD, dict(sorted(records.items())))


def made_on(folder: Path) -> str:
    """Return the processors that made a results folder.

    Args:
        folder: Results folder of a profile.

    Returns:
        Such as "AMD EPYC (avx512_bf16), 2 threads"; empty if none is recorded.
    """
    machines = set()
    for record in _recorded(folder).values():
        plural = "" if record["threads"] == 1 else "s"
        machines.add(f"{record['processor']}, {record['threads']} thread{plural}")
    return "; ".join(sorted(machines))


def _recorded(folder: Path) -> dict[str, dict]:
    try:
        return json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def print_configuration(*, profile: str, seed: int, threads: int | None = None) -> None:
    """Set the number of threads and print what a reader needs to know about a run.

    Args:
        profile: Name of the profile.
        seed: Seed that the notebook passes on.
        threads: See `set_threads`.
    """
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(
        f"profile {profile} · seed {seed} · device {device} "
        f"· threads {set_threads(threads)} · git {git_revision()}"
    )
    print(f"processor {processor()} · training threads {TRAINING_THREADS}")
    print(" · ".join(f"{name} {version}" for name, version in versions().items()))
