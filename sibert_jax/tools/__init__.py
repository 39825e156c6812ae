"""Tools that inspect a run or a config, or start several runs."""
