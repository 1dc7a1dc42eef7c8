"""Files from the web: resumed where they were cut, and checked before they are used."""

import time
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError
from .files import file_hash, make_folder, require_space

ATTEMPTS = 5
BACKOFF = 1.0  # seconds before the second attempt; doubles with each
_BUSY = (429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Missing:
    """Something that is needed and not on this machine.

    Attributes:
        name: The plain name of a data set or backbone.
        url: From where it is downloaded at its first use; empty where a person has to fetch it.
        way_out: How a person provides it, as the end of a sentence.
    """

    name: str
    url: str
    way_out: str


def is_reachable(url: str, *, timeout: float = 3.0) -> bool:
    """Whether the server of an address answers at all, within some seconds."""
    import requests

    try:
        requests.head(url, timeout=timeout, allow_redirects=False)
    except requests.RequestException:
        return False
    return True


def download(url: str, path: Path, *, md5: str, way_out: str) -> Path:
    """Downloads a file with a progress bar.

    What has come lies in `NAME.part` beside it. A busy server (HTTP 429 or 5xx) is asked again after a while, a connection that
    was cut is resumed where it broke off, and so is the download of an earlier call.

    Args:
        url: http or https.
        path: Where the file shall lie.
        md5: Of the whole file; only a file that has it is put there.
        way_out: What a user can do where downloading fails, as the end of a sentence.

    Returns:
        `path`.

    Raises:
        InputError: If the server cannot be reached, has no such file or stays busy, the connection is cut again and again, the
            file is another, or the disk is full.
    """
    import requests
    from filelock import FileLock

    part = make_folder(path.parent) / f"{path.name}.part"
    with FileLock(path.parent / f".{path.name}.lock"), _session() as session:
        for attempt in range(ATTEMPTS):
            if path.is_file():  # another process was faster
                return path
            time.sleep(BACKOFF * 2 ** (attempt - 1) if attempt else 0)
            try:
                _fetch(session, url, part, path.name)
                break
            except requests.HTTPError as error:
                raise InputError(f"{url}: {_refusal(error.response)}; {way_out}.") from error
            except requests.ConnectionError as error:
                if reason := getattr(error.args[0], "reason", None):  # no connection came about; any other error is a cut
                    raise InputError(f"{url}: the server cannot be reached ({_short(reason)}); {way_out}.") from error
            except (requests.exceptions.ChunkedEncodingError, requests.Timeout):
                pass  # resumed
        else:
            kept = part.stat().st_size / 1e6 if part.is_file() else 0.0
            raise InputError(f"{url}: the connection was cut {ATTEMPTS} times; try again: {kept:.1f} MB are kept, or {way_out}.")
        if (digest := file_hash(part, "md5")) != md5:
            part.unlink()
            raise InputError(f"{url}: wrong MD5: {digest} instead of {md5}; the file was removed: try again, or {way_out}.")
        return part.replace(path)


def _session():  # noqa: ANN202 - requests is imported only where something is downloaded
    import requests
    from requests.adapters import HTTPAdapter, Retry

    retry = Retry(
        connect=1, read=False, status=ATTEMPTS - 1, backoff_factor=BACKOFF, status_forcelist=_BUSY, raise_on_status=False
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def _fetch(session, url: str, part: Path, name: str) -> None:  # noqa: ANN001
    from tqdm.auto import tqdm

    start = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with session.get(url, headers=headers, stream=True, timeout=30) as answer:
        if answer.status_code == 416:  # nothing is left to send
            return
        answer.raise_for_status()
        start = start if answer.status_code == 206 else 0
        rest = int(answer.headers.get("Content-Length", 0))
        require_space(part.parent, rest)
        with (
            open(part, "ab" if start else "wb") as file,
            tqdm(desc=f"downloading {name}", total=start + rest or None, initial=start, unit="B", unit_scale=True) as bar,
        ):
            for block in answer.iter_content(1 << 16):
                file.write(block)
                bar.update(len(block))


def _refusal(answer) -> str:  # noqa: ANN001
    if answer.status_code == 404:
        return "the server has no such file (HTTP 404)"
    if answer.status_code in _BUSY:
        return f"the server is busy (HTTP {answer.status_code}), {ATTEMPTS} times; try again later"
    return f"the server refuses (HTTP {answer.status_code} {answer.reason})"


def _short(reason: object) -> str:
    return str(reason).rpartition(": ")[2]
