"""Vectors of the lines of a file, as a NumPy file and the lines beside it."""

import pathlib
from collections.abc import Callable

import numpy as np

from sibert_jax.data.text_files import read_lines
from sibert_jax.errors import ConfigError, DataError
from sibert_jax.files import atomically
from sibert_jax.inference.load import load


def embed(
    directory: pathlib.Path,
    path: pathlib.Path,
    target: pathlib.Path,
    step: int | str | None,
    say: Callable[[str], None],
) -> None:
    """Writes the vectors of a file's lines, (N, D) float32, and the lines in the same order.

    Args:
      directory: of the model, as `load` takes it.
      path: a line a text, plain, .gz or .xz; a pair has a tab between its parts. A blank line is an
        empty text, so that row i is of line i.
      target: "NAME.npy"; the lines go into "NAME.txt".
      step: as `load` takes it.
      say: takes a line about what is written.

    Raises:
      ConfigError, DataError, CheckpointError, InteropError: one sentence each.
    """
    if target.suffix != ".npy":
        raise ConfigError(f"--out={target} must end in .npy; the texts go into a .txt beside it.")
    model = load(directory, step)
    lines = list(read_lines(path))
    if not lines:
        raise DataError(f"{path} has no line")
    texts = [tuple(line.split("\t", 1)) if "\t" in line else line for line in lines]
    vectors_ND = model.encode(texts)
    try:
        with atomically(target.with_suffix(".txt")) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        with atomically(target) as temporary, temporary.open("wb") as file:
            np.save(file, vectors_ND)
    except OSError as error:
        raise ConfigError(f"--out={target} cannot be written: {error}.") from None
    say(f"{target}: {vectors_ND.shape[0]:,} vectors of {vectors_ND.shape[1]}, from {model}")
