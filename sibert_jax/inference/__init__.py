"""A trained model in Python: text to vectors, labels, words and answers."""
