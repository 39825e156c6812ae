"""Weights in 2 to 8 bits: python -m sibert_jax.quantize SOURCE OUT --bits=4 --group=64

SOURCE is the workdir of a run, an export, or a Hugging Face BERT or GPT-2 directory;
sibert_jax.load(OUT) loads the result. After an interruption, the same command continues with the
first unfinished block.
"""

import dataclasses
from collections.abc import Sequence

from sibert_jax import command
from sibert_jax.errors import EXPECTED
from sibert_jax.files import user_path
from sibert_jax.quantize.settings import BITS, METHODS, Settings


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; exit status 2 and one sentence on bad input."""
    default = {field.name: field.default for field in dataclasses.fields(Settings)}
    parser = command.parser("sibert_jax.quantize", __doc__)
    parser.add_argument("source", type=user_path, metavar="SOURCE")
    parser.add_argument("out", type=user_path, metavar="OUT")
    for name, words in (
        ("bits", f"bits per weight: {', '.join(map(str, BITS))}"),
        ("group", "consecutive inputs that share a scale; -1: all inputs of an output"),
        ("tables", "bits of the embedding tables; 0: keep float32"),
        ("steps", "SignRound steps per block"),
        ("seed", "random seed for the order of the batches"),
    ):
        help_ = f"{words} (default: {default[name]})"
        parser.add_argument(f"--{name}", type=int, default=default[name], metavar="N", help=help_)
    parser.add_argument(
        "--method",
        default=default["method"],
        help=f"rounding method: {' or '.join(METHODS)} (default: {default['method']})",
    )
    parser.add_argument(
        "--symmetric", action="store_true", help="symmetric quantization, without zero points"
    )
    parser.add_argument(
        "--batches", type=int, default=16, metavar="N", help="calibration batches (default: 16)"
    )
    parser.add_argument(
        "--batch_size", type=int, default=8, metavar="N", help="examples per batch (default: 8)"
    )
    parser.add_argument(
        "--data",
        type=user_path,
        metavar="FILE",
        help="text for calibration (default: the run's training data)",
    )
    parser.add_argument(
        "--step", metavar="best|N", help="checkpoint to quantize (default: the newest)"
    )
    given = parser.parse_args(arguments)
    from sibert_jax.quantize.run import quantize_directory

    try:
        quantize_directory(
            given.source,
            given.out,
            Settings(**{name: getattr(given, name) for name in default}),
            num_batches=given.batches,
            batch_size=given.batch_size,
            data=given.data,
            step=given.step,
            say=lambda line: print(line, flush=True),
        )
    except EXPECTED as error:
        command.fail(str(error))


if __name__ == "__main__":
    command.run(main)
