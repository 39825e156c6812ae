"""Use a trained model in Python: text to vectors, labels, tokens and answers."""
