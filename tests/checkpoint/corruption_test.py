"""A byte, half a file or a whole file that is wrong is found; what earlier versions wrote is good.

If that fails, old runs cannot be resumed: mend the reader, keep the fixtures.
"""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from sibert_jax.checkpoint import (
    CheckpointError,
    Checkpoints,
    commands,
    read,
    restore_params,
    steps_in,
)
from sibert_jax.checkpoint import manifest as manifests
from sibert_jax.checkpoint.manifest import ITEMS
from sibert_jax.checkpoint.read import problem_of, read_leaves, verify
from sibert_jax.errors import CorruptError
from tests.checkpoint.conftest import DESCRIPTION, ROOT, abstract, make_state


def flip(position):
    def change(content):
        at = int(position * (len(content) - 1))
        return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]

    return change


CHANGES = {
    "first byte": flip(0),
    "middle byte": flip(0.5),
    "last byte": flip(1),
    "half": lambda content: content[: len(content) // 2],
    "missing": lambda content: None,
}


def damage(path, change):
    """Changes a file; returns what it was."""
    before = path.read_bytes()
    after = CHANGES[change](before)
    path.unlink() if after is None else path.write_bytes(after)
    return before


@pytest.fixture
def copy(two, tmp_path):
    return shutil.copytree(two / "checkpoints", tmp_path / "checkpoints")


@pytest.mark.parametrize(("limit", "count"), [(0, 1), (100, 3), (1 << 26, 3)])
def test_shares_of_any_size_add_up_to_all_leaves(two, monkeypatch, limit, count):
    monkeypatch.setattr(read, "READ_BYTES", limit)
    path = two / "checkpoints/2"
    found = []
    for index in range(count):
        verify(path, (index, count))
        found += [name for item in ITEMS for name, _ in read_leaves(path, item, (index, count))]
    assert sorted(found) == sorted(manifests.read(path).leaves)


def changed_in_turn(path, names, change):
    """Yields each file's name while that file, and no other, is changed."""
    for name in names:
        before = damage(path / name, change)
        yield name
        (path / name).write_bytes(before)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_any_file_is_found(copy, change):
    names = [manifests.NAME, *manifests.read(copy / "2").files]
    assert len(names) > 20
    for name in changed_in_turn(copy / "2", names, change):
        assert problem_of(copy / "2"), name
    verify(copy / "2")


def without_files(path):
    """Makes the manifest say nothing of the files, as it says little of large ones."""
    found = manifests.read(path)
    files = list(found.files)
    found.files.clear()
    found.write(path)
    return files


# On a machine under load, Orbax complains later than `verify` listens.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("change", "stride"),
    [
        ("missing", 3),
        *(pytest.param(x, 1, marks=pytest.mark.slow) for x in ("missing", "half", "middle byte")),
    ],
)
def test_by_the_numbers_alone_a_change_is_found_or_harmless(copy, change, stride):
    """What large files go through: their bytes are not hashed, their leaves are."""
    files, path = without_files(copy / "2")[::stride], copy / "2"
    good = {item: dict(read_leaves(path, item)) for item in ITEMS}
    outcomes = []
    for name in changed_in_turn(path, files, change):
        outcomes.append(bool(problem_of(path)))
        if not outcomes[-1]:
            for item in ITEMS:
                for leaf, array in read_leaves(path, item):
                    assert array.tobytes() == good[item][leaf].tobytes(), (name, leaf)
    assert 0 < sum(outcomes) < len(outcomes)


def test_of_a_file_above_1_mib_list_sees_the_size_and_verify_the_numbers(tmp_path):
    numbers = jax.random.normal(jax.random.key(0), (400_000,))
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"a": numbers}, {"b": np.zeros(1)}, {})
    large = max(tmp_path.rglob("d/*"), key=lambda path: path.stat().st_size)
    assert large.stat().st_size > 1 << 20

    def listed():
        return list(commands.list_all(tmp_path))[1]

    content = damage(large, "middle byte")
    assert listed().endswith("files ok")
    (line,), good = commands.verify_all(tmp_path)
    assert (line[:7], good) == ("1: BAD:", False)
    large.write_bytes(content[:-1])
    assert f"has {len(content) - 1} bytes instead of {len(content)}" in listed()


def test_other_numbers_in_good_files_are_found(copy):
    without_files(copy / "2")
    shutil.rmtree(copy / "2/params")
    shutil.copytree(copy / "1/params", copy / "2/params")
    with pytest.raises(CorruptError, match="numbers of leaf params/encoder/embed/token have chang"):
        verify(copy / "2")
    wrong = pytest.raises(CheckpointError, match="leaf params/encoder/embed/token .* not what was")
    with Checkpoints(copy, keep=3) as checkpoints, wrong:
        checkpoints.restore(2, *map(abstract, make_state(2)))


@pytest.mark.parametrize("change", ["middle byte", "missing"])
def test_the_older_one_is_used_and_the_newer_named(copy, capfd, change):
    def files():
        return sorted(file for file in copy.rglob("*") if file.is_file())

    damage(max((copy / "2/params/d").iterdir(), key=lambda file: file.stat().st_size), change)
    left, (params, rest) = files(), make_state(1)
    with Checkpoints(copy, keep=3) as checkpoints:
        step = checkpoints.latest_step()
        restored = checkpoints.restore(step, abstract(params), abstract(rest))
    jax.tree.map(np.testing.assert_array_equal, restored, (params, rest))
    other, step = restore_params(copy.parent, abstract(params))
    assert step == 1
    jax.tree.map(np.testing.assert_array_equal, other, params)
    said = f"checkpoint {copy / '2'} is skipped: "
    assert [line[: len(said)] for line in capfd.readouterr().err.splitlines()] == [said] * 2
    assert files() == left


def test_none_that_verifies_is_none(copy):
    for step in "12":
        (copy / step / "manifest.json").write_text("{}")
    with Checkpoints(copy, keep=3) as checkpoints:
        assert checkpoints.latest_step() is None
        assert checkpoints.steps() == []
    with pytest.raises(CheckpointError, match="no complete checkpoint to start from"):
        restore_params(copy, {})


def test_a_manifest_of_a_later_format_is_no_corruption(copy):
    later = vars(manifests.read(copy / "2")) | {"format": 2}
    manifests.Manifest(**later).write(copy / "2")
    wrong = pytest.raises(CheckpointError, match="has format 2, this version .* reads 1")
    with Checkpoints(copy, keep=3) as checkpoints, wrong:
        checkpoints.latest_step()


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


KILLED = """
import json, os, sys, threading, time
import jax
jax.config.update("jax_platforms", "cpu")
from sibert_jax.checkpoint import Checkpoints
from tests.checkpoint.conftest import DESCRIPTION, make_state

directory, fraction = json.loads(sys.argv[1])
checkpoints = Checkpoints(directory, keep=2)
step = (checkpoints.latest_step() or 0) + 1
since = time.monotonic()
checkpoints.save(step, *make_state(step), DESCRIPTION)
checkpoints.wait()
seconds = fraction * (time.monotonic() - since)
threading.Timer(seconds, lambda: os.kill(os.getpid(), 9)).start()
while True:
    step += 1
    checkpoints.save(step, *make_state(step), DESCRIPTION)
"""


@pytest.mark.slow
def test_after_a_kill_at_any_time_the_newest_verifies(tmp_path):
    newest, num_killed = 0, 16
    for i in range(num_killed):  # anywhere in two saves, and in the removal of the oldest
        arguments = json.dumps([str(tmp_path), 2 * i / num_killed])
        command = [sys.executable, "-c", KILLED, arguments]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
        assert not any(problem_of(tmp_path / str(step)) for step in steps_in(tmp_path))
        with Checkpoints(tmp_path, keep=2) as checkpoints:
            assert checkpoints.latest_step() > newest
            newest = checkpoints.latest_step()
        assert len(list(tmp_path.iterdir())) <= 6  # nothing piles up
