"""The first Ctrl-C is a wish, the second an order."""

from __future__ import annotations

import signal
import threading

import pytest

from loraloom.pipeline.stop import SIGNALS, listening


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_ctrl_c_waits_for_the_step_and_the_second_ends_at_once(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    with listening() as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_beside_the_main_thread_nothing_changes() -> None:
    before, heard = signal.getsignal(signal.SIGINT), list[bool]()

    def work() -> None:
        with listening() as stop:
            heard.append(stop())
            heard.append(signal.getsignal(signal.SIGINT) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [False, True]
