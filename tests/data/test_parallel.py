import itertools
import os
import subprocess
import sys
import threading
import time

import psutil
import pytest

from a2f_jax.data.parallel import in_order


def test_results_keep_the_order_of_the_items():
    def slow_first(i):
        time.sleep(0.02 if i % 4 == 0 else 0)
        return i * i

    assert list(in_order(slow_first, range(30))) == [i * i for i in range(30)]
    assert list(in_order(slow_first, [])) == []


def test_several_items_are_processed_at_once():
    meeting = threading.Barrier(2)  # neither call returns until both have started
    assert list(in_order(lambda i: meeting.wait(timeout=10) >= 0 and i, range(4), workers=2)) == [0, 1, 2, 3]


def test_only_a_few_items_are_computed_ahead():
    begun = []
    results = in_order(lambda i: begun.append(i) or i, itertools.count(), workers=3)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    results.close()
    assert max(begun) < 5 + 2 * 3


def test_errors_are_raised_in_the_place_of_the_result():
    results = in_order(lambda i: 1 // (3 - i), range(10))
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_closing_stops_the_threads():
    before = threading.active_count()
    results = in_order(time.sleep, itertools.repeat(0.001))
    next(results)
    assert threading.active_count() > before
    results.close()
    assert threading.active_count() == before


def test_as_many_items_are_processed_at_once_as_the_process_may_use_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5, 7}, raising=False)
    begun = []
    results = in_order(lambda i: begun.append(i) or i, itertools.count())
    next(results)
    results.close()
    assert len(begun) <= 2 * 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2}, raising=False)
    threads = set()
    assert list(in_order(lambda i: threads.add(threading.get_ident()) or i, range(9))) == [*range(9)]
    assert len(threads) == 1


def test_processes_leave_the_process_and_its_script_alone(tmp_path):
    # Without `if __name__ == "__main__"`, as many people write scripts.
    script = tmp_path / "script.py"
    script.write_text(
        "import os\n"
        "from a2f_jax.data.parallel import in_order\n"
        "print('started')\n"
        "def square(i):\n"
        "    return i * i, os.getpid()\n"
        "results = list(in_order(square, range(5), 2, processes=True))\n"
        "print([result for result, _ in results], os.getpid() in {process for _, process in results})\n"
    )
    done = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout == "started\n[0, 1, 4, 9, 16] False\n"
    assert done.stderr == ""


def test_processes_end_when_the_one_that_started_them_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\n"
        "from a2f_jax.data.parallel import in_order\n"
        "for process in in_order(lambda _: time.sleep(0.5) or os.getpid(), range(4), 2, processes=True):\n"
        "    print(process, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    worker = int(done.stdout)
    for _ in range(100):
        if not psutil.pid_exists(worker):
            break
        time.sleep(0.1)
    assert not psutil.pid_exists(worker)
