"""Tools that look at a run or a configuration, or start several runs."""
