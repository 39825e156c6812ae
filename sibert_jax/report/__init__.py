"""Metrics files of one or several runs in, a picture and a Markdown table out.

Needs numpy and matplotlib, and nothing of this package: a folder copied from a pod to a laptop is
enough. `python -m sibert_jax.report DIR [DIR ...] --out=DIR` is the same from the command line.
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
