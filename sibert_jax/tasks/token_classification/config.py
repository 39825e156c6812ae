"""Keys under `data` of a token-classification config."""

import dataclasses

from sibert_jax.data.config import check_valid_fraction
from sibert_jax.errors import ConfigError
from sibert_jax.keys import check, key


@dataclasses.dataclass(frozen=True)
class TaggedConfig:
    """Keys under `data` of a token-classification config."""

    path: str = key("", "CoNLL columns or, by its name, JSON lines; also .gz and .xz")
    valid_path: str = key("", "to evaluate on; empty: hold out valid_fraction of path")
    valid_fraction: float = key(0.1, "in (0, 1), chosen by a hash of the sentence")
    test_path: str = key(
        "", "further files to tag after the last step, comma-separated", may_change=True
    )
    token: str = key("", "column of the words, from 0, or key of their list; empty: 0, tokens")
    tag: str = key("", "column of the tags, -1: the last one, or key; empty: -1, tags")
    vocab: str = key(
        "", "WordPiece vocabulary file; empty: that of checkpoint.init_from", may_change=True
    )
    seq_len: int | None = key(
        None, "most tokens of a row, longer sentences are cut between words into several; None: "
        "128, or model.max_len if less", low=8,
    )  # fmt: skip
    num_seq_lens: int = key(12, "most lengths that batches are padded to", low=1)

    def __post_init__(self):
        check("data", self)
        if not self.path:
            raise ConfigError("data.path is empty; name the training sentences.")
        check_valid_fraction(self.valid_path, self.valid_fraction)
