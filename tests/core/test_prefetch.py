"""Threads that work ahead."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiodino_utils.core.prefetch import prefetched


@given(
    items=st.lists(st.integers(), max_size=40),
    ahead=st.integers(1, 50),
    workers=st.integers(1, 4),
)
def test_results_come_in_the_order_of_the_items(items, ahead, workers):
    results = prefetched(lambda item: 2 * item, items, ahead=ahead, workers=workers)
    assert list(results) == [2 * item for item in items]


def test_an_exception_comes_at_its_place_and_ends_the_work():
    begun = []

    def read(row):
        begun.append(row)
        if row == 3:
            raise ValueError("row 3")
        return row

    results = prefetched(read, range(1000), ahead=4, workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="row 3"):
        next(results)
    assert len(begun) <= 8 and list(results) == []


def test_no_more_than_some_results_are_ahead():
    begun = []
    results = prefetched(begun.append, range(100), ahead=5, workers=3)
    next(results)
    time.sleep(0.05)
    assert len(begun) <= 6
    results.close()
    assert len(begun) <= 6


def test_items_are_worked_on_at_the_same_time():
    meeting = threading.Barrier(2, timeout=10)
    assert len(list(prefetched(lambda _: meeting.wait(), range(8), workers=2))) == 8
