"""Examples: their interface, pairs of spans, and mixtures."""

import array
import bisect
import fractions
from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np

from sibert_jax.data.cache import digest
from sibert_jax.data.randomness import EpochPermutations, Purpose, generator
from sibert_jax.data.sequences import tokens_to_drop
from sibert_jax.data.token_corpus import TokenCorpus
from sibert_jax.data.tokenizers.word_piece import WordPiece
from sibert_jax.errors import DataError

# Tokens (L,) int32, segments (L,) int32, and 1 if the second span is random, else 0.
Example: TypeAlias = tuple[np.ndarray, np.ndarray, int]

MIN_SEQ_LEN = 8
BLOCK_SENTENCES = 1_000_000
SHORTEST_TARGET = 2  # tokens of a shortened pair
MAX_DENOMINATOR = 1_000_000


class Examples(Protocol):
    """Examples for batches: packed text, pairs of spans, or a mixture."""

    seq_len: int
    fingerprint: str

    def __len__(self) -> int: ...

    def example(self, epoch: int, index: int) -> Example:
        """Returns one example; 0 <= index < len(self)."""


class PairExamples:
    """`[CLS] A [SEP] B [SEP]`, where B follows A or, half of the time, comes from another document.

    A chunk is a run of sentences of one document that just reaches L-3 tokens; it yields one
    example per epoch. A is a random number of its first sentences. B is the rest of it, or a run of
    sentences from a random position in another document. With probability `short_prob` the target
    is a random length of 2 to L-3 tokens instead. An example that is too long loses tokens from the
    front or the back of its longer span, at random.

    This is Devlin's construction except that an example depends on its index alone: chunks are the
    same in all epochs, so sentences left unused by a random B or a short target do not go to the
    next example; other epochs use them. In a chunk of one sentence B is always random, as in
    Devlin's.

    Args:
      corpus: the corpus, at least two documents.
      seq_len: L, tokens per example.
      tokenizer: the tokenizer of the corpus.
      seed: random seed of all choices.
      short_prob: the fraction of shortened examples.

    Raises:
      DataError: if there is no other document to draw from, or L is below 8.

    References:
      Devlin et al., BERT, https://arxiv.org/abs/1810.04805, §3.1 task 2 and appendix A.2;
      google-research/bert, create_pretraining_data.py.
    """

    def __init__(
        self,
        corpus: TokenCorpus,
        seq_len: int,
        tokenizer: WordPiece,
        seed: int,
        short_prob: float = 0.1,
    ):
        if seq_len < MIN_SEQ_LEN:
            raise DataError(
                f"data.seq_len={seq_len} is too short for pairs; it must be at least {MIN_SEQ_LEN}"
            )
        if corpus.num_documents < 2:
            raise DataError(
                "next-sentence prediction draws sentences from other documents, but the corpus "
                f"has {corpus.num_documents}; separate documents by blank lines, or set "
                "task.nsp=False"
            )
        self.seq_len = seq_len
        self.fingerprint = digest(
            "pairs", corpus.fingerprint, seq_len, tokenizer.hash, seed, short_prob
        )
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._seed = seed
        self._short_prob = short_prob
        self._max_tokens = seq_len - 3
        self._chunk_starts = chunk_sentences(corpus, self._max_tokens)

    def __len__(self) -> int:
        return len(self._chunk_starts) - 1

    def example(self, epoch: int, index: int) -> Example:
        """Returns one example, different in each epoch; its segments are 1 on B and its [SEP]."""
        rng = generator(self._seed, Purpose.PAIR, epoch, index)
        short, length, a_end, swap, document, place = rng.random(6)
        target = self._max_tokens
        if short < self._short_prob:
            target = SHORTEST_TARGET + int(length * (target - SHORTEST_TARGET + 1))
        begin, end = map(int, self._chunk_starts[index : index + 2])
        end = self._reach(begin, end, target)
        middle = begin + 1 + int(a_end * (end - begin - 1))
        is_random_next = end - begin == 1 or swap < 0.5
        span_a = self._span(begin, middle)
        if is_random_next:
            span_b = self._random_span(begin, max(1, target - len(span_a)), document, place)
        else:
            span_b = self._span(middle, end)
        span_a, span_b = truncate_pair(span_a, span_b, self._max_tokens, rng)
        return *self._join(span_a, span_b), int(is_random_next)

    def _reach(self, begin: int, end: int, target: int) -> int:
        """Returns the end of the shortest run of sentences from `begin` with `target` tokens."""
        starts = self._corpus.sentence_starts
        return bisect.bisect_left(starts, starts[begin] + target, begin + 1, end)

    def _span(self, begin: int, end: int) -> np.ndarray:
        starts = self._corpus.sentence_starts
        return self._corpus.tokens[starts[begin] : starts[end]]

    def _random_span(self, begin: int, target: int, document: float, place: float) -> np.ndarray:
        """Returns sentences of a document other than that of `begin`, chosen by two uniforms."""
        starts = self._corpus.document_starts
        own = bisect.bisect_right(starts, begin) - 1
        other = int(document * (self._corpus.num_documents - 1))
        other += other >= own
        first, last = int(starts[other]), int(starts[other + 1])
        first += int(place * (last - first))
        return self._span(first, self._reach(first, last, target))

    def _join(self, span_a: np.ndarray, span_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.full(self.seq_len, self._tokenizer.pad_id, np.int32)
        segments = np.zeros(self.seq_len, np.int32)
        end_a = 1 + len(span_a)
        end_b = end_a + 1 + len(span_b)
        tokens[0] = self._tokenizer.cls_id
        tokens[1:end_a] = span_a
        tokens[end_a] = tokens[end_b] = self._tokenizer.sep_id
        tokens[end_a + 1 : end_b] = span_b
        segments[end_a + 1 : end_b + 1] = 1
        return tokens, segments


def chunk_sentences(corpus: TokenCorpus, target: int) -> np.ndarray:
    """Cuts each document into runs of sentences that just reach `target` tokens.

    Returns:
      The first sentence of each run, then the number of sentences: (C+1,) int64. Only the last run
      of a document may have fewer than `target` tokens.
    """
    starts, document_starts = corpus.sentence_starts, corpus.document_starts
    num_sentences = len(starts) - 1
    chunk_starts = array.array("q")
    sentence = 0
    while sentence < num_sentences:
        # In blocks, as a list of all sentences of a large corpus would not fit into memory.
        block = np.arange(sentence, min(sentence + BLOCK_SENTENCES, num_sentences))
        reached = np.searchsorted(starts, starts[block] + target, side="left")
        document_end = document_starts[np.searchsorted(document_starts, block, side="right")]
        next_start = np.minimum(reached, document_end).tolist()
        first, last = sentence, sentence + len(block)
        while sentence < last:
            chunk_starts.append(sentence)
            sentence = next_start[sentence - first]
    chunk_starts.append(num_sentences)
    return np.array(chunk_starts)


def truncate_pair(
    span_a: np.ndarray, span_b: np.ndarray, max_tokens: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Shortens two spans to `max_tokens` in total.

    One token at a time is dropped from the longer one (see `tokens_to_drop`), from the front or the
    back with equal probability.
    """
    from_a, from_b = tokens_to_drop(len(span_a), len(span_b), max_tokens)
    from_front = rng.random(from_a + from_b) < 0.5
    front_a, front_b = int(from_front[:from_a].sum()), int(from_front[from_a:].sum())
    return (
        span_a[front_a : len(span_a) - (from_a - front_a)],
        span_b[front_b : len(span_b) - (from_b - front_b)],
    )


class WeightedExamples:
    """Interleaves sets of examples so that each keeps its share in every part of the stream.

    Of any n consecutive examples, n·w_k/Σw are from set k, up to an error below 2·(k+1), k from 0.
    An epoch has as many examples as all sets together; a set drawn more often than its size starts
    over in another order, and one drawn less often continues in the next epoch.

    Args:
      example_sets: the sets, all with the same sequence length.
      weights: one positive number per set; () means in proportion to size, each example exactly
        once per epoch.
      seed: random seed of the order within each set.

    Raises:
      DataError: if the weights do not match the sets or are not positive.
    """

    def __init__(self, example_sets: Sequence[Examples], weights: Sequence[float], seed: int):
        if not example_sets:
            raise DataError("there are no examples to mix")
        if weights and len(weights) != len(example_sets):
            raise DataError(f"{len(weights)} weights were given for {len(example_sets)} corpora")
        if not all(0 < weight < float("inf") for weight in weights):
            raise DataError(f"the weights of corpora must be positive, found {tuple(weights)}")
        seq_lens = {examples.seq_len for examples in example_sets}
        if len(seq_lens) > 1:
            raise DataError(f"the examples to mix have several lengths: {sorted(seq_lens)}")
        self.seq_len = seq_lens.pop()
        self._sets = tuple(example_sets)
        self._len = sum(map(len, example_sets))
        self.fingerprint = digest(
            "weighted",
            [examples.fingerprint for examples in example_sets],
            [float(weight) for weight in weights],
            seed,
        )
        exact = (
            [fractions.Fraction(weight).limit_denominator(MAX_DENOMINATOR) for weight in weights]
            if weights
            else [fractions.Fraction(len(examples)) for examples in example_sets]
        )
        # The share of set k among sets k, k+1, ...
        self._shares = [weight / sum(exact[k:]) for k, weight in enumerate(exact)]
        self._permutations = [
            EpochPermutations(seed, len(examples), Purpose.MIXTURE, k)
            for k, examples in enumerate(example_sets)
        ]

    def __len__(self) -> int:
        return self._len

    def example(self, epoch: int, index: int) -> Example:
        """Returns one example of one set; see `Examples`."""
        k, position = self.locate(epoch * self._len + index)
        set_epoch, place = divmod(position, len(self._sets[k]))
        return self._sets[k].example(set_epoch, int(self._permutations[k](set_epoch)[place]))

    def locate(self, stream_position: int) -> tuple[int, int]:
        """Returns the set that a stream position draws from, and its number of earlier draws."""
        position = stream_position
        for k, share in enumerate(self._shares):
            drawn = position * share.numerator // share.denominator
            if (position + 1) * share.numerator // share.denominator > drawn:
                return k, drawn
            position -= drawn
        raise AssertionError("the share of the last set is 1")
