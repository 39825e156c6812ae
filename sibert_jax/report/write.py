"""Writes report.png and report.md."""

import pathlib
from collections.abc import Sequence

from sibert_jax.files import atomically
from sibert_jax.report.figure import draw
from sibert_jax.report.run_folder import UnreadableRun, read_run
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
    with atomically(picture) as new_picture, atomically(page) as new_page:
        figure.savefig(new_picture, format="png")
        new_page.write_text(text, encoding="utf-8")
    return picture, page
