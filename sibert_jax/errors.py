"""Errors that end a command with one clear sentence, and their exit statuses.

A message names the key, file or leaf, what was found and what was wanted, and says what to do.
"""

import contextlib
from collections.abc import Iterator

# Exit statuses: fault of machine or program; invalid input; training that cannot continue.
FAULT, WRONG_INPUT, TRAINING_FAILED = 1, 2, 3


class ConfigError(ValueError):
    """An invalid key or combination of keys."""


class DataError(ValueError):
    """Unusable text, examples, vocabulary or cache."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or restored."""


class CorruptError(CheckpointError):
    """A checkpoint that differs from what was written: incomplete, or changed since."""


class InteropError(ValueError):
    """Incompatible weights of another program."""


class TrainingError(RuntimeError):
    """Training that cannot continue, such as a loss that is not finite."""


class FaultError(RuntimeError):
    """A machine that cannot be trusted; the run may continue elsewhere."""


# Errors whose message is a sentence for the user.
EXPECTED = (ConfigError, DataError, CheckpointError, InteropError, TrainingError, FaultError)


@contextlib.contextmanager
def named_by(key: str) -> Iterator[None]:
    """Prefixes data errors with the config key that names the file.

    Example:
      >>> with named_by("data.path"):
      ...     raise DataError("a.txt holds no text")
      Traceback (most recent call last):
      sibert_jax.errors.DataError: data.path: a.txt holds no text
    """
    try:
        yield
    except DataError as error:
        raise DataError(f"{key}: {error}") from error
