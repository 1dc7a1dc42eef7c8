"""Results of threads that work ahead of the one that uses them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from .environment import cpu_count

MOST = 8  # threads; decoders of files do not use more
Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetched(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    ahead: int = 32,
    workers: int | None = None,
) -> Iterator[Result]:
    """Yield the result for each item, in order, while threads compute the next ones.

    An exception is raised where its result would be yielded; then, or when the generator is closed,
    no further item is begun.

    Args:
        function: Function that threads may run at the same time.
        items: Its arguments.
        ahead: Greatest number of results that are begun and not yet used.
        workers: Number of threads; one per processor, at most `MOST`, by default.
    """
    pool = ThreadPoolExecutor(workers or min(cpu_count(), MOST))
    begun: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(begun) == ahead:
                yield begun.popleft().result()
            begun.append(pool.submit(function, item))
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
