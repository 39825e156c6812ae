"""Language modeling from left to right: each token of a text from the ones before it."""
