"""Which labelled examples a model is fine-tuned on."""

import dataclasses

from sibert_jax.data.spec import split_paths
from sibert_jax.errors import DataError


@dataclasses.dataclass(frozen=True)
class FinetuningSpec:
    """Names labelled examples and the vocabulary they are read with.

    Args:
      source: "files" or "tfds".
      path: training examples: for "files" a file or glob, for "tfds" a prepared `DIR:SPLIT`.
      valid_path: likewise, to evaluate on; "" holds out `valid_fraction` of the training examples.
      valid_fraction: the share to hold out, in (0, 1), chosen by a hash of the text.
      test_path: likewise, comma-separated: further sets to predict once training is done; "": none.
      vocab: a vocabulary file; "": that of the run in `checkpoint.init_from`.
      num_seq_lens: how many lengths batches may be padded to; small sets get fewer.

    Raises:
      DataError: if a field has a value outside its range.
    """

    source: str
    path: str
    valid_path: str
    valid_fraction: float
    test_path: str
    vocab: str
    num_seq_lens: int

    def __post_init__(self):
        if self.source not in ("files", "tfds"):
            raise DataError(f"data.source must be files or tfds, not {self.source!r}")
        if not self.path:
            raise DataError("data.path is empty; name the training examples")
        if not self.valid_path and not 0 < self.valid_fraction < 1:
            raise DataError(
                "data.valid_fraction must lie between 0 and 1 where data.valid_path is empty, "
                f"found {self.valid_fraction}"
            )
        if self.num_seq_lens < 1:
            raise DataError(f"data.num_seq_lens must be at least 1, found {self.num_seq_lens}")

    @property
    def test_paths(self) -> tuple[str, ...]:
        """The parts of `test_path`."""
        return split_paths(self.test_path)
