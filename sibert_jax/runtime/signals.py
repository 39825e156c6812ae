"""SIGTERM and SIGINT end a run at a moment at which nothing is lost."""

import signal
import threading


class Stopped(KeyboardInterrupt):
    """A signal that came before the run had anything to save."""


class StopRequest:
    """A context in which the first SIGTERM or SIGINT asks to stop, and more of them change nothing.

    A signal raises `Stopped` wherever the program is, as long as there is nothing to save. After
    `defer` it is noted in `requested`, to be looked at between two steps.

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
        """Begins to catch signals; no need to call it in a `with`."""
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
        """From here on a signal waits for the end of a step."""
        self._deferred = True

    def _note(self, number, frame):
        del frame
        if self.requested:
            return
        self.requested = signal.Signals(number).name
        if not self._deferred:
            raise Stopped(self.requested)
