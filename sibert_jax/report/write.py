"""Writes report.png and report.md."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Sequence

from sibert_jax.report.figure import draw
from sibert_jax.report.run import UnreadableRun, read_run
from sibert_jax.report.tables import table


def write(directories: Sequence[str], out: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Write `report.png` and `report.md` of some run folders to `out`; the paths of the two."""
    resolved = [pathlib.Path(directory).resolve() for directory in directories]
    for i, path in enumerate(resolved):
        if path in resolved[:i]:
            raise UnreadableRun(f"{directories[i]} was given twice; name each run once")
    runs = [read_run(directory) for directory in directories]
    text = f"# Report\n\n![Loss, norms, rotation and clip rate](report.png)\n\n{table(runs)}"
    figure = draw(runs)
    if out.exists() and not out.is_dir():
        raise UnreadableRun(f"--out={out} is a file; name a folder")
    out.mkdir(parents=True, exist_ok=True)
    picture, page = out / "report.png", out / "report.md"
    _write_both(
        {
            picture: lambda path: figure.savefig(path, format="png"),
            page: lambda path: path.write_text(text, encoding="utf-8"),
        }
    )
    return picture, page


def _write_both(writers: dict[pathlib.Path, Callable[[pathlib.Path], object]]) -> None:
    """Write all files under other names first: so that an old report is replaced atomically."""
    unfinished = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in writers}
    try:
        for path, write in writers.items():
            write(unfinished[path])
        for path, temporary in unfinished.items():
            temporary.replace(path)
    finally:
        for temporary in unfinished.values():
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
