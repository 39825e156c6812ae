"""Configs of runs; `--config=NAME` finds them by name, also in an installed package."""
