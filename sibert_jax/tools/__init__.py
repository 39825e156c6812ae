"""What only looks at a run or at a configuration, or starts several."""
