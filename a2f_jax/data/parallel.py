"""Mapping a function over items with several threads or processes."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

from a2f_jax.machine import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def _exit_with(parent: int) -> None:
    # A process that is killed cannot stop those that it has started: they would wait for work forever.
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _pool(workers: int, processes: bool) -> Executor:
    if not processes or workers == 1:
        return ThreadPoolExecutor(workers)
    # Unlike those of the standard library, loky's processes neither inherit the threads of JAX, nor run the user's
    # script again if it has no `if __name__ == "__main__"`.
    import loky

    return loky.ProcessPoolExecutor(workers, initializer=_exit_with, initargs=(os.getpid(),))


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None, processes: bool = False
) -> Generator[Result, None, None]:
    """Maps a function over items like `map`, but on several threads or processes.

    Args:
      function: called once per item, on any of the threads or processes.
      items: may be endless; consumed lazily.
      workers: the number of threads or processes; None: one for each CPU core that this process may use. At most two
        items per worker are computed ahead of the consumer.
      processes: whether to use processes, for functions that hold Python's global lock most of the time, and take much
        longer than the second that it takes to start processes. The function, its items, and its results are pickled.

    Yields:
      The results in the order of the items. An exception raised by `function` is raised in the place of its result.
    """
    workers = workers or usable_cores()
    waiting: deque[Future[Result]] = deque()
    with _pool(workers, processes) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) == 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
