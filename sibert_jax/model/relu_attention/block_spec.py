"""The block of an array that one kernel program sees, given by dimension letters."""

from collections.abc import Mapping

from jax.experimental import pallas as pl


def block_spec(letters: str, blocks: Mapping[str, int | None], grid: str) -> pl.BlockSpec:
    """Returns the `BlockSpec` of an array.

    Args:
      letters: the array's dimensions, such as "BHLK".
      blocks: the block length per letter; None: a single index, whose dimension is dropped.
      grid: the letters of the grid axes; along other dimensions the first block is taken.

    Example:
      >>> spec = block_spec("BHLK", {"B": None, "H": None, "L": 64, "K": 128}, "BHL")
    """

    def index(*program):
        place = dict(zip(grid, program))
        return tuple(place.get(letter, 0) for letter in letters)

    return pl.BlockSpec(tuple(blocks[letter] for letter in letters), index)
