from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from policykd.spine.errors import Interrupted
from policykd.spine.stop import NeverStop, StopFlag

BOTH = (signal.SIGINT, signal.SIGTERM)
pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


def handlers():
    return [signal.getsignal(number) for number in BOTH]


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_raises_the_flag_and_handlers_come_back(number, capfd):
    before = handlers()
    with StopFlag() as stop:
        assert not stop()
        stop.check()
        os.kill(os.getpid(), number)
        assert stop()
        with pytest.raises(Interrupted, match=f"stopped by {number.name}"):
            stop.check()
        assert handlers() == [signal.SIG_DFL, signal.SIG_DFL]  # a second one ends the process
    assert handlers() == before
    assert stop()
    assert "a second signal quits at once" in capfd.readouterr().err


def test_entering_again_changes_nothing():
    before = handlers()
    with StopFlag() as stop:
        inside = handlers()
        with stop:
            assert handlers() == inside
        assert handlers() == inside
    assert handlers() == before


def test_outside_the_block_and_in_threads_nothing_is_installed():
    before, seen = handlers(), []

    def work():
        with StopFlag() as stop:
            seen.append(handlers())
            stop.request("the test")
            seen.append(stop.reason)

    StopFlag()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, "the test"]
    assert handlers() == before


def test_the_first_reason_stays():
    stop = StopFlag()
    stop.request("a")
    stop.request("b")
    assert stop.reason == "a"


def test_never_stop():
    before = handlers()
    with NeverStop() as stop:
        assert handlers() == before
        stop.request("anything")
        stop.check()
        assert not stop()


LOOP = """
import sys, time
from policykd.spine.stop import StopFlag
with StopFlag() as stop:
    print("ready", flush=True)
    while not (stop() and sys.argv[1] == "polite"):
        time.sleep(0.01)
sys.exit(130)
"""


def started(kind):
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP, kind], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_process_that_polls_ends_by_itself():
    process = started("polite")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err == "policykd: SIGTERM: stopping at the next safe point; a second signal quits at once\n"


def test_a_second_signal_ends_a_process_that_does_not():
    process = started("deaf")
    process.send_signal(signal.SIGINT)
    assert "SIGINT" in process.stderr.readline()
    time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT  # a shell reports 130
