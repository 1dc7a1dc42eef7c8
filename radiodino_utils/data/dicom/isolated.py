"""Frames that only GDCM decodes, by a process of its own: an abort there is an error here."""

import atexit
import contextlib
import io
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .gdcm_worker import ANSWER, REQUEST

if TYPE_CHECKING:
    from pydicom import Dataset

LIMIT = 120.0  # seconds in which a frame is decoded, the start of the process included
_lock = threading.Lock()
_workers: dict[int, subprocess.Popen[bytes]] = {}  # by process: forks must not share pipes


def decode_isolated(header: "Dataset", frame: int) -> np.ndarray:
    """Decode a frame by GDCM in another process, which is started once.

    Args:
        header: The file, with its pixels.
        frame: Number of the frame, from 0.

    Returns:
        Its samples, [height, width] or [height, width, 3].

    Raises:
        ValueError: If GDCM cannot decode the frame, or its process ends or takes longer than
            `LIMIT`.
    """
    file = io.BytesIO()
    header.save_as(file)
    content = file.getvalue()
    with _lock:
        worker = _worker()
        late = threading.Event()

        def end() -> None:
            late.set()
            worker.kill()

        timer = threading.Timer(LIMIT, end)
        timer.start()
        try:
            status, answer = _asked(worker, REQUEST.pack(frame, len(content)) + content)
        except BaseException as error:  # an interruption leaves an answer that the next would get
            worker.kill()
            worker.wait()
            if not isinstance(error, (OSError, EOFError)):
                raise
            how = f"took longer than {LIMIT:g} s" if late.is_set() else "broke off"
            raise ValueError(f"GDCM {how} while it decoded the pixels") from error
        finally:
            timer.cancel()
    if status:
        raise ValueError(answer.decode())
    return np.load(io.BytesIO(answer), allow_pickle=False)


def _worker() -> subprocess.Popen[bytes]:
    """Return the process that decodes for this one; it ends with its standard input."""
    worker = _workers.get(os.getpid())
    if worker is None or worker.poll() is not None:
        script = str(Path(__file__).with_name("gdcm_worker.py"))
        worker = _workers[os.getpid()] = subprocess.Popen(
            [sys.executable, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders write there whatever they meet
        )
        atexit.register(worker.kill)
    return worker


def _asked(worker: subprocess.Popen[bytes], request: bytes) -> tuple[int, bytes]:
    """Return the status and the content of an answer; see `gdcm_worker`."""
    assert worker.stdin is not None and worker.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # the answer that is missing says it
        worker.stdin.write(request)
        worker.stdin.flush()
    head = worker.stdout.read(ANSWER.size)
    if len(head) < ANSWER.size:
        raise EOFError
    status, length = ANSWER.unpack(head)
    answer = worker.stdout.read(length)
    if len(answer) < length:
        raise EOFError
    return status, answer
