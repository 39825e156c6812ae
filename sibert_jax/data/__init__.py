"""Text to tokens to examples to batches, with numpy alone at import."""

from sibert_jax.data.batches import PretrainingBatches
from sibert_jax.data.bucketed import BucketedBatches
from sibert_jax.data.finetuning_spec import FinetuningSpec
from sibert_jax.data.load import Corpora, load_corpora
from sibert_jax.data.masking import Masker
from sibert_jax.data.packed import PackedExamples
from sibert_jax.data.pairs import PairExamples
from sibert_jax.data.prefetch import prefetch
from sibert_jax.data.randomness import EpochPermutations, Purpose, generator
from sibert_jax.data.sequences import (
    Sequences,
    choose_seq_lens,
    join_pair,
    longest_of_batches,
    seq_lens_for_one_pass,
    seq_lens_for_training,
)
from sibert_jax.data.spec import CorpusSpec
from sibert_jax.data.token_corpus import TokenCorpus
from sibert_jax.data.tokenizer import Tokenizer
from sibert_jax.data.weighted import Examples, WeightedExamples
from sibert_jax.errors import DataError

__all__ = [
    "BucketedBatches",
    "Corpora",
    "CorpusSpec",
    "DataError",
    "EpochPermutations",
    "Examples",
    "FinetuningSpec",
    "Masker",
    "PackedExamples",
    "PairExamples",
    "PretrainingBatches",
    "Purpose",
    "Sequences",
    "TokenCorpus",
    "Tokenizer",
    "WeightedExamples",
    "choose_seq_lens",
    "generator",
    "join_pair",
    "load_corpora",
    "longest_of_batches",
    "prefetch",
    "seq_lens_for_one_pass",
    "seq_lens_for_training",
]
