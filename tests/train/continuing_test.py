"""A second phase continues where the first one ended; what it changes is said, or refused."""

import jax
import numpy as np
import pytest

from sibert_jax.checkpoint.read import read_leaves
from sibert_jax.errors import EXPECTED
from tests.train.length_test import constant, finished
from tests.train.metrics_rows import rows

__all__ = ["finished"]


def second(config, finished, num_steps=12):
    constant(config, num_steps)
    config.checkpoint.continue_from = str(finished)
    return config


@pytest.mark.slow
def test_with_nothing_changed_but_the_length_it_is_the_longer_run(
    plain, train_one, finished, tmp_path, capfd
):
    straight = train_one(constant(plain, 12), tmp_path / "straight")
    capfd.readouterr()
    continued = train_one(second(plain, finished), tmp_path / "second")
    said = capfd.readouterr().err
    assert "/6 at step 6, with its optimizer state" in said
    assert "changed: train.num_steps: 6 -> 12\n" in said
    assert "η at step 6 stays 0.001 (constant)" in said
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get((straight, continued)))
    assert rows(tmp_path / "second") == [
        row for row in rows(tmp_path / "straight") if row["step"] > 6
    ]


@pytest.mark.slow
def test_new_positions_are_drawn_at_the_scale_of_the_others(
    plain, train_one, finished, tmp_path, capfd
):
    plain.data.seq_len = 48
    plain.model.max_len = None  # as in a config without sizes
    plain.train.on_bad_step = "rollback"  # has a checkpoint of the start
    train_one(second(plain, finished, 7), tmp_path)
    said = capfd.readouterr().err
    assert "positions 32 to 47 are newly initialized at the scale of the others" in said
    for change in ("model.max_len: 32 -> 48", "data.seq_len: 32 -> 48"):
        assert change in said
    before, after = (
        {
            name: leaf
            for item in ("params", "rest")
            for name, leaf in read_leaves(directory / "checkpoints/6", item)
        }
        for directory in (finished, tmp_path)
    )
    assert before.keys() == after.keys()
    longer = [name for name in before if before[name].shape != after[name].shape]
    assert len(longer) == 3  # the table and two moments
    for name in before.keys() - set(longer):
        if not name.startswith("rest/window"):
            np.testing.assert_array_equal(before[name], after[name])
    for name in longer:
        assert name.endswith("encoder/embed/position")
        np.testing.assert_array_equal(after[name][:32], before[name])
        new = after[name][32:]
        wanted = np.sqrt(np.mean(np.square(before[name]))) if name.startswith("params") else 0
        assert np.sqrt(np.mean(np.square(new))) == pytest.approx(wanted, rel=1e-5)


BAD = [
    ({"checkpoint.init_from": "x"}, "are both set; init_from takes parameters only"),
    ({"train.num_steps": 6}, "is at step 6, and the run ends at step 6: train.num_steps and"),
    ({"optim.name": "lamb"}, "optim.name is 'adamw' there and 'lamb' here, so its opt"),
    ({"model.width": 32}, "model.width is 16 there, 32 here"),
    ({"model.max_len": 16, "data.seq_len": 16}, "model.max_len is 32 there, 16 here"),
    ({"checkpoint.continue_from": "nowhere"}, "continue_from=nowhere: there is no such directory"),
    ({"task.nsp": True, "model.num_segments": 2}, "model.num_segments is 1 there, 2 here"),
    ({"task.head": "tied"}, "head/output is .* there and absent here, and only the position"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "message"), BAD)
def test_what_cannot_go_on_is_one_sentence(plain, train_one, finished, tmp_path, changes, message):
    second(plain, finished).update_from_flattened_dict(changes)
    with pytest.raises(EXPECTED, match=message):
        train_one(plain, tmp_path / "second")
    assert not (tmp_path / "second").exists()
