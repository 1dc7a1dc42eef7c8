"""Fixtures of the tests that load weights from a server on this machine."""

import huggingface_hub.constants
import pytest

from radiodino_utils.core import downloads


@pytest.fixture
def use_hub(monkeypatch, tmp_path):
    """Point the Hub's client, which read its environment when it was imported, at an address."""
    monkeypatch.setattr(downloads, "BACKOFF", 0.001)

    def point(url):
        """Use the address with a cache of the test and return the folder of the cache."""
        constants = huggingface_hub.constants
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        return tmp_path / "hub"

    return point
