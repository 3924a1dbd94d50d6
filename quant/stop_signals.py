"""Ctrl-C and SIGTERM as a wish to stop, which the training loop grants between two steps."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """Ctrl-C and SIGTERM set `received`, so that the step in progress ends and a checkpoint is written.

    A second Ctrl-C interrupts at once. Outside the main thread signals are left alone.
    """

    def __init__(self) -> None:
        self.received = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)
