"""Counts compilations."""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
_FROM_CACHE = "/jax/compilation_cache/cache_hits"


@dataclasses.dataclass
class Compilations:
    """Compilations during a `count_compilations` block.

    Attributes:
      programs: number of programs compiled or read from the cache on disk.
      cached: number of these that were read from the cache.
      seconds: time spent, summed over all threads.
    """

    programs: int = 0
    cached: int = 0
    seconds: float = 0.0


@contextlib.contextmanager
def count_compilations() -> Iterator[Compilations]:
    """Counts the programs that any thread compiles within the `with` block.

    Yields:
      The counts so far, updated as programs are compiled.
    """
    count = Compilations()

    def on_duration(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILED:
            count.programs += 1
            count.seconds += duration_secs

    def on_event(event: str, **_: str | int) -> None:
        if event == _FROM_CACHE:
            count.cached += 1

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(on_duration)
        jax.monitoring.unregister_event_listener(on_event)
