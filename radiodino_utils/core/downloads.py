"""Downloads that are resumed where they were cut, and checked before they are used."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError
from .files import explaining, file_hash, require_space
from .locks import locked

if TYPE_CHECKING:
    import requests

ATTEMPTS = 5
BACKOFF = 1.0  # seconds before the second attempt; doubles with each
LONGEST = 60.0  # longest wait in seconds that a busy server may ask for
TIMEOUT = (5.0, 30.0)  # seconds to connect, and between two blocks
_BUSY = (429, 500, 502, 503, 504)
_IS_BUSY = "the server is busy"


@dataclass(frozen=True)
class Missing:
    """Dataset or weights that are needed and not on this machine.

    Attributes:
        name: Registered name of a dataset or backbone.
        url: Address from which it is downloaded at its first use; empty if a person must fetch it.
        hint: How a person provides it, as the end of a sentence.
    """

    name: str
    url: str
    hint: str


def is_reachable(url: str, *, timeout: float = 3.0) -> bool:
    """Return whether the server of an address answers at all within `timeout` seconds."""
    import requests

    try:
        requests.head(url, timeout=timeout, allow_redirects=False)
    except requests.RequestException:
        return False
    return True


def download(
    url: str,
    path: Path,
    *,
    expected: str,
    algorithm: str = "md5",
    hint: str,
    title: str = "",
    headers: Mapping[str, str] | None = None,
    lock: Path | None = None,
) -> Path:
    """Download a file with a progress bar.

    Data received so far lies in `NAME.part` beside the file. A busy server (HTTP 429 or 5xx) is
    asked again after a pause, and not before the time that it names if that is soon. A connection
    that was cut is resumed where it broke off, and so is the download of an earlier call.

    Args:
        url: http or https.
        path: Path of the file; an existing file is accepted as it is.
        expected: Digest of the whole file, which is checked before the file gets its name. Empty
            if it is not known.
        algorithm: Algorithm of the digest, see `files.file_hash`.
        hint: What a user can do if downloading fails, as the end of a sentence.
        title: Name of the file in messages; the file name by default.
        headers: Headers of the request, besides the usual ones.
        lock: Lock file that is held during the download; beside the file by default.

    Returns:
        `path`.

    Raises:
        InputError: If the server cannot be reached, does not have the file or stays busy, the
            connection is cut repeatedly, the digest differs, or the disk is full.
    """
    import requests

    if path.is_file():
        return path
    name, part = title or path.name, path.with_name(f"{path.name}.part")
    with locked(lock or path.parent / f".{path.name}.lock"), requests.Session() as session:
        path.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            if path.is_file():  # another process was faster
                return path
            try:
                with explaining(part):
                    _fetch(session, url, part, name, dict(headers or {}))
                break
            except requests.RequestException as error:
                trouble, pause = _passing_trouble(error, url, hint)
            if attempt == ATTEMPTS:
                raise _given_up(trouble, url, part, hint)
            pause = max(BACKOFF * 2 ** (attempt - 1), pause)
            print(
                f"{name}: {trouble}; attempt {attempt + 1} of {ATTEMPTS} in {pause:.0f} s.",
                flush=True,
            )
            time.sleep(pause)
        _check_digest(part, url, expected, algorithm, hint)
        return part.replace(path)


def _passing_trouble(error: "requests.RequestException", url: str, hint: str) -> tuple[str, float]:
    """Return what failed and the seconds to wait, or raise an InputError if waiting cannot help."""
    import requests

    if isinstance(error, requests.HTTPError):
        answer = error.response
        if answer.status_code not in _BUSY:
            raise InputError(f"{url}: {_refusal(answer)}; {hint}.") from error
        trouble = f"{_IS_BUSY} (HTTP {answer.status_code})"
        if (wait := retry_after(answer.headers)) > LONGEST:
            raise InputError(
                f"{url}: {trouble} and asks to wait {wait:.0f} s; try again then, or {hint}."
            ) from error
        return trouble, wait
    passing = requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError
    if not isinstance(error, passing):
        raise InputError(f"{url}: the download failed ({_short(error)}); {hint}.") from error
    # urllib3 names a reason only if no connection was established
    if reason := getattr(next(iter(error.args), None), "reason", None):
        raise InputError(
            f"{url}: the server cannot be reached ({_short(reason)}); {hint}."
        ) from error
    return "the connection was cut", 0.0


def _given_up(trouble: str, url: str, part: Path, hint: str) -> InputError:
    if trouble.startswith(_IS_BUSY):
        return InputError(f"{url}: {trouble}, {ATTEMPTS} times; try again later; {hint}.")
    received = part.stat().st_size / 1e6 if part.is_file() else 0.0
    return InputError(
        f"{url}: {trouble} {ATTEMPTS} times; try again: {received:.1f} MB are kept, or {hint}."
    )


def _check_digest(part: Path, url: str, expected: str, algorithm: str, hint: str) -> None:
    if expected and (digest := file_hash(part, algorithm)) != expected:
        part.unlink()
        kind = {"md5": "MD5", "sha256": "SHA-256"}.get(algorithm, "hash")
        raise InputError(
            f"{url}: wrong {kind}: {digest} instead of {expected}; "
            f"the file was removed: try again, or {hint}."
        )


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that a server asks to wait, or 0 if its headers do not say.

    Args:
        headers: Headers of the answer; "Retry-After" is a number of seconds or a date.
    """
    from email.utils import parsedate_to_datetime

    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _fetch(
    session: "requests.Session", url: str, part: Path, name: str, headers: dict[str, str]
) -> None:
    from tqdm.auto import tqdm

    start = part.stat().st_size if part.is_file() else 0
    headers |= {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # nothing is left to send
            return
        answer.raise_for_status()
        start = start if answer.status_code == 206 else 0
        length = answer.headers.get("Content-Length", "")
        rest = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else 0
        require_space(part.parent, rest)
        with (
            open(part, "ab" if start else "wb") as file,
            tqdm(
                desc=f"downloading {name}",
                total=start + rest or None,
                initial=start,
                unit="B",
                unit_scale=True,
            ) as bar,
        ):
            for block in answer.iter_content(1 << 16):
                file.write(block)
                bar.update(len(block))


def _refusal(answer: "requests.Response") -> str:
    if answer.status_code == 404:
        return "the server has no such file (HTTP 404)"
    return f"the server refuses (HTTP {answer.status_code} {answer.reason})"


def _short(reason: object) -> str:
    return str(reason).rpartition(": ")[2]
