"""Everything worth checking and timing on a GPU or a TPU, in one command and one report."""
