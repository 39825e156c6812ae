"""What goes wrong in a run through no fault of the code: one clear sentence each."""

# Exit statuses: a fault of machine or program; what to mend is the input; training cannot go on.
FAULT, WRONG_INPUT, TRAINING_FAILED = 1, 2, 3


class ConfigError(ValueError):
    """A key, or a combination of keys, that cannot work; the message says what to change."""


class TrainingError(RuntimeError):
    """Training that cannot go on, such as a loss that is not finite."""


class FaultError(RuntimeError):
    """A machine that cannot be trusted; the run itself may go on elsewhere."""
