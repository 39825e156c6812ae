"""The block of an array that one program of a kernel sees, by letters of dimensions."""

from collections.abc import Mapping

from jax.experimental import pallas as pl


def block_spec(letters: str, blocks: Mapping[str, int | None], grid: str) -> pl.BlockSpec:
    """The blocks of an array.

    Args:
      letters: of the array's dimensions, "BHLK".
      blocks: the length of a block for each letter; None: one index, and no dimension for it.
      grid: letters of the grid's axes; along the others the block is the first one.

    Example:
      >>> spec = block_spec("BHLK", {"B": None, "H": None, "L": 64, "K": 128}, "BHL")
    """

    def index(*program):
        place = dict(zip(grid, program))
        return tuple(place.get(letter, 0) for letter in letters)

    return pl.BlockSpec(tuple(blocks[letter] for letter in letters), index)
