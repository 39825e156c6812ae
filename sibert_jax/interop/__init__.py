"""Weights in and out: Hugging Face's BERT and GPT-2, and a format of our own."""
