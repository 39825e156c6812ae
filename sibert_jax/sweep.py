"""Runs one config many times: python -m sibert_jax.sweep --config=NAME --sweep=FILE --workdir=DIR.

The sweep file has a function `sweep()` that yields dicts of overrides, and may name the metric:

    METRIC = "mlm_accuracy"  # of a loss the least is best, else the greatest; default: the task's


    def sweep():
        for learning_rate in (1e-3, 2e-3):
            for seed in range(3):
                yield {"optim.learning_rate": learning_rate, "seed": seed}

The key "config" selects a point's own config file, the key "panel" the box plot to draw it in, such
as the name of a task (default: one per config file). All points are checked before the first one
starts. The same command resumes: finished points are kept, an interrupted one continues from its
checkpoint. If started several times at once, also on several machines with a shared disk that
supports locks, the processes divide the points among them. Each point has a folder in DIR/runs; the
table over all of them is DIR/sweep.md, sweep.csv and sweep.png.
"""

import sys
from collections.abc import Sequence

from sibert_jax import command
from sibert_jax.files import user_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the rest of a sweep and writes its table; returns 1 if a run failed."""
    parser = command.parser(
        "sibert_jax.sweep", __doc__, epilog="Overrides (--config.KEY=VALUE) apply to all runs."
    )
    parser.add_argument("--config", required=True, metavar="NAME", help="configuration of the runs")
    parser.add_argument(
        "--sweep",
        required=True,
        type=user_path,
        metavar="FILE",
        help="Python file that defines sweep()",
    )
    parser.add_argument(
        "--workdir",
        required=True,
        type=user_path,
        metavar="DIR",
        help="directory of the sweep",
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="number of runs at the same time (default: 1)"
    )
    given, overrides = parser.parse_known_args(arguments)
    if given.workers < 1:
        command.fail(f"--workers={given.workers} must be at least 1.")
    from sibert_jax.errors import ConfigError
    from sibert_jax.report.sweep_table import write_summary
    from sibert_jax.runtime.signals import Stopped
    from sibert_jax.tools.sweep_runs import Sweep, read_sweep

    try:
        metric, points = read_sweep(given.sweep, given.config, overrides)
        sweep = Sweep(given.workdir, points)
        failed = sweep.run(given.workers)
        for path in write_summary(sweep.outcomes(metric), sweep.directory):
            print(path)
    except ConfigError as error:
        command.fail(str(error))
    except Stopped as signalled:
        print(f"{signalled}: the runs were saved; run again to resume", file=sys.stderr)
        return 0
    if failed:
        command.fail(f"{len(failed)} of {len(points)} runs failed: {'; '.join(failed)}", status=1)
    return 0


if __name__ == "__main__":
    command.run(main)
