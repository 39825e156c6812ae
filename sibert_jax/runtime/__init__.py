"""Processes, signals and clocks of a run, independent of what it trains."""
