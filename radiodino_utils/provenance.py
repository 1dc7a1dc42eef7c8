"""Where a number comes from: versions, revision, device, threads."""

import os
import subprocess
from importlib import metadata
from pathlib import Path

from .files import REPOSITORY

PACKAGES = ("torch", "timm", "openvino", "faiss-cpu", "scikit-learn", "umap-learn", "numpy", "pandas")


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """The installed version of each package by its name on PyPI, "absent" where it is not installed."""

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "absent"

    return {package: version(package) for package in packages}


def git_revision(folder: Path = REPOSITORY) -> str:
    """The short git revision of the code, with `+` behind it where the package differs from it.

    Returns:
        Ten hexadecimal digits, or "unversioned" outside a git checkout of this project.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        git("ls-files", "--error-unmatch", "--", "radiodino_utils/provenance.py")  # not the checkout around an environment
        return git("rev-parse", "--short=10", "HEAD").strip() + "+" * bool(
            git("status", "--porcelain", "--", "radiodino_utils").strip()
        )
    except (OSError, subprocess.CalledProcessError):
        return "unversioned"


def cpu_count() -> int:
    """The processors that this process may use; no more than `$OMP_NUM_THREADS`, where that is a number."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(count, int(wanted)) if wanted.isdecimal() and int(wanted) else count


def set_threads(threads: int | None = None) -> int:
    """Fixes the number of threads of torch and faiss.

    Args:
        threads: How many; `None` takes every processor that the process may use.

    Returns:
        The number set.
    """
    import faiss
    import torch

    threads = threads or cpu_count()
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    return threads


def print_configuration(*, profile: str, seed: int, threads: int | None = None) -> None:
    """Fixes the threads and prints what a reader needs to know about a run.

    Args:
        profile: The profile's name.
        seed: The seed that the notebook passes on.
        threads: See `set_threads`.
    """
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"profile {profile} · seed {seed} · device {device} · threads {set_threads(threads)} · git {git_revision()}")
    print(" · ".join(f"{name} {version}" for name, version in versions().items()))
