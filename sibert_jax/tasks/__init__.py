"""Tasks: each defines a head, a loss, examples, metrics and config keys; see `registry`."""
