"""What is saved comes back, onto any mesh; what does not fit is named."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sibert_jax.checkpoint import CheckpointError, Checkpoints, manifest, restore_params


def wanted(trees, mesh, spec):
    def place(x):
        where = NamedSharding(mesh, spec if x.ndim else P())
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

    return jax.tree.map(place, trees)


def make_mesh(*shape):
    return jax.make_mesh(shape, ("x", "y"), axis_types=(AxisType.Auto,) * 2)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A directory into which three steps were saved, of which two are kept, and the state."""
    directory, whole = tmp_path_factory.mktemp("three"), jnp.arange(64.0).reshape(8, 8)
    params = {"a": {"kernel": jax.device_put(whole, NamedSharding(make_mesh(8, 1), P("x")))}}
    rest = {"step": jnp.asarray(3), "clipped": jnp.asarray(True)}
    with Checkpoints(directory, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, params, rest, {"learning_rate": 0.1 * step})
    return directory, params, rest


@pytest.fixture
def saved(three, tmp_path):
    directory, params, rest = three
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        yield checkpoints, params, rest


def test_the_newest_are_kept_and_restored_onto_any_mesh(saved):
    checkpoints, params, rest = saved
    assert names(checkpoints.directory) == ["2", "3"]
    assert (checkpoints.steps(), checkpoints.latest_step()) == ([2, 3], 3)
    assert checkpoints.description(2) == {"learning_rate": 0.2}
    target = wanted((params, rest), make_mesh(2, 4), P("y", "x"))
    new_params, new_rest = checkpoints.restore(3, *target)
    assert new_params["a"]["kernel"].sharding.spec == P("y", "x")
    jax.tree.map(np.testing.assert_array_equal, (new_params, new_rest), (params, rest))


def test_donating_what_is_being_saved_does_not_change_it(tmp_path):
    params = {"a": jnp.arange(2.0**20)}
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, params, {"b": jnp.zeros(())}, {})
        before = checkpoints.seconds_blocked
        params["a"] = overwrite(params["a"])
        checkpoints.wait()
        assert checkpoints.seconds_blocked > before > 0
    target = {"a": jax.ShapeDtypeStruct((2**20,), "float32")}
    restored, _ = restore_params(tmp_path, target)
    np.testing.assert_array_equal(restored["a"], np.arange(2.0**20, dtype=np.float32))


def kernel(*shape, dtype="float32"):
    return {"a": {"kernel": jax.ShapeDtypeStruct(shape, dtype)}}


MISFITS = {
    r"leaf params/a/kernel .* \(8, 8\) float32, expected \(8, 4\)": kernel(8, 4),
    r"leaf params/a/kernel .* expected \(8, 8\) bfloat16": kernel(8, 8, dtype="bfloat16"),
    r"has no leaf params/b/kernel \(2,\)": kernel(8, 8) | {"b": kernel(2)["a"]},
    r"has the leaf params/a/kernel \(8, 8\), which this run does not have": {},
}


@pytest.mark.parametrize("message", MISFITS)
def test_a_leaf_that_does_not_fit_is_named(saved, message):
    checkpoints, _, rest = saved
    with pytest.raises(CheckpointError, match=message):
        checkpoints.restore(3, MISFITS[message], wanted(rest, make_mesh(8, 1), P()))


def test_an_incomplete_checkpoint_is_skipped_and_left_alone(saved, capfd):
    checkpoints, _, _ = saved
    (checkpoints.directory / "10/params").mkdir(parents=True)
    (checkpoints.directory / "11.orbax-checkpoint-tmp").mkdir()
    assert checkpoints.steps() == [2, 3]
    assert [checkpoints.latest_step(), checkpoints.latest_step()] == [3, 3]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"checkpoint {checkpoints.directory / '10'} is skipped: it has no manif")
    assert names(checkpoints.directory) == ["10", "11.orbax-checkpoint-tmp", "2", "3"]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_bad_checkpoint_is_set_aside_at_its_step(saved, restarted):
    checkpoints, params, rest = saved
    for name in ("10", "10.corrupt", "10.orbax-checkpoint-tmp", "9.retired"):
        (checkpoints.directory / name).mkdir()
        (checkpoints.directory / name / "part").write_text(name)
    with Checkpoints(checkpoints.directory, keep=1) as again:
        again = again if restarted else checkpoints
        again.save(10, params, rest, {})
        again.wait()
        assert again.latest_step() == 10
    left = ["10", "10.corrupt", "10.corrupt2", *([] if restarted else ["3"])]
    assert names(checkpoints.directory) == left
    assert (checkpoints.directory / "10.corrupt2/part").read_text() == "10"


def test_retention_counts_only_what_verifies(saved):
    checkpoints, params, rest = saved
    found = manifest.read(checkpoints.directory / "3")
    found.leaves["params/a/kernel"]["digest"] = "0123456789abcdef"
    found.write(checkpoints.directory / "3")
    with Checkpoints(checkpoints.directory, keep=2) as again:  # after a restart
        for step, left in ((4, ["2", "3", "4"]), (5, ["3", "4", "5"])):
            again.save(step, params, rest, {})
            again.wait()
            assert names(again.directory) == left
        assert again.steps() == [4, 5]


def test_what_cannot_be_written_replaces_nothing(saved):
    checkpoints, params, rest = saved
    checkpoints.save(4, params, rest, {"not for JSON": object()})
    with pytest.raises(CheckpointError, match=r"step 4 could not be written .*: \[2, 3\]; free"):
        checkpoints.wait()
    assert names(checkpoints.directory) == ["2", "3"]
    checkpoints.save(4, params, rest, {})
    checkpoints.wait()
    assert checkpoints.steps() == [3, 4]


def test_checkpoints_after_a_step_are_removed_and_written_again(saved):
    checkpoints, params, rest = saved
    checkpoints.delete_after(2)
    assert names(checkpoints.directory) == ["2"]
    assert checkpoints.latest_step() == 2
    checkpoints.save(3, params, rest, {})
    checkpoints.wait()
    assert checkpoints.steps() == [2, 3]


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be kept in"):
        Checkpoints(tmp_path / "file/checkpoints", keep=1)
