"""Pairs of text spans for next-sentence prediction."""

import array
import bisect

import numpy as np

from sibert_jax.data.cache import digest
from sibert_jax.data.packed import Example
from sibert_jax.data.randomness import Purpose, generator
from sibert_jax.data.token_corpus import TokenCorpus
from sibert_jax.data.tokenizer import Tokenizer
from sibert_jax.errors import DataError

MIN_SEQ_LEN = 8
BLOCK_SENTENCES = 1_000_000
SHORTEST_TARGET = 2  # tokens of a shortened pair


class PairExamples:
    """`[CLS] A [SEP] B [SEP]`, where B follows A or, half of the time, is from another document.

    A chunk is a run of whole sentences of one document that just reaches L-3 tokens; it gives one
    example an epoch. A is a random number of its first sentences. B is the rest of it or a run of
    sentences from a random place of another document. With probability `short_prob` the example
    is built to a random length of 2 to L-3 tokens. What is too long loses tokens from the front or
    the back of its longer span, at random.

    This is Devlin's construction but for what makes an example depend on its index alone: chunks
    lie where they lie for all epochs and shortened lengths too, so sentences that a random B or a
    short length leaves unused are not put back for the next example; they come up in other epochs.
    A chunk of one sentence has no rest, so its B is always random, as Devlin's is.

    Args:
      corpus: the documents, at least two.
      seq_len: L.
      tokenizer: the one the corpus was made with.
      seed: of all random choices.
      short_prob: the share of shortened examples.

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
        tokenizer: Tokenizer,
        seed: int,
        short_prob: float = 0.1,
    ):
        if seq_len < MIN_SEQ_LEN:
            raise DataError(f"data.seq_len={seq_len} is too short for pairs; the least is 8")
        if corpus.num_documents < 2:
            raise DataError(
                "next-sentence prediction draws sentences from other documents, but the corpus has "
                f"{corpus.num_documents}; separate documents by blank lines, or train without it"
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
        """Returns one example.

        Args:
          epoch: which pass; the random choices are drawn anew for each.
          index: 0 <= index < len(self).

        Returns:
          tokens (L,) int32; segments (L,) int32, 1 on B and its [SEP]; 1 if B is random, else 0.
        """
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
        """Returns the sentence before which a run from `begin` first has `target` tokens."""
        starts = self._corpus.sentence_starts
        return bisect.bisect_left(starts, starts[begin] + target, begin + 1, end)

    def _span(self, begin: int, end: int) -> np.ndarray:
        starts = self._corpus.sentence_starts
        return self._corpus.tokens[starts[begin] : starts[end]]

    def _random_span(self, begin: int, target: int, document: float, place: float) -> np.ndarray:
        """Returns sentences of a document other than that of `begin`; uniforms choose which."""
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
      Where each run begins among the sentences, and the number of sentences: (C+1,) int64. Only the
      last run of a document may have fewer than `target` tokens.
    """
    starts, document_starts = corpus.sentence_starts, corpus.document_starts
    num_sentences = len(starts) - 1
    chunk_starts = array.array("q")
    sentence = 0
    while sentence < num_sentences:
        # In blocks, since a list of all sentences would not fit into memory for a large corpus.
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
    """Shortens two spans to `max_tokens` in all.

    One token at a time is taken from the longer (from B where they are equally long), from the
    front or the back with equal probability.
    """
    excess = len(span_a) + len(span_b) - max_tokens
    if excess <= 0:
        return span_a, span_b
    to_level = min(excess, abs(len(span_a) - len(span_b)))
    from_a, from_b = (excess - to_level) // 2, (excess - to_level + 1) // 2
    if len(span_a) > len(span_b):
        from_a += to_level
    else:
        from_b += to_level
    from_front = rng.random(excess) < 0.5
    front_a, front_b = int(from_front[:from_a].sum()), int(from_front[from_a:].sum())
    return (
        span_a[front_a : len(span_a) - (from_a - front_a)],
        span_b[front_b : len(span_b) - (from_b - front_b)],
    )
