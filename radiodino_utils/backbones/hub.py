"""Weights of the Hugging Face Hub: the local cache, checked, and resumable downloads into it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import (
    HfFileMetadata,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import build_hf_headers

from ..core.downloads import download, retry_after
from ..core.errors import InputError
from ..core.files import explaining, file_hash
from .registry import known_sha256

_HINT = "run once with internet, or use random-t16"


class _NoSuchFile(InputError):
    """A repository that lacks a file."""


def fetch_weights(
    repository: str,
    revision: str | None = None,
    *,
    names: Sequence[str] = ("model.safetensors",),
    with_config: bool = True,
) -> tuple[Path, str]:
    """Return the weights of a repository, downloaded if they are not cached.

    Args:
        repository: On the Hub, such as `Snarcy/RadioDino-s16`.
        revision: Branch, tag or commit; `main` by default.
        names: What the file may be called, the best first.
        with_config: Whether `config.json` is needed too; it lies beside the weights.

    Returns:
        The weights file, and the first ten digits of the commit.

    Raises:
        InputError: If a file is neither cached nor to be downloaded, or the weights have another
            SHA-256 than `weights_sha256.csv` lists.
    """
    revision = revision or "main"
    source = f"{repository}@{revision}"
    if with_config:
        _file(repository, "config.json", revision, source)
    weights = _first_file(repository, names, revision, source)
    commit = weights.parent.name
    if (known := known_sha256(repository, commit)) and (digest := file_hash(weights)) != known:
        raise InputError(
            f"{source}: {weights.name} has the SHA-256 {digest}, not {known} as "
            "weights_sha256.csv lists for this commit; do not use it: fetch it from the Hub itself."
        )
    return weights, commit[:10]


def _first_file(repository: str, names: Sequence[str], revision: str, source: str) -> Path:
    """Return the first file that is cached, or else the first that the repository has."""
    names = [name for name in names if _cached(repository, name, revision)] or names
    for name in names:
        try:
            return _file(repository, name, revision, source)
        except _NoSuchFile:
            if len(names) == 1:
                raise
    raise _NoSuchFile(f"{source}: the repository has none of {', '.join(names)}.")


def _file(repository: str, name: str, revision: str, source: str) -> Path:
    """Return a file whose hash is that of the Hub; the Hub is asked once."""
    path = _cached(repository, name, revision)
    if path and path.parent.name == revision and _is_intact(path):
        return path
    facts, trouble = _facts(repository, name, revision, source)
    if facts is None:
        if path and _is_intact(path):
            return path
        state = "damaged in" if path else "not in"
        raise InputError(
            f"{source}: the weights are {state} the local cache ({name}), and {trouble}."
        )
    path = _cached(repository, name, str(facts.commit_hash))
    if path and _is_intact(path, facts.etag):
        if _cached(repository, name, revision) == path:
            return path
    elif path:
        print(f"{source}: {name} in the Hub's cache is damaged; fetched again.", flush=True)
        with explaining(path):
            path.resolve().unlink()
            path.unlink(missing_ok=True)
    _download(repository, name, facts, source)
    cache = constants.HF_HUB_CACHE
    return Path(hf_hub_download(repository, name, revision=revision, cache_dir=cache))


def _cached(repository: str, name: str, revision: str) -> Path | None:
    cache = constants.HF_HUB_CACHE
    path = try_to_load_from_cache(repository, name, cache_dir=cache, revision=revision)
    return Path(path) if isinstance(path, str) else None


def _download(repository: str, name: str, facts: HfFileMetadata, source: str) -> None:
    """Download a file to where the Hub's client keeps it; an interrupted download is resumed."""
    cache, etag = Path(constants.HF_HUB_CACHE), str(facts.etag)
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    algorithm = _algorithm(etag)
    download(
        hf_hub_url(repository, name, revision=facts.commit_hash),
        cache / folder / "blobs" / etag,
        expected=etag if algorithm else "",
        algorithm=algorithm or "sha256",
        hint=f"copy the Hub's cache folder of a machine that has it to {cache}",
        title=f"{source} {name}",
        headers=build_hf_headers(),
        lock=cache / ".locks" / folder / f"{etag}.lock",  # the one of the Hub's client
    )


def _facts(
    repository: str, name: str, revision: str, source: str
) -> tuple[HfFileMetadata | None, str]:
    """Ask the Hub for the commit and hash of a file.

    Returns:
        What the client returns and "", or `None` and the reason.
    """
    if constants.HF_HUB_OFFLINE:
        return None, f"the Hub is not asked (HF_HUB_OFFLINE is set); {_HINT}"
    # to connect, read, write, and for a free connection; the client's hint says float only
    timeout: Any = (2.5, *[float(constants.HF_HUB_ETAG_TIMEOUT)] * 3)
    try:
        url = hf_hub_url(repository, name, revision=revision)
        facts = get_hf_file_metadata(url, timeout=timeout)
    except RevisionNotFoundError as error:
        raise InputError(f"{source}: the Hub knows no such revision.") from error
    except EntryNotFoundError as error:
        raise _NoSuchFile(f"{source}: the repository has no {name}.") from error
    except Exception as error:  # a broken connection: the class depends on the HTTP library
        return None, _trouble(error)
    if not facts.commit_hash or not re.fullmatch(r"[\w.-]+", facts.etag or ""):
        place = constants.ENDPOINT
        return None, f"what answers at {place} is not the Hub (a proxy or a login page?)"
    return facts, ""


def _trouble(error: Exception) -> str:
    """Say why the Hub gave no answer."""
    if isinstance(error, RepositoryNotFoundError):
        return "the Hub knows no such repository, or it needs a login (HF_TOKEN)"
    if isinstance(error, HfHubHTTPError):
        seconds = retry_after(error.response.headers)
        wait = f" and asks to wait {seconds:.0f} s" if seconds else ""
        code = error.response.status_code
        state = "is busy" if code == 429 or code >= 500 else "refuses"
        return f"the Hub {state} (HTTP {code}){wait}; try again later, or use random-t16"
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"the Hub cannot be reached (no network: {reason}); {_HINT}"


def _algorithm(etag: str) -> str | None:
    """Return the hash that the Hub names a file by: git's for small ones, SHA-256 for large."""
    return {40: "git", 64: "sha256"}.get(len(etag)) if re.fullmatch(r"[0-9a-f]+", etag) else None


def _is_intact(path: Path, etag: str | None = None) -> bool:
    """Return whether a cached file has the hash that names it; JSON without a hash must parse."""
    etag = etag or (path.readlink() if path.is_symlink() else path).name
    if algorithm := _algorithm(etag):
        return file_hash(path, algorithm) == etag
    try:
        return path.suffix != ".json" or isinstance(json.loads(path.read_bytes()), dict)
    except ValueError:
        return False
