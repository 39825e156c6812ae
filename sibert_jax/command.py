"""Argument parsing, one-line error messages and exit statuses, shared by all commands."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from sibert_jax.errors import WRONG_INPUT

# Top-level modules that the core installation lacks, by the extra that provides them.
EXTRAS = {
    "train": (
        "clu",
        "etils",
        "flax",
        "matplotlib",
        "ml_collections",
        "orbax",
        "safetensors",
        "tensorboardX",
        "tokenizers",
        "tqdm",
    )
}

Main = Callable[[Sequence[str] | None], int | None]


def run(main: Main, arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command's `main` and exits with its status.

    Names a missing extra; a closed pipe, as from `| head`, ends the program quietly.

    Args:
      main: takes the arguments, returns an exit status (None: 0); imports what the core lacks.
      arguments: the words after the command; None: those of this process.
    """
    try:
        status = main(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        extra = next((extra for extra, modules in EXTRAS.items() if module in modules), None)
        if extra is None:
            raise
        fail(f"this command needs {module}; install it with: pip install 'sibert_jax[{extra}]'")
    sys.exit(status)


def fail(sentence: str, status: int = WRONG_INPUT) -> NoReturn:
    """Prints an error message to stderr and exits with a status."""
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(status)


def parser(name: str, description: str, **options) -> argparse.ArgumentParser:
    """Returns an argument parser of `python -m NAME` that prints its description unchanged."""
    return argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **options,
    )
