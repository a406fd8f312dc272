"""Leaving work that can't ask whether to stop: exports, evaluations, checks of the data. Nothing in them is half-kept, so they may end anywhere."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from limbeck.core.errors import Interrupted

POLL_S = 0.1


class Leaving:
    """`with leaving("the export"): …` raises Interrupted in the block soon after `stop` says so, by a KeyboardInterrupt in the main thread."""

    def __init__(self, stop: Callable[[], bool]):
        self._stop, self._watched = stop, False

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Inside another block, or in a thread that can't be interrupted, `stop` is asked at both ends alone."""
        self._ask(what)
        if self._watched or threading.current_thread() is not threading.main_thread():
            yield
        else:
            self._watched = True
            try:
                yield from self._watch(what)
            finally:
                self._watched = False
        self._ask(what)

    def _watch(self, what: str) -> Iterator[None]:
        over, asked, main = threading.Event(), threading.Event(), threading.get_ident()

        def watch() -> None:
            while not over.wait(POLL_S):
                if self._stop():
                    asked.set()
                    if callable(signal.getsignal(signal.SIGINT)):  # a real one, since it must end a sleep or a read, too
                        signal.pthread_kill(main, signal.SIGINT)
                    return

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            try:
                yield
            finally:
                over.set()
                thread.join()
        except KeyboardInterrupt:
            if not asked.is_set():
                raise
            raise _interrupted(what) from None

    def _ask(self, what: str) -> None:
        if self._stop():
            raise _interrupted(what)


def _interrupted(what: str) -> Interrupted:
    return Interrupted(f"stopped in {what}; what was done before is on disk. Run the same command again to go on.")
