"""Training runs, from the config to the last step."""
