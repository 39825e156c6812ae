"""Loss, norms against the predicted equilibrium, clip rate and rotation of one or several runs.

python -m sibert_jax.report DIR [DIR ...] --out=DIR    writes report.png and report.md,
and confusion.png where a run is of a classifier that is finished
"""

from collections.abc import Sequence

from sibert_jax import command
from sibert_jax.files import user_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the runs, writes both files and prints their paths."""
    parser = command.parser("sibert_jax.report", __doc__)
    parser.add_argument("runs", nargs="+", type=user_path, metavar="DIR", help="workdir of a run")
    parser.add_argument(
        "--out",
        required=True,
        type=user_path,
        metavar="DIR",
        help="directory for report.png and report.md",
    )
    given = parser.parse_args(arguments)
    from sibert_jax.report.run_folder import UnreadableRun
    from sibert_jax.report.write import write

    try:
        for path in write(given.runs, given.out):
            print(path)
    except (UnreadableRun, OSError) as error:
        command.fail(str(error))
    return 0


if __name__ == "__main__":
    command.run(main)
