"""Masked-language modeling with optional next-sentence prediction, as in BERT."""
