"""Tasks: each is a head, a loss, its examples, its metrics and its keys; see `registry`."""
