"""Fine-tuning on questions whose answer is a span of a context, as in SQuAD.

Nothing is imported here, so that scoring a file (`python -m` on this package) works without JAX.
"""
