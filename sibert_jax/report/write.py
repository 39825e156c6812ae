"""Writes report.png, report.md and, for classifiers, confusion.png."""

import contextlib
import pathlib
from collections.abc import Sequence

from sibert_jax.files import atomically
from sibert_jax.report.figure import draw
from sibert_jax.report.held_out import draw_confusion, read_held_out, tables
from sibert_jax.report.run_folder import UnreadableRun, read_run
from sibert_jax.report.tables import table


def write(directories: Sequence[str], out: pathlib.Path) -> list[pathlib.Path]:
    """Write `report.png` and `report.md` on run folders to `out`; return the paths of all files.

    If a run has classes, `confusion.png` is written, too.
    """
    resolved = [pathlib.Path(directory).resolve() for directory in directories]
    for i, path in enumerate(resolved):
        if path in resolved[:i]:
            raise UnreadableRun(f"{directories[i]} is given twice; name each run once")
    runs = [read_run(directory) for directory in directories]
    text = f"# Report\n\n![Loss, norms, rotation and clip rate](report.png)\n\n{table(runs)}"
    held_out = read_held_out(runs)
    if scores := tables(held_out):
        text += f"\n{scores}"
    pictures = {"report.png": draw(runs), "confusion.png": draw_confusion(held_out)}
    pictures = {name: figure for name, figure in pictures.items() if figure is not None}
    if out.exists() and not out.is_dir():
        raise UnreadableRun(f"--out={out} is a file; name a directory")
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        for name, figure in pictures.items():
            figure.savefig(stack.enter_context(atomically(out / name)), format="png")
        page = stack.enter_context(atomically(out / "report.md"))
        page.write_text(text, encoding="utf-8")
    return [out / name for name in ("report.png", "report.md", *list(pictures)[1:])]
