"""Loss of an exported masked language model on text: python models/evaluate.py MODEL TEXT

Which tokens are to be predicted is the same in every run, and as in evaluations during training.
"""

import pathlib
from collections.abc import Sequence

import jax
import tqdm

from sibert_jax import command
from sibert_jax.data import load_corpora
from sibert_jax.data.config import CorpusConfig
from sibert_jax.errors import ConfigError, DataError, InteropError
from sibert_jax.files import user_path
from sibert_jax.interop import exported
from sibert_jax.tasks.pretraining.load import build_data
from sibert_jax.tasks.pretraining.task import PretrainingConfig

BATCH_SIZE = 32


def evaluate(directory: pathlib.Path, text: str) -> dict[str, float]:
    """Loss, accuracy and loss by fifths of token frequency, over the whole text."""
    cfg, params = exported.read(directory)
    described = exported.read_task(directory)
    if described is None or not isinstance(described.config, PretrainingConfig):
        raise ConfigError(f"{directory} is no masked language model; give the export of one.")
    task = described.restored(cfg, directory)
    vocab = str(directory / "vocab.txt")
    length = described.seq_len
    # Loaded as the held-out text of a run; the training text beside it is not used.
    data = CorpusConfig(source="builtin", valid_path=text, vocab=vocab, seq_len=length)
    corpora = load_corpora(data, vocab_size=cfg.vocab_size, progress=print)
    batches = build_data(
        corpora, described.config, seq_len=length, global_batch_size=BATCH_SIZE, seed=0
    ).valid
    metrics = jax.jit(task.eval_batch)
    steps = tqdm.trange(len(batches), unit=" batches", disable=None)
    return task.eval_metrics([jax.device_get(metrics(params, batches.batch(i))) for i in steps])


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the metrics; 2 and one sentence on bad input."""
    parser = command.parser("models.evaluate", __doc__)
    parser.add_argument("model", type=user_path, metavar="MODEL", help="directory of an export")
    parser.add_argument("text", metavar="TEXT", help="text files, a pattern in quotes")
    given = parser.parse_args(arguments)
    try:
        for name, value in evaluate(given.model, given.text).items():
            print(f"{name} {value:.4f}")
    except (ConfigError, DataError, InteropError) as error:
        command.fail(str(error))
    return 0


if __name__ == "__main__":
    command.run(main)
