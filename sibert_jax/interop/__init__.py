"""Weights in and out: Hugging Face's BERT, and SIBERT as a directory that explains itself."""
