"""A run: from its config to the last step."""
