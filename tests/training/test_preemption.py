"""Stopping on SIGTERM, SIGHUP, and Ctrl-C."""

import os
import signal
import time

import pytest

from a2f_jax.signals import DUPLICATES
from a2f_jax.training.preemption import Preemption


@pytest.mark.usefixtures("without_nohup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_first_signal_is_only_recorded(number):
    before = signal.getsignal(number)
    with Preemption() as preemption:
        assert not preemption.requested()
        os.kill(os.getpid(), number)
        assert preemption.requested()
        assert preemption.interrupted is (number == signal.SIGINT)
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_does_what_it_did_before_but_one_that_is_sent_twice_counts_once():
    with Preemption() as preemption:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert preemption.requested()
        time.sleep(DUPLICATES)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_stays_ignored_where_it_was():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Preemption() as preemption:
        os.kill(os.getpid(), signal.SIGINT)
        assert not preemption.requested()


def test_the_end_of_the_terminal_stays_ignored_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Preemption() as preemption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not preemption.requested()
    finally:
        signal.signal(signal.SIGHUP, before)
