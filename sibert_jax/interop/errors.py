"""The one exception of the interop package."""


class InteropError(ValueError):
    """Weights that do not fit; the message names the file or tensor, what is and what should be."""
