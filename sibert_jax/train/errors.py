"""What goes wrong in a run through no fault of the code: one clear sentence each."""

# Exit statuses: what to mend is the input, or training itself could not go on.
WRONG_INPUT, TRAINING_FAILED = 2, 3


class ConfigError(ValueError):
    """A key, or a combination of keys, that cannot work; the message says what to change."""


class TrainingError(RuntimeError):
    """Training that cannot go on, such as a loss that is not finite."""
