"""Examples cut from one stream of all documents: text to mask, or tokens and their successors."""

import numpy as np

from sibert_jax.data.cache import digest
from sibert_jax.data.pretraining_examples import Example
from sibert_jax.data.token_corpus import TokenCorpus
from sibert_jax.data.tokenizers.tokenizer import Tokenizer
from sibert_jax.data.tokenizers.word_piece import WordPiece
from sibert_jax.errors import DataError


class SeparatedStream:
    """The documents of a corpus as one stream `document END document END ... document`.

    END is [SEP] or <|endoftext|>, `Tokenizer.end_id`.
    """

    def __init__(self, corpus: TokenCorpus, tokenizer: Tokenizer):
        self._corpus, self._end_id = corpus, tokenizer.end_id
        # A separator follows each document: document d begins d positions later than stored.
        self._starts = corpus.document_token_starts + np.arange(corpus.num_documents + 1)

    def __len__(self) -> int:
        return int(self._starts[-1]) - 1

    def read(self, begin: int, end: int) -> np.ndarray:
        """Returns tokens [begin, end) of the stream, int32."""
        tokens = np.full(end - begin, self._end_id, np.int32)
        starts = self._starts
        document = int(np.searchsorted(starts, begin, side="right")) - 1
        while starts[document] < end:
            # A document's last position in the stream is its separator, already set.
            low = max(begin, int(starts[document]))
            high = min(end, int(starts[document + 1]) - 1)
            if low < high:
                stored = self._corpus.tokens[low - document : high - document]
                tokens[low - begin : high - begin] = stored
            document += 1
        return tokens


class NextTokenExamples:
    """Cuts the stream `document END document END ...` into L tokens and their successors.

    Every token but the first is predicted in exactly one example, except for fewer than L remaining
    tokens at the end.

    Args:
      corpus: the corpus to cut.
      seq_len: L, tokens per example.
      tokenizer: the tokenizer of the corpus.

    Raises:
      DataError: if the corpus does not fill one example.
    """

    def __init__(self, corpus: TokenCorpus, seq_len: int, tokenizer: Tokenizer):
        self.seq_len = seq_len
        self.fingerprint = digest("next", corpus.fingerprint, seq_len, tokenizer.hash)
        self._stream = SeparatedStream(corpus, tokenizer)
        self._len = (len(self._stream) - 1) // seq_len
        if self._len < 1:
            raise _too_few(corpus, seq_len)

    def __len__(self) -> int:
        return self._len

    def example(self, epoch: int, index: int) -> Example:
        """Returns L + 1 tokens, the last L to be predicted; the same in every epoch."""
        del epoch
        begin = index * self.seq_len
        tokens = self._stream.read(begin, begin + self.seq_len + 1)
        return tokens, np.zeros(self.seq_len + 1, np.int32), 0


class PackedExamples:
    """Cuts the stream `document [SEP] document [SEP] ...` into `[CLS] chunk [SEP]` of L tokens.

    Every token of the corpus is in exactly one example, except for fewer than L-2 remaining tokens
    at the end.

    Args:
      corpus: the corpus to cut.
      seq_len: L, tokens per example.
      tokenizer: the tokenizer of the corpus.

    Raises:
      DataError: if the corpus does not fill one example.

    References:
      Liu et al., RoBERTa, https://arxiv.org/abs/1907.11692, §4.2 ("FULL-SENTENCES").
    """

    def __init__(self, corpus: TokenCorpus, seq_len: int, tokenizer: WordPiece):
        if seq_len < 3:
            raise DataError(f"data.seq_len={seq_len} leaves no room between [CLS] and [SEP]")
        self.seq_len = seq_len
        self.fingerprint = digest("packed", corpus.fingerprint, seq_len, tokenizer.hash)
        self._tokenizer = tokenizer
        self._stream = SeparatedStream(corpus, tokenizer)
        self._len = len(self._stream) // (seq_len - 2)
        if self._len < 1:
            raise _too_few(corpus, seq_len)

    def __len__(self) -> int:
        return self._len

    def example(self, epoch: int, index: int) -> Example:
        """Returns one example, the same in every epoch; its segments are all 0."""
        del epoch
        chunk_len = self.seq_len - 2
        begin = index * chunk_len
        tokens = np.full(self.seq_len, self._tokenizer.sep_id, np.int32)
        tokens[0] = self._tokenizer.cls_id
        tokens[1:-1] = self._stream.read(begin, begin + chunk_len)
        return tokens, np.zeros(self.seq_len, np.int32), 0


def _too_few(corpus: TokenCorpus, seq_len: int) -> DataError:
    return DataError(
        f"the corpus has {corpus.num_tokens} tokens, too few for one example of "
        f"data.seq_len={seq_len}; give more text or shorter sequences"
    )
