"""Lines of output, and where the work stands if there have been none for a while."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

# No bar where standard error is not a terminal.
BAR: dict[str, Any] = {"dynamic_ncols": True, "disable": None}


# Where there is no bar, nothing is silent for longer.
LINE_SECONDS = 30


class Lines:
    """Prints lines, and one that says where the work stands when there has been none for `LINE_SECONDS`.

    A thread prints those, because a step or a compilation may take longer. On a terminal bars say it.
    """

    def __init__(self, describe: Callable[[], str], file: TextIO | None = None) -> None:
        """Starts the thread; `describe` returns where the work stands; file None: standard output."""
        self._describe, self._file = describe, file
        self._last = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if not sys.stderr.isatty():
            self._thread.start()

    def print(self, line: str) -> None:
        """Prints a line."""
        self._last = time.monotonic()
        print(line, file=self._file, flush=True)

    def _watch(self) -> None:
        while not self._ended.wait(max(0, self._last + LINE_SECONDS - time.monotonic())):
            if time.monotonic() >= self._last + LINE_SECONDS:
                self.print(self._describe())

    def close(self) -> None:
        """Ends the thread."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
