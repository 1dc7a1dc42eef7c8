"""Wheels that are there, missing or damaged."""

import hashlib
import subprocess

import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.core.wheels import fetch


def test_a_wheel_that_is_there_is_not_fetched_again(tmp_path, monkeypatch):
    wheel = tmp_path / "made-1.0-py3-none-any.whl"
    wheel.write_bytes(b"content")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("fetched again"))
    assert (
        fetch("made==1.0", hashlib.sha256(b"content").hexdigest(), what="numbers", folder=tmp_path)
        == wheel
    )


def test_a_damaged_wheel_is_not_taken(tmp_path, no_index):
    wheel = tmp_path / "made-1.0-py3-none-any.whl"
    wheel.write_bytes(b"cont")
    with pytest.raises(
        InputError,
        match=r"^made==1\.0: pip cannot fetch numbers; check the network or pip's index settings",
    ):
        fetch("made==1.0", hashlib.sha256(b"content").hexdigest(), what="numbers", folder=tmp_path)
    assert list(tmp_path.iterdir()) == [wheel]
