"""Embeds the lines of a text file into a NumPy file."""

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
    """Writes the vectors of a file's N lines, (N, D) float32, and the lines in the same order.

    Args:
      directory: the model's directory, as for `load`.
      path: a text file, plain, .gz or .xz, one text per line; a tab separates the parts of a pair.
        A blank line is an empty text, so row i belongs to line i.
      target: "NAME.npy"; the lines are written to "NAME.txt".
      step: the checkpoint, as for `load`.
      say: called with a progress message.

    Raises:
      ConfigError, DataError, CheckpointError, InteropError: one sentence each.
    """
    if target.suffix != ".npy":
        raise ConfigError(
            f"--out={target} must end in .npy; the texts go into a .txt file next to it."
        )
    model = load(directory, step)
    lines = list(read_lines(path))
    if not lines:
        raise DataError(f"{path} is empty; expected one text per line")
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
