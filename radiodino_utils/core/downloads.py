"""Files from the web: resumed where they were cut, and checked before they are used."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .cache import locked
from .errors import InputError
from .files import explaining, file_hash, require_space

ATTEMPTS = 5
BACKOFF = 1.0  # seconds before the second attempt; doubles with each
LONGEST = 60.0  # seconds that a busy server may ask for
TIMEOUT = (5.0, 30.0)  # seconds to connect, and between two pieces
_BUSY = (429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Missing:
    """Something that is needed and not on this machine.

    Attributes:
        name: The registered name of a dataset or backbone.
        url: From where it is downloaded at its first use; empty where a person has to fetch it.
        hint: How a person provides it, as the end of a sentence.
    """

    name: str
    url: str
    hint: str


def is_reachable(url: str, *, timeout: float = 3.0) -> bool:
    """Whether the server of an address answers at all, within some seconds."""
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
    """Downloads a file with a progress bar.

    What has come lies in `NAME.part` beside it. A busy server (HTTP 429 or 5xx) is asked again
    after a while, not before it says if that is soon. A connection that was cut is resumed where it
    broke off, and so is the download of an earlier call.

    Args:
        url: http or https.
        path: Where the file shall lie; one that is there is taken as it is.
        expected: Digest of the whole file; only a file that has it is put there. Empty where it is
            not known.
        algorithm: Of the digest, see `files.file_hash`.
        hint: What a user can do where downloading fails, as the end of a sentence.
        title: What the file is called in messages; by its name by default.
        headers: Of the request, besides the usual ones.
        lock: Held during the download; beside the file by default.

    Returns:
        `path`.

    Raises:
        InputError: If the server cannot be reached, has no such file or stays busy, the connection
            is cut again and again, the file is another, or the disk is full.
    """
    import requests

    if path.is_file():
        return path
    part = path.with_name(f"{path.name}.part")
    with locked(lock or path.parent / f".{path.name}.lock"), requests.Session() as session:
        path.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            if path.is_file():  # another process was faster
                return path
            pause = BACKOFF * 2 ** (attempt - 1)
            try:
                with explaining(part):
                    _fetch(session, url, part, title or path.name, dict(headers or {}))
                break
            except requests.HTTPError as error:
                answer = error.response
                trouble = f"the server is busy (HTTP {answer.status_code})"
                if answer.status_code not in _BUSY:
                    raise InputError(f"{url}: {_refusal(answer)}; {hint}.") from error
                if (asked := retry_after(answer.headers)) > LONGEST:
                    raise InputError(
                        f"{url}: {trouble} and asks to wait {asked:.0f} s; try again then, or {hint}."
                    ) from error
                pause = max(pause, asked)
            except (
                requests.ConnectionError,
                requests.Timeout,
                requests.exceptions.ChunkedEncodingError,
            ) as error:
                if reason := getattr(
                    next(iter(error.args), None), "reason", None
                ):  # no connection came about
                    raise InputError(
                        f"{url}: the server cannot be reached ({_short(reason)}); {hint}."
                    ) from error
                trouble = "the connection was cut"
            except requests.RequestException as error:
                raise InputError(
                    f"{url}: the download failed ({_short(error)}); {hint}."
                ) from error
            if attempt < ATTEMPTS:
                print(
                    f"{title or path.name}: {trouble}; attempt {attempt + 1} of {ATTEMPTS} in {pause:.0f} s.",
                    flush=True,
                )
                time.sleep(pause)
        else:
            if "busy" in trouble:
                raise InputError(f"{url}: {trouble}, {ATTEMPTS} times; try again later; {hint}.")
            kept = part.stat().st_size / 1e6 if part.is_file() else 0.0
            raise InputError(
                f"{url}: {trouble} {ATTEMPTS} times; try again: {kept:.1f} MB are kept, or {hint}."
            )
        if expected and (digest := file_hash(part, algorithm)) != expected:
            part.unlink()
            kind = {"md5": "MD5", "sha256": "SHA-256"}.get(algorithm, "hash")
            raise InputError(
                f"{url}: wrong {kind}: {digest} instead of {expected}; the file was removed: try again, or {hint}."
            )
        return part.replace(path)


def retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that a server asks to wait, given as a number or a date; 0 where it does not say."""
    from email.utils import parsedate_to_datetime

    asked = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+", asked):
        return float(asked)
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _fetch(session, url: str, part: Path, name: str, headers: dict[str, str]) -> None:  # noqa: ANN001
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


def _refusal(answer) -> str:  # noqa: ANN001
    if answer.status_code == 404:
        return "the server has no such file (HTTP 404)"
    return f"the server refuses (HTTP {answer.status_code} {answer.reason})"


def _short(reason: object) -> str:
    return str(reason).rpartition(": ")[2]
