"""Contiguous text without padding."""

import numpy as np

from sibert_jax.data.cache import digest
from sibert_jax.data.token_corpus import TokenCorpus
from sibert_jax.data.tokenizer import Tokenizer
from sibert_jax.errors import DataError

Example = tuple[np.ndarray, np.ndarray, int]


class PackedExamples:
    """Cuts the stream `document [SEP] document [SEP] ...` into `[CLS] chunk [SEP]` of L tokens.

    Every token of the corpus is in exactly one example, but for the rest at the end that does not
    fill one (fewer than L-2 tokens).

    Args:
      corpus: the documents.
      seq_len: L.
      tokenizer: the one the corpus was made with.

    Raises:
      DataError: if the corpus does not fill one example.

    References:
      Liu et al., RoBERTa, https://arxiv.org/abs/1907.11692, §4.2 ("FULL-SENTENCES").
    """

    def __init__(self, corpus: TokenCorpus, seq_len: int, tokenizer: Tokenizer):
        if seq_len < 3:
            raise DataError(f"data.seq_len={seq_len} leaves no room between [CLS] and [SEP]")
        self.seq_len = seq_len
        self.fingerprint = digest("packed", corpus.fingerprint, seq_len, tokenizer.hash)
        self._corpus = corpus
        self._tokenizer = tokenizer
        # Each document is followed by one separator: document d begins d places later than stored.
        self._stream_starts = corpus.document_token_starts + np.arange(corpus.num_documents + 1)
        stream_len = int(self._stream_starts[-1]) - 1
        self._len = stream_len // (seq_len - 2)
        if self._len < 1:
            raise DataError(
                f"the corpus has {corpus.num_tokens} tokens, too few for one example of "
                f"data.seq_len={seq_len}; give more text or shorter sequences"
            )

    def __len__(self) -> int:
        return self._len

    def example(self, epoch: int, index: int) -> Example:
        """Returns one example, the same in every epoch.

        Args:
          epoch: not read.
          index: 0 <= index < len(self).

        Returns:
          tokens (L,) int32; segments (L,) int32, all 0; 0, for there is no second sentence.
        """
        del epoch
        chunk_len = self.seq_len - 2
        begin = index * chunk_len
        end = begin + chunk_len
        tokens = np.full(self.seq_len, self._tokenizer.sep_id, np.int32)
        tokens[0] = self._tokenizer.cls_id
        starts = self._stream_starts
        document = int(np.searchsorted(starts, begin, side="right")) - 1
        while starts[document] < end:
            # The last place of a document in the stream is its separator, already there.
            low = max(begin, int(starts[document]))
            high = min(end, int(starts[document + 1]) - 1)
            if low < high:
                stored = self._corpus.tokens[low - document : high - document]
                tokens[1 + low - begin : 1 + high - begin] = stored
            document += 1
        return tokens, np.zeros(self.seq_len, np.int32), 0
