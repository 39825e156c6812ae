"""Handling of SIGTERM and SIGINT, which stop a run without losing work."""

import signal
import threading


class Stopped(KeyboardInterrupt):
    """Raised by a signal that came before the run had anything to save."""


class StopRequest:
    """A context in which the first SIGTERM or SIGINT requests a stop; further ones are ignored.

    Before `defer`, while there is nothing to save, a signal raises `Stopped` wherever the program
    is. After it, the signal is recorded in `requested`, to be checked between steps.

    Example:
      >>> with StopRequest() as stop:
      ...     stop.defer()
      ...     signal.raise_signal(signal.SIGTERM)
      ...     print(stop.requested)
      SIGTERM
    """

    def __init__(self):
        self.requested = ""  # the name of the first signal
        self._deferred = False
        self._before = {}

    def catch(self):
        """Starts catching signals; called automatically by `with`."""
        if threading.current_thread() is threading.main_thread():  # others cannot set handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)

    def __enter__(self):
        self.catch()
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def defer(self):
        """Makes signals wait for the end of a step from now on."""
        self._deferred = True

    def _note(self, number, frame):
        del frame
        if self.requested:
            return
        self.requested = signal.Signals(number).name
        if not self._deferred:
            raise Stopped(self.requested)
