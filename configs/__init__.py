"""Configurations of runs; `--config=NAME` finds them by name, from an installed package too."""
