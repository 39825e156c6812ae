"""Checkpoints that earlier versions wrote still verify and restore.

A failure means that old runs cannot be resumed any more: mend the reader, keep the fixtures.
"""

import pathlib

import numpy as np
import pytest

from sibert_jax.checkpoint import Checkpoints
from sibert_jax.checkpoint.read import verify
from tests.checkpoint.conftest import DESCRIPTION, abstract, make_state

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("version", ["0.10.2", "0.12.0"])
def test_a_checkpoint_of_another_jax_verifies_and_restores(version, tmp_path):
    found = verify(FIXTURES / f"jax_{version}/1")
    assert (found.step, found.versions["jax"][:6], found.run) == (1, version, DESCRIPTION)
    (tmp_path / "1").symlink_to(FIXTURES / f"jax_{version}/1")
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.latest_step() == 1
        _, rest = checkpoints.restore(1, *map(abstract, make_state(1)))
    assert int(rest["step"]) == int(rest["opt_state"][0].count) == 1
    np.testing.assert_array_equal(rest["opt_state"][0].mu["nsp"]["kernel"], np.ones((4, 2)))
