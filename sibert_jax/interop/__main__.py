"""Import or export weights: python -m sibert_jax.interop {import,export} SOURCE TARGET.

import: turns a Hugging Face BERT or GPT-2 directory, or one written by `export`, into a workdir
        for `--config.checkpoint.init_from=TARGET`.
export: turns a workdir's newest checkpoint into such a directory: Hugging Face's format for
        model.arch="bert" and "gpt", ours otherwise. A directory of sibert_jax.quantize is exported
        with dequantized weights.
"""

import sys
from collections.abc import Sequence

from sibert_jax import command
from sibert_jax.files import user_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 2 after a one-sentence message on bad input."""
    parser = command.parser("sibert_jax.interop", __doc__)
    parser.add_argument("action", choices=("import", "export"))
    parser.add_argument("source", type=user_path, metavar="SOURCE")
    parser.add_argument("target", type=user_path, metavar="TARGET")
    parser.add_argument(
        "--step", metavar="best|N", help="checkpoint to export (default: the newest)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="dtype of the exported weights (default: float32)",
    )
    given = parser.parse_args(arguments)
    if given.step is not None and given.action == "import":
        command.fail("--step is for export; imported weights have no steps.")
    if given.dtype is not None and given.action == "import":
        command.fail("--dtype is for export; imported weights become float32.")
    from sibert_jax.checkpoint import CheckpointError
    from sibert_jax.data import DataError
    from sibert_jax.errors import InteropError
    from sibert_jax.interop.workdir_export import export_weights
    from sibert_jax.interop.workdir_import import import_weights

    try:
        if given.action == "import":
            print(import_weights(given.source, given.target))
        else:
            dtype = given.dtype or "float32"
            print(export_weights(given.source, given.target, given.step, dtype))
    except (InteropError, CheckpointError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return command.WRONG_INPUT
    return 0


if __name__ == "__main__":
    command.run(main)
