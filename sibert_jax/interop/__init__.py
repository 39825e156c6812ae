"""Import and export of weights: Hugging Face's BERT and GPT-2, and our own format."""
