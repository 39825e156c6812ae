"""A lock on a directory, which the kernel gives up with the process, however that ends."""

import contextlib
import fcntl
import os
import pathlib
import socket
from typing import TextIO

NAME = "lock"  # holds the process that is at work in the directory
MAX_TRIES = 100


class InUse(Exception):
    """Another process holds the lock; says which."""


def lock_directory(directory: pathlib.Path) -> tuple[TextIO, bool]:
    """Locks a directory, made if need be, until the file that is returned is closed.

    Returns:
      The locked file, and whether no process has held it before.

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
            continue  # a start that failed has removed the directory meanwhile
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "just started"
            file.close()
            raise InUse(holder) from None
        except OSError:  # a file system without locks, as some Lustre mounts
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
    """Whether a file is a lock of this program, perhaps of a start that has just failed."""
    try:
        return path.read_text()[:4] in ("pid ", "")  # "": its process starts at this moment
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
