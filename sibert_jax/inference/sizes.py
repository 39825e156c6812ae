"""The batch sizes and lengths that programs are compiled for."""

SHORTEST = 16  # tokens


def seq_lens(most: int) -> tuple[int, ...]:
    """Returns the lengths that texts of at most `most` tokens are padded to.

    Example:
      >>> seq_lens(100)
      (16, 32, 64, 100)
    """
    lengths = [SHORTEST]
    while lengths[-1] < most:
        lengths.append(2 * lengths[-1])
    return (*lengths[:-1], most)


def power_of_two(count: int) -> int:
    """Returns the smallest power of two that is at least `count` >= 1.

    Example:
      >>> power_of_two(5)
      8
    """
    return 1 << (count - 1).bit_length()
