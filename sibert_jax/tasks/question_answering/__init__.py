"""Extractive question answering: SQuAD 1.1, 2.0 and files of their form.

Nothing is imported here, so that scoring a file (`python -m` on this package) needs no JAX.
"""
