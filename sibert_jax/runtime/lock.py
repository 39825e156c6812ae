"""A lock on a directory, which the kernel releases when the process ends."""

import contextlib
import fcntl
import os
import pathlib
import socket
from typing import TextIO

NAME = "lock"  # contains the process that is using the directory
MAX_TRIES = 100


class InUse(Exception):
    """Raised when another process holds the lock; names it."""


def lock_directory(directory: pathlib.Path) -> tuple[TextIO, bool]:
    """Locks a directory, created if necessary, until the returned file is closed.

    Returns:
      The locked file, and whether it is new: no process has held the lock before.

    Raises:
      InUse: another process holds it.
      OSError: the directory cannot be written.
    """
    path, tries = directory / NAME, 0
    while True:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        except (FileNotFoundError, FileExistsError):
            tries += 1
            if tries == MAX_TRIES:
                raise
            continue  # a failed start has just removed the directory
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "just started"
            file.close()
            raise InUse(holder) from None
        except OSError:  # a file system without locks, such as some Lustre mounts
            break
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()  # or this file
    file.seek(0)
    is_new = file.read() == ""
    file.truncate(0)
    file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file, is_new


def is_lock(path: pathlib.Path) -> bool:
    """Tells whether a file is a lock of this program, perhaps of a start that has just failed."""
    try:
        return path.read_text()[:4] in ("pid ", "")  # "": its process is just starting
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
