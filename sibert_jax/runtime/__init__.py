"""Processes, signals and clocks of a run: what it stands on, whatever it trains."""
