"""Manage checkpoints: python -m sibert_jax.checkpoint {list,verify,show,diff,export} DIR."""

import argparse
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from sibert_jax import command
from sibert_jax.errors import CheckpointError, CorruptError
from sibert_jax.files import user_path


def parser() -> argparse.ArgumentParser:
    """Returns the argument parser."""
    top = command.parser("sibert_jax.checkpoint", __doc__)
    sub = top.add_subparsers(dest="command", required=True, metavar="command")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        added = sub.add_parser(name, help=text, description=text)
        added.add_argument(
            "directory", type=user_path, help="workdir of a run, or its checkpoints directory"
        )
        return added

    add("list", "list step, date and size of each checkpoint and check that its files exist (fast)")
    add("verify", "read each checkpoint and check every value; exit status 1 if one is bad")
    show = add("show", "print the manifest and a table of the leaves")
    show.add_argument("step", nargs="?", help="the newest if not given")
    diff = add("diff", "list the leaves, settings and versions in which two checkpoints differ")
    diff.add_argument("a", help="a step")
    diff.add_argument("b", help="step, or directory of another run's checkpoint")
    exporting = add("export", "write the parameters to one .safetensors file")
    exporting.add_argument("file", type=user_path)
    exporting.add_argument("--step", help="the newest if not given")
    return top


def run(arguments: argparse.Namespace) -> int:
    """Runs one command; returns the exit status."""
    from sibert_jax.checkpoint import commands
    from sibert_jax.checkpoint.manifest import checkpoints_in

    directory = checkpoints_in(arguments.directory)
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory; name the workdir of a run.")
    match arguments.command:
        case "list":
            _print(commands.list_all(directory))
        case "verify":
            lines, good = commands.verify_all(directory)
            _print(lines)
            return 0 if good else 1
        case "show":
            path = _checkpoint(directory, arguments.step)
            _print(_readable(path, commands.show(path)))
        case "diff":
            a, b = (_checkpoint(directory, step) for step in (arguments.a, arguments.b))
            _print(_readable(f"{a} or {b}", commands.diff(a, b)))
        case "export":
            path = _checkpoint(directory, arguments.step)
            _print(_readable(path, commands.export(path, arguments.file)))
    return 0


def _checkpoint(directory: pathlib.Path, step: str | None) -> pathlib.Path:
    from sibert_jax.checkpoint import commands

    if step is None:
        return commands.newest(directory)
    path = directory / step if step.isdecimal() else user_path(step).absolute()
    if not path.is_dir():
        raise CheckpointError(f"there is no checkpoint {path}; `list` shows the existing ones.")
    return path


def _readable(where: object, lines: Iterator[str]) -> Iterator[str]:
    try:
        yield from lines
    except CorruptError as error:
        raise CheckpointError(f"checkpoint {where} cannot be used: {error}.") from None


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; errors are one sentence on stderr."""
    given = parser().parse_args(arguments)
    import jax
    from absl import logging

    logging.set_verbosity(logging.FATAL)  # Orbax logs at length what is reported here as one error
    # On the host only: the accelerators may be training.
    jax.config.update("jax_platforms", "cpu")
    try:
        return run(given)
    except CheckpointError as error:
        command.fail(str(error))


if __name__ == "__main__":
    command.run(main)
