"""Shared by the tasks that fine-tune an encoder on labeled examples."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sibert_jax.data import Tokenizer, WordPiece
from sibert_jax.data.documents import text_hash
from sibert_jax.errors import ConfigError
from sibert_jax.keys import key
from sibert_jax.model import ModelConfig

# As the paper fine-tunes SIBERT: LAMB on all parameters. Epochs, warm-up and decay are BERT's
# (Devlin et al. 2019, A.3), the rate is from experiments/finetuning_rates.
DEFAULTS = {
    "optim.name": "lamb",
    "optim.eta_lambda": 0.0,
    "optim.learning_rate": 1e-2,
    "optim.weight_decay": 0.01,
    "optim.max_grad_norm": 1.0,
    "optim.schedule": "linear",
    "optim.warmup_fraction": 0.1,
    "optim.head.name": "same",
    "optim.head.warmup_fraction": 0.1,
    "train.num_steps": 0,
    "train.num_epochs": 3.0,
    "train.eval_batches": 0,
}


@dataclasses.dataclass(frozen=True)
class FinetuningConfig:
    """Keys under `task` of every task that fine-tunes an encoder."""

    name: str = key("", "the task")
    head: str = key(
        "standard", "standard: BERT's; invariant: scale invariant, as the encoder of SIBERT is",
        choices=("standard", "invariant"),
    )  # fmt: skip
    logit_scale: float = key(
        8.0, "of the invariant head: the largest logit", above=0, below=math.inf
    )
    loss_scale: float = key(
        1.0, "multiplies the loss that is differentiated", above=0, below=math.inf
    )


def load_tokenizer(vocab: str, model: ModelConfig) -> WordPiece:
    """The vocabulary of a fine-tuning run, from `data.vocab`.

    Raises:
      ConfigError: none is named, or it has not as many tokens as the model.
    """
    if not vocab:
        raise ConfigError(
            "data.vocab and checkpoint.init_from are both empty, so there is no vocabulary; name a "
            "vocabulary file, or a workdir to start from."
        )
    tokenizer = Tokenizer.load(vocab)
    if not isinstance(tokenizer, WordPiece):
        raise ConfigError(
            f"the vocabulary {vocab} is of byte-level BPE, without [CLS] and [SEP]; fine-tuning "
            "needs an encoder with a WordPiece vocabulary, such as BERT."
        )
    if tokenizer.vocab_size != model.vocab_size:
        raise ConfigError(
            f"the vocabulary {vocab} has {tokenizer.vocab_size} tokens but "
            f"model.vocab_size={model.vocab_size}; leave the latter out, or set them alike."
        )
    return tokenizer


def held_out_mask(
    texts: tuple[list[str], ...], groups_N: np.ndarray, fraction: float
) -> np.ndarray:
    """Which examples to hold out: of each group the fraction with the lowest hashes of its texts.

    Equal texts of a group stay together, and an example is left of each group.

    Args:
      texts: one list for each text column.
      groups_N: int, such as the class.
      fraction: in (0, 1).

    Returns:
      (N,) bool.
    """
    hash_N = np.array([text_hash(list(parts)) for parts in zip(*texts)], np.uint64)
    mask_N = np.zeros(len(hash_N), bool)
    for group in np.unique(groups_N):
        members = np.flatnonzero(groups_N == group)
        count = min(round(fraction * len(members)), len(members) - 1)
        if count:
            ranked = np.sort(hash_N[members])
            last, after = ranked[count - 1], ranked[count]
            mask_N[members] = hash_N[members] <= last if last < after else hash_N[members] < last
    return mask_N


def tab_lines(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Records as lines of tab-separated fields, the names first: for `NewText.format`.

    White space within a field becomes one space. A number has six digits.

    Example:
      >>> tab_lines([{"prediction": "ham", "probability": 0.98, "text": "See\\nyou"}])
      ['prediction\\tprobability\\ttext', 'ham\\t0.98\\tSee you']
    """
    header = "\t".join(_field(name) for name in records[0])
    return [header, *("\t".join(map(_field, record.values())) for record in records)]


def _field(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())
