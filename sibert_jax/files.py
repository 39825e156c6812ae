"""Paths and files."""

import os
import pathlib


def user_path(text: str | os.PathLike) -> pathlib.Path:
    """A path as a user writes it: a leading `~` is the home directory.

    Shells leave the `~` of `--workdir=~/x` as it is.
    """
    return pathlib.Path(os.path.expanduser(text))
