"""Quantization settings."""

import dataclasses

from sibert_jax.errors import ConfigError

BITS, METHODS = (2, 3, 4, 8), ("rtn", "signround")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Bits, groups and method; each field is an option of the command.

    Attributes:
      bits: bits per matrix weight: 2, 3, 4 or 8.
      group: consecutive inputs that share a scale, usually 32, 64 or 128; -1: all inputs.
      method: "rtn", round to nearest, or "signround", tuned by signed gradient descent.
      symmetric: whether to omit zero points.
      tables: bits per weight of embedding tables; 0: they stay float32.
      steps: tuning steps per block.
      seed: random seed of the batch order.

    Raises:
      ConfigError: a value is out of range.
    """

    bits: int = 4
    group: int = 64
    method: str = "signround"
    symmetric: bool = False
    tables: int = 8
    steps: int = 200
    seed: int = 0

    def __post_init__(self):
        for name, choices in (("bits", BITS), ("tables", (0, *BITS)), ("method", METHODS)):
            if getattr(self, name) not in choices:
                words = ", ".join(map(str, choices))
                raise ConfigError(f"--{name}={getattr(self, name)} must be one of {words}.")
        if self.group != -1 and self.group < 2:
            raise ConfigError(
                f"--group={self.group} must be at least 2, or -1 for one group per output."
            )
        if self.steps < 1:
            raise ConfigError(f"--steps={self.steps} must be at least 1.")
