"""Masked-language modeling with optional next-sentence prediction, as BERT is pretrained."""
