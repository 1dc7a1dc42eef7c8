"""Settings of nbval, which checks the notebooks."""

from collections.abc import Sequence
from typing import Any


def pytest_collection_modifyitems(items: Sequence[Any]) -> None:
    """Wait longer than nbval's 5 s for the outputs of a cell: a busy machine is slow, not red."""
    for item in items:
        if hasattr(item, "output_timeout"):
            item.output_timeout = 600
