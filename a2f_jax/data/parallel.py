"""Mapping a function over items with several threads."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def _usable_cores() -> int:
    # Schedulers and containers may restrict a process to some of the cores of the machine.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None
) -> Generator[Result, None, None]:
    """Maps a function over items like `map`, but on several threads.

    Args:
      function: called once per item, on any of the threads.
      items: may be endless; consumed lazily.
      threads: the number of threads; None: one for each CPU core that this process may use. At
        most two items per thread are computed ahead of the consumer.

    Yields:
      The results in the order of the items. An exception raised by `function` is raised in the place of its result.
    """
    threads = threads or _usable_cores()
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
