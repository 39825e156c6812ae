"""The console command `sibert_jax`: `sibert_jax COMMAND ...` is `python -m sibert_jax.COMMAND ...`.

Without a command name it is `python -m sibert_jax.main`, which trains and predicts:

    sibert_jax --config=demo --workdir=runs/demo
    sibert_jax report runs/demo --out=runs/demo/report
"""

import importlib
import os
import sys

from sibert_jax import command

COMMANDS = {
    "main": "sibert_jax.main",
    "report": "sibert_jax.report.__main__",
    "checkpoint": "sibert_jax.checkpoint.__main__",
    "homogeneity": "sibert_jax.homogeneity.__main__",
    "interop": "sibert_jax.interop.__main__",
    "quantize": "sibert_jax.quantize.__main__",
    "sweep": "sibert_jax.sweep",
}


def main() -> None:
    """Runs the command named by the first word."""
    sys.path.insert(0, os.getcwd())  # as `python -m` does: configs may import their neighbors
    name, *arguments = sys.argv[1:] or ["main", "--help"]
    if name not in COMMANDS:
        name, arguments = "main", sys.argv[1:]
    command.run(importlib.import_module(COMMANDS[name]).main, arguments)


if __name__ == "__main__":
    main()
