"""The terminal of a run."""

import contextlib
import sys

import tqdm


def say(text: str) -> None:
    """A line on the terminal, above the bar if there is one; no full disk stops the program."""
    with contextlib.suppress(OSError):
        tqdm.tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()
