"""Mapping a function over items with several threads."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = os.cpu_count() or 1
) -> Generator[Result, None, None]:
    """Maps a function over items like `map`, but on several threads.

    Args:
      function: called once per item, on any of the threads.
      items: may be endless; consumed lazily.
      threads: the number of threads. At most two items per thread are computed ahead of the consumer.

    Yields:
      The results in the order of the items. An exception raised by `function` is raised in the place of its result.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) == 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
