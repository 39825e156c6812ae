"""Text to tokens to examples to batches; imports only numpy."""

from sibert_jax.data.batches import NextTokenBatches, PretrainingBatches
from sibert_jax.data.config import CorpusConfig, LabeledConfig, split_paths
from sibert_jax.data.corpora import Corpora, load_corpora
from sibert_jax.data.masking import Masker
from sibert_jax.data.packed_examples import NextTokenExamples, PackedExamples
from sibert_jax.data.prefetch import prefetch
from sibert_jax.data.pretraining_examples import (
    Examples,
    PairExamples,
    WeightedExamples,
)
from sibert_jax.data.randomness import EpochPermutations, Purpose, generator
from sibert_jax.data.seq_lens import (
    choose_seq_lens,
    longest_of_batches,
    seq_lens_for_one_pass,
    seq_lens_for_training,
)
from sibert_jax.data.sequences import BucketedBatches, Rows, Sequences, join_pair
from sibert_jax.data.token_corpus import TokenCorpus
from sibert_jax.data.tokenizers.byte_bpe import ByteBPE
from sibert_jax.data.tokenizers.tokenizer import Tokenizer, vocabulary_file
from sibert_jax.data.tokenizers.word_piece import WordPiece
from sibert_jax.errors import DataError

__all__ = [
    "BucketedBatches",
    "ByteBPE",
    "Corpora",
    "CorpusConfig",
    "DataError",
    "EpochPermutations",
    "Examples",
    "LabeledConfig",
    "Masker",
    "NextTokenBatches",
    "NextTokenExamples",
    "PackedExamples",
    "PairExamples",
    "PretrainingBatches",
    "Purpose",
    "Rows",
    "Sequences",
    "TokenCorpus",
    "Tokenizer",
    "WeightedExamples",
    "WordPiece",
    "choose_seq_lens",
    "generator",
    "join_pair",
    "load_corpora",
    "longest_of_batches",
    "prefetch",
    "seq_lens_for_one_pass",
    "seq_lens_for_training",
    "split_paths",
    "vocabulary_file",
]
