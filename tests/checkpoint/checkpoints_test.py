"""What is saved comes back, onto any mesh; what does not fit is named."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sibert_jax.checkpoint import CheckpointError, Checkpoints, manifest, restore_params


def tree(mesh, spec):
    where = NamedSharding(mesh, spec)
    params = {"a": {"kernel": jax.device_put(jnp.arange(64.0).reshape(8, 8), where)}}
    return params, {"step": jnp.asarray(3), "clipped": jnp.asarray(True)}


def wanted(trees, mesh, spec):
    def place(x):
        where = NamedSharding(mesh, spec if x.ndim else P())
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

    return jax.tree.map(place, trees)


def make_mesh(*shape):
    return jax.make_mesh(shape, ("x", "y"), axis_types=(AxisType.Auto,) * 2)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def spoil(path):
    """Changes one number of `params`, in a copy that any reader takes for good."""
    found = manifest.read(path)
    found.leaves["params/a/kernel"]["digest"] = "0123456789abcdef"
    found.write(path)


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    params, rest = tree(make_mesh(8, 1), P("x"))
    for step in (1, 2, 3):
        checkpoints.save(step, params, rest, {"learning_rate": 0.1 * step})
    checkpoints.wait()
    yield checkpoints, params, rest
    checkpoints.close()


def test_the_newest_are_kept_with_their_description(saved):
    checkpoints, _, _ = saved
    assert checkpoints.steps() == [2, 3]
    assert checkpoints.latest_step() == 3
    assert checkpoints.description(2) == {"learning_rate": 0.2}


def test_restoring_onto_another_mesh_gives_the_same_numbers(saved):
    checkpoints, params, rest = saved
    mesh = make_mesh(2, 4)
    target = wanted((params, rest), mesh, P("y", "x"))
    new_params, new_rest = checkpoints.restore(3, *target)
    assert new_params["a"]["kernel"].sharding.spec == P("y", "x")
    jax.tree.map(np.testing.assert_array_equal, (new_params, new_rest), (params, rest))


def test_donating_what_is_being_saved_does_not_change_the_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    params = {"a": jnp.arange(2.0**20)}
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    checkpoints.save(1, params, {"b": jnp.zeros(())}, {})
    params["a"] = overwrite(params["a"])
    checkpoints.wait()
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    restored, _ = restore_params(tmp_path, target)
    np.testing.assert_array_equal(restored["a"], np.arange(2.0**20, dtype=np.float32))
    checkpoints.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: {"a": {"kernel": jax.ShapeDtypeStruct((8, 4), "float32")}},
            r"leaf params/a/kernel .* is \(8, 8\) float32, wanted \(8, 4\) float32",
        ),
        (
            lambda p: {"a": {"kernel": jax.ShapeDtypeStruct((8, 8), "bfloat16")}},
            r"leaf params/a/kernel .* float32, wanted \(8, 8\) bfloat16",
        ),
        (
            lambda p: p | {"b": jax.ShapeDtypeStruct((2,), "float32")},
            r"has no leaf params/b \(2,\)",
        ),
        (lambda p: {}, r"has the leaf params/a/kernel \(8, 8\), which this run has not"),
    ],
)
def test_a_leaf_that_does_not_fit_is_named(saved, change, message):
    checkpoints, params, rest = saved
    target, rest = wanted((params, rest), make_mesh(8, 1), P("x"))
    with pytest.raises(CheckpointError, match=message):
        checkpoints.restore(3, change(target), rest)


def test_a_half_written_checkpoint_is_named_skipped_and_left_alone(saved, capfd):
    checkpoints, _, _ = saved
    (checkpoints.directory / "10").mkdir()
    (checkpoints.directory / "10/params").mkdir()
    (checkpoints.directory / "11.partial.orbax-checkpoint-tmp").mkdir()
    assert checkpoints.steps() == [2, 3]
    assert checkpoints.latest_step() == 3
    assert checkpoints.latest_step() == 3
    assert capfd.readouterr().err.splitlines() == [
        f"checkpoint {checkpoints.directory / '10'} is skipped: it has no manifest.json, so it was "
        "not completed."
    ]
    assert (checkpoints.directory / "10/params").is_dir()


def test_a_bad_checkpoint_is_moved_aside_when_the_run_comes_to_its_step_again(saved):
    checkpoints, params, rest = saved
    for name in ("10", "10.corrupt", "10.partial", "10.partial.orbax-checkpoint-tmp"):
        (checkpoints.directory / name).mkdir()
        (checkpoints.directory / name / "part").write_text(name)
    checkpoints.save(10, params, rest, {})
    checkpoints.wait()
    assert checkpoints.latest_step() == 10
    assert names(checkpoints.directory) == ["10", "10.corrupt", "10.corrupt2", "3"]
    assert (checkpoints.directory / "10.corrupt2/part").read_text() == "10"
    assert (checkpoints.directory / "10.corrupt/part").read_text() == "10.corrupt"


def test_retention_counts_only_what_verifies_and_removes_no_other(saved):
    checkpoints, params, rest = saved
    spoil(checkpoints.directory / "3")
    again = Checkpoints(checkpoints.directory, keep=2)  # as after a restart: nothing is known
    assert again.latest_step() == 2
    again.save(4, params, rest, {})
    again.wait()
    assert names(again.directory) == ["2", "3", "4"]
    again.save(5, params, rest, {})
    again.wait()
    assert names(again.directory) == ["3", "4", "5"]
    assert again.steps() == [4, 5]
    again.close()


def test_what_reads_back_wrong_is_no_checkpoint_and_removes_none(saved, monkeypatch):
    checkpoints, params, rest = saved
    original = manifest.make

    def make(path, step, run, leaves, digests):
        return original(path, step, run, leaves, digests | {"params/a/kernel": "0" * 16})

    monkeypatch.setattr(manifest, "make", make)
    checkpoints.save(4, params, rest, {})
    with pytest.raises(CheckpointError, match="step 4 could not .* numbers of leaf params/a/kern"):
        checkpoints.wait()
    assert [name for name in names(checkpoints.directory) if name.isdecimal()] == ["2", "3"]


def test_the_time_that_the_caller_waits_is_counted(saved):
    checkpoints, params, rest = saved
    before = checkpoints.seconds_blocked
    assert before > 0
    checkpoints.save(4, params, rest, {})
    checkpoints.wait()
    assert checkpoints.seconds_blocked > before


def test_checkpoints_after_a_step_can_be_removed(saved):
    checkpoints, _, _ = saved
    checkpoints.delete_after(2)
    assert names(checkpoints.directory) == ["2"]
    assert checkpoints.latest_step() == 2


def test_a_directory_without_checkpoints_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no complete checkpoint to start from"):
        restore_params(tmp_path / "nothing", {})


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    blocked = pathlib.Path(tmp_path / "file")
    blocked.write_text("")
    with pytest.raises(CheckpointError, match="cannot be kept in"):
        Checkpoints(blocked / "checkpoints", keep=1)
