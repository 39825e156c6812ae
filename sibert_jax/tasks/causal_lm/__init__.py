"""Left-to-right language modeling: each token of a text is predicted from the previous ones."""
