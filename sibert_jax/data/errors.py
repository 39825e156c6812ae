"""The one exception of the data package."""

import contextlib
from collections.abc import Iterator


class DataError(ValueError):
    """Raised for every complaint about input data; the message is one clear sentence."""


@contextlib.contextmanager
def named_by(key: str) -> Iterator[None]:
    """Puts the key of the configuration that names a file before what is wrong with it.

    Example:
      >>> with named_by("data.path"):
      ...     raise DataError("a.txt holds no text")
      Traceback (most recent call last):
      sibert_jax.data.errors.DataError: data.path: a.txt holds no text
    """
    try:
        yield
    except DataError as error:
        raise DataError(f"{key}: {error}") from error
