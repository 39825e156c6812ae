"""What goes wrong with checkpoints: one clear sentence each."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or restored; the message says which and why."""


class CorruptError(CheckpointError):
    """A checkpoint that is not what was written: half of it, or changed since."""
