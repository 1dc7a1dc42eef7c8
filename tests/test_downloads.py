import hashlib

import pytest

from radiodino_utils import downloads
from radiodino_utils.downloads import download, is_reachable
from radiodino_utils.errors import InputError

from .web_server import web_server

CONTENT = bytes(range(256)) * 1024  # four blocks
MD5 = hashlib.md5(CONTENT).hexdigest()
NOWHERE = "http://127.0.0.1:9"  # the port of `discard`: nobody listens


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(downloads, "BACKOFF", 0.001)


def fetch(server, folder, name="set.npz", md5=MD5):
    url = server if isinstance(server, str) else server.url
    return download(f"{url}/files/{name}?download=1", folder / name, md5=md5, way_out="name its folder")


def test_a_file_comes_whole_and_is_fetched_once(tmp_path):
    with web_server({"set.npz": CONTENT}) as server:
        assert fetch(server, tmp_path / "new").read_bytes() == CONTENT
        fetch(server, tmp_path / "new")
    assert server.ranges == [None]
    assert [path.name for path in (tmp_path / "new").iterdir() if not path.name.startswith(".")] == ["set.npz"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_resumed(tmp_path, ranges):
    with web_server({"set.npz": CONTENT}, cuts=2, cut_at=1 << 16, ranges=ranges) as server:
        assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=65536-", "bytes=131072-" if ranges else "bytes=65536-"]


def test_a_connection_that_is_always_cut_goes_on_at_the_next_call(tmp_path):
    with web_server({"set.npz": CONTENT}, cuts=downloads.ATTEMPTS, cut_at=0) as server:
        with pytest.raises(InputError, match=r"set\.npz.*: the connection was cut 5 times; try again: 0\.0 MB are kept, or name"):
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
            InputError, match=r"other\.npz.*: the server is busy \(HTTP 503\), 5 times; try again later; name its folder\."
        ),
    ):
        fetch(server, tmp_path, "other.npz")
    assert len(server.ranges) == downloads.ATTEMPTS


def test_what_the_server_does_not_have(tmp_path):
    with web_server({}) as server, pytest.raises(InputError, match=r"no such file \(HTTP 404\); name its folder\."):
        fetch(server, tmp_path)
    assert len(server.ranges) == 1


def test_no_server(tmp_path):
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9.*the server cannot be reached \(.*refused\); name its folder\."):
        fetch(NOWHERE, tmp_path)


def test_another_file_than_expected_is_not_kept(tmp_path):
    with web_server({"set.npz": CONTENT[:-1]}) as server:
        with pytest.raises(InputError, match=rf"wrong MD5: \w+ instead of {MD5}; the file was removed"):
            fetch(server, tmp_path)
        (tmp_path / "set.npz.part").write_bytes(b"x" * len(CONTENT))  # longer than the file: nothing is left to send
        with pytest.raises(InputError, match="wrong MD5"):
            fetch(server, tmp_path)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]


def test_reachable():
    with web_server({}) as server:
        assert is_reachable(f"{server.url}/anything")
    assert not is_reachable(NOWHERE)
