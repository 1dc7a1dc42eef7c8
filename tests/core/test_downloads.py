"""Downloads from a local server that cuts, waits, refuses and lies."""

import hashlib
import subprocess
import sys
import time
from email.utils import formatdate

import pytest

from radiodino_utils.core import downloads
from radiodino_utils.core.downloads import download, is_reachable, retry_after
from radiodino_utils.core.errors import InputError

from ..web_server import web_server

CONTENT = bytes(range(256)) * 1024  # four blocks
MD5 = hashlib.md5(CONTENT).hexdigest()
NOWHERE = "http://127.0.0.1:9"  # the port of `discard`: nobody listens


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(downloads, "BACKOFF", 0.001)


def fetch(server, folder, name="set.npz", md5=MD5):
    url = server if isinstance(server, str) else server.url
    return download(
        f"{url}/files/{name}?download=1", folder / name, expected=md5, hint="name its folder"
    )


def test_a_file_comes_whole_and_is_fetched_once(tmp_path):
    with web_server({"set.npz": CONTENT}) as server:
        assert fetch(server, tmp_path / "new").read_bytes() == CONTENT
        fetch(server, tmp_path / "new")
    assert server.ranges == [None]
    assert [
        path.name for path in (tmp_path / "new").iterdir() if not path.name.startswith(".")
    ] == ["set.npz"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_resumed(tmp_path, ranges):
    with web_server({"set.npz": CONTENT}, cuts=2, cut_at=1 << 16, ranges=ranges) as server:
        assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=65536-", "bytes=131072-" if ranges else "bytes=65536-"]


def test_a_connection_that_is_always_cut_goes_on_at_the_next_call(tmp_path):
    with web_server({"set.npz": CONTENT}, cuts=downloads.ATTEMPTS, cut_at=0) as server:
        with pytest.raises(
            InputError,
            match=r"set\.npz.*: the connection was cut 5 times; try again: 0\.0 MB are kept, or",
        ):
            fetch(server, tmp_path)
        (tmp_path / "set.npz.part").write_bytes(CONTENT[:1000])
        assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=1000-"


def test_a_busy_server_is_asked_again(tmp_path):
    with web_server({"set.npz": CONTENT}, busy=downloads.ATTEMPTS - 1) as server:
        assert fetch(server, tmp_path).read_bytes() == CONTENT
    with (
        web_server({"set.npz": CONTENT}, busy=99) as server,
        pytest.raises(
            InputError,
            match=r"other\.npz.*: the server is busy \(HTTP 503\), 5 times; try again later; name",
        ),
    ):
        fetch(server, tmp_path, "other.npz")
    assert len(server.ranges) == downloads.ATTEMPTS


def test_what_the_server_does_not_have(tmp_path):
    with (
        web_server({}) as server,
        pytest.raises(InputError, match=r"no such file \(HTTP 404\); name its folder\."),
    ):
        fetch(server, tmp_path)
    assert len(server.ranges) == 1


def test_no_server(tmp_path):
    with pytest.raises(
        InputError,
        match=r"127\.0\.0\.1:9.*the server cannot be reached \(.*refused\); name its folder\.",
    ):
        fetch(NOWHERE, tmp_path)


def test_another_file_than_expected_is_not_kept(tmp_path):
    with web_server({"set.npz": CONTENT[:-1]}) as server:
        with pytest.raises(
            InputError, match=rf"wrong MD5: \w+ instead of {MD5}; the file was removed"
        ):
            fetch(server, tmp_path)
        (tmp_path / "set.npz.part").write_bytes(
            b"x" * len(CONTENT)
        )  # longer than the file: nothing is left to send
        with pytest.raises(InputError, match="wrong MD5"):
            fetch(server, tmp_path)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]


def test_reachable():
    with web_server({}) as server:
        assert is_reachable(f"{server.url}/anything")
    assert not is_reachable(NOWHERE)


def test_a_server_that_asks_for_a_long_wait(tmp_path):
    with web_server({"set.npz": CONTENT}, busy=1, retry_after="86400") as server:
        with pytest.raises(
            InputError,
            match=r"busy \(HTTP 503\) and asks to wait 86400 s; try again then, or name its",
        ):
            fetch(server, tmp_path)
        assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_short_wait_is_observed_and_announced(tmp_path, capsys):
    with web_server({"set.npz": CONTENT}, busy=1, retry_after="1") as server:
        start = time.monotonic()
        fetch(server, tmp_path)
    assert time.monotonic() - start >= 1
    assert (
        "set.npz: the server is busy (HTTP 503); attempt 2 of 5 in 1 s." in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
    ],
)
def test_retry_after_in_seconds(value, seconds):
    assert retry_after({"Retry-After": value}) == seconds


def test_retry_after_as_a_date():
    asked = formatdate(time.time() + 3600, usegmt=True)
    assert retry_after({"Retry-After": asked}) == pytest.approx(3600, abs=60)


def test_redirects_without_end(tmp_path):
    sentence = r"the download failed \(Exceeded 30 redirects.*name its folder\."
    with (
        web_server({"set.npz": CONTENT}, redirect=True) as server,
        pytest.raises(InputError, match=sentence),
    ):
        fetch(server, tmp_path)


@pytest.mark.parametrize("length", ["many", "-7", "", "9" * 30])
def test_an_invalid_content_length(tmp_path, length):
    with web_server({"set.npz": CONTENT}, length=length) as server:
        assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_disk_that_fills_up_while_a_file_of_unknown_length_comes(tmp_path):
    folder = tmp_path / "mounted"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder]
    if (
        not sys.platform.startswith("linux")
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("mounting a small file system is not permitted here")
    try:
        with (
            web_server({"set.npz": CONTENT}, chunked=True) as server,
            pytest.raises(
                InputError, match=r"set\.npz\.part: no disk space is left; .*RADIODINO_DATA"
            ),
        ):
            fetch(server, folder)
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_file_that_is_there_needs_no_lock(tmp_path):
    (tmp_path / "set.npz").write_bytes(CONTENT)
    tmp_path.chmod(0o500)
    fetch(NOWHERE, tmp_path)
    tmp_path.chmod(0o700)
    assert [path.name for path in tmp_path.iterdir()] == ["set.npz"]
