"""Speed and memory, always beside a rival that was measured in the same minutes."""
