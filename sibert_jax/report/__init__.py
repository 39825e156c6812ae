"""Reports on one or several runs: a figure and a Markdown table from their metrics files.

Needs only numpy, matplotlib and the run folders, which may be copied to another machine.
`python -m sibert_jax.report DIR [DIR ...] --out=DIR` does the same from the command line.
"""

from sibert_jax import lazy

__all__ = ["Run", "UnreadableRun", "draw", "read_run", "table"]

__getattr__ = lazy.attributes(
    __name__,
    {
        "Run": "run_folder",
        "UnreadableRun": "run_folder",
        "draw": "figure",
        "read_run": "run_folder",
        "table": "tables",
    },
)
