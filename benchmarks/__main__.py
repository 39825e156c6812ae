"""Runs the benchmarks: tables on stdout; JSON, Markdown and a picture of each in a folder.

python -m benchmarks               all of them
python -m benchmarks loop          one of them
"""

import argparse
import functools
import pathlib
import time
from collections.abc import Sequence

from benchmarks import (
    attention,
    finetuning,
    first_step,
    generation,
    input_pipeline,
    layers,
    loop,
    measuring,
    memory,
    models,
    optimizers,
    pytorch,
    tokenizing,
)
from benchmarks.measuring import Result

BENCHMARKS = {
    "pytorch": pytorch.measure,
    "pytorch_gpt": functools.partial(
        pytorch.measure,
        family="gpt",
        sizes=("mini", "4x256", "4x512"),
        vocab_sizes=pytorch.VOCAB_SIZES[:1],
    ),
    "loop": loop.measure,
    "models": models.measure,
    "finetuning": finetuning.measure,
    "layers": layers.measure,
    "input_pipeline": input_pipeline.measure,
    "tokenizing": tokenizing.measure,
    "first_step": first_step.measure,
    "memory": memory.measure,
    "optimizers": optimizers.measure,
    "attention": attention.measure,
    "generation": generation.measure,
}
BUSY = 0.5  # load average from which a warning is given


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures speed.")
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="default: all of them")
    parser.add_argument("--out", type=pathlib.Path, default="runs/bench", help="folder to write to")
    parser.add_argument(
        "--rivals",
        default=".venv-rivals/bin/python",
        help="Python with benchmarks/requirements.txt; without it, only ours are measured",
    )
    parser.add_argument("--repeats", type=int, help="of each contestant; default: as each has it")
    parser.add_argument(
        "--size", choices=pytorch.SIZES, help="of PyTorch's: measure one, 8,192 WordPieces"
    )
    arguments = parser.parse_args(argv)
    if arguments.repeats is not None and arguments.repeats < 1:
        parser.error(f"--repeats={arguments.repeats} must be at least 1")
    return arguments


def call(name: str, arguments: argparse.Namespace) -> Result:
    """Measures one benchmark as the command line says."""
    options = {} if arguments.repeats is None else {"repeats": arguments.repeats}
    if name.startswith("pytorch"):
        options["python"] = arguments.rivals
        if arguments.size is not None:
            options |= {"sizes": (arguments.size,), "vocab_sizes": pytorch.VOCAB_SIZES[:1]}
    return BENCHMARKS[name](**options)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the command line names, or everything."""
    arguments = parse(argv)
    found = measuring.machine()
    print(" · ".join(f"{name} {value}" for name, value in found.items()))
    if found["load_average"] > BUSY:
        print("The machine was busy at the start: times are noisy, ratios less so.")
    for name in BENCHMARKS if arguments.name is None else [arguments.name]:
        measuring.say(f"measuring {name}")
        since = time.perf_counter()
        result = call(name, arguments)
        print(f"\n{result.title}\n\n{measuring.table(result)}", flush=True)
        measuring.say(f"{name} took {time.perf_counter() - since:.0f} s")
        measuring.write(arguments.out, name, result, found)


if __name__ == "__main__":
    main()
