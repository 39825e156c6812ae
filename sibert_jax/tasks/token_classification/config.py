"""Keys under `data` of a token-classification config."""

import dataclasses

from sibert_jax.data.config import check_valid_fraction
from sibert_jax.errors import ConfigError
from sibert_jax.keys import check, key


@dataclasses.dataclass(frozen=True)
class TaggedConfig:
    """Keys under `data` of a token-classification config."""

    path: str = key(
        "", "training file in CoNLL format, or JSON lines if its name ends in .jsonl or .json; "
        "may be .gz or .xz",
    )  # fmt: skip
    valid_path: str = key("", "file to evaluate on; empty: hold out valid_fraction of path")
    valid_fraction: float = key(
        0.1, "fraction of the sentences to hold out, in (0, 1); chosen by a hash of the text"
    )
    test_path: str = key("", "comma-separated files to tag after the last step", may_change=True)
    token: str = key(
        "", "where the words are: CoNLL column, counted from 0, or JSON key; empty: column 0, or "
        "key tokens",
    )  # fmt: skip
    tag: str = key(
        "", "where the tags are: CoNLL column, -1 for the last, or JSON key; empty: the last "
        "column, or key tags",
    )  # fmt: skip
    vocab: str = key(
        "", "WordPiece vocabulary file; empty: that of checkpoint.init_from", may_change=True
    )
    seq_len: int | None = key(
        None, "maximum tokens per row; longer sentences are split between words; None: 128, or "
        "model.max_len if less", low=8,
    )  # fmt: skip
    num_seq_lens: int = key(
        12, "maximum number of different lengths that batches are padded to", low=1
    )

    def __post_init__(self):
        check("data", self)
        if not self.path:
            raise ConfigError("data.path is empty; name the training sentences.")
        check_valid_fraction(self.valid_path, self.valid_fraction)
