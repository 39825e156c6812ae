"""Checks of the keys of a configuration, each with one sentence that names the key."""

from sibert_jax.errors import ConfigError


def one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses a value that is none of the choices."""
    if value not in choices:
        raise ConfigError(f"{key}={value!r} is unknown; choose one of {list(choices)}.")


def at_least(section: str, values, low: float, *names: str) -> None:
    """Refuses fields of a section that are below a bound."""
    for name in names:
        if not getattr(values, name) >= low:
            raise ConfigError(f"{section}.{name}={getattr(values, name)} must be at least {low}.")


def check_fraction(key: str, value: float) -> None:
    """Refuses a value outside of [0, 1)."""
    if not 0 <= value < 1:
        raise ConfigError(f"{key}={value} must lie in [0, 1).")
