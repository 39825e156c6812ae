"""A byte, half a file or a whole file that is wrong: found, or shown not to matter."""

import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from sibert_jax.checkpoint import CheckpointError, Checkpoints, restore_params
from sibert_jax.checkpoint import directory as names
from sibert_jax.checkpoint import manifest as manifests
from sibert_jax.checkpoint import verify as verifying
from sibert_jax.checkpoint.verify import ITEMS, problem_of, read_leaves, verify
from sibert_jax.errors import CorruptError
from tests.checkpoint.conftest import abstract, make_state

ROOT = pathlib.Path(__file__).parents[2]


def flip(position):
    def change(path):
        content = bytearray(path.read_bytes())
        content[int(position * (len(content) - 1))] ^= 0x10
        path.write_bytes(bytes(content))

    return change


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


CHANGES = {
    "first byte": flip(0),
    "middle byte": flip(0.5),
    "last byte": flip(1),
    "half": truncate,
    "missing": pathlib.Path.unlink,
}


def files_of(path):
    return sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())


@pytest.fixture
def copy(two, tmp_path):
    return shutil.copytree(two / "checkpoints", tmp_path / "checkpoints")


@pytest.mark.parametrize("limit", [0, 100, 1 << 26])
def test_leaves_are_read_in_groups_of_limited_size_to_the_same_numbers(two, monkeypatch, limit):
    monkeypatch.setattr(verifying, "READ_BYTES", limit)
    for item in ITEMS:
        read = list(read_leaves(two / "checkpoints" / "2", item))
        stated = verify(two / "checkpoints" / "2").leaves
        assert [name for name, _ in read] == sorted(n for n in stated if n.startswith(f"{item}/"))
        for name, array in read:
            verifying.check_leaf(name, array, stated[name])


@pytest.mark.parametrize("limit", [0, 10, 100])
def test_a_group_is_a_run_of_leaves_within_the_limit_or_one_leaf(monkeypatch, limit):
    monkeypatch.setattr(verifying, "READ_BYTES", limit)
    sizes = [4, 4, 4, 20, 4, 96, 1, 4]
    groups = list(verifying._groups(sizes))
    assert [i for group in groups for i in group] == list(range(len(sizes)))
    assert all(len(g) == 1 or sum(sizes[i] for i in g) <= limit for g in groups)
    assert len(groups) == {0: 8, 10: 6, 100: 3}[limit]
    assert list(verifying._groups([])) == []


def changed_in_turn(path, change):
    """Yields each file's name while that file, and no other, is changed."""
    for name in files_of(path):
        before = (path / name).read_bytes()
        CHANGES[change](path / name)
        yield name
        (path / name).write_bytes(before)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_any_file_is_found(copy, change):
    names = []
    for name in changed_in_turn(copy / "2", change):
        names.append(name)
        with pytest.raises(CorruptError):
            verify(copy / "2")
    verify(copy / "2")
    assert len(names) > 20


# On a machine under load, Orbax complains later than `verify` listens.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("change", ["middle byte", "half", "missing"])
def test_where_only_the_numbers_are_compared_a_change_is_found_or_does_not_matter(
    copy, monkeypatch, change
):
    """What large files go through: their bytes are not hashed, their leaves are."""
    monkeypatch.setattr(manifests, "check_files", lambda path, manifest: None)
    good = {item: dict(read_leaves(copy / "2", item)) for item in ITEMS}
    outcomes = []
    for name in changed_in_turn(copy / "2", change):
        outcomes.append(bool(problem_of(copy / "2")))
        if not outcomes[-1]:
            for item in ITEMS:
                for leaf, array in read_leaves(copy / "2", item):
                    assert array.tobytes() == good[item][leaf].tobytes(), (name, leaf)
    assert 0 < sum(outcomes) < len(outcomes)


def test_a_large_file_is_watched_over_by_the_digests(copy, monkeypatch):
    """A changed number that every layer below takes for good."""
    monkeypatch.setattr(manifests, "HASHED_BYTES", 0)
    found = manifests.read(copy / "2")
    for name in found.files:
        found.files[name]["sha256"] = ""
    found.write(copy / "2")
    verify(copy / "2")
    shutil.rmtree(copy / "2/params")
    shutil.copytree(copy / "1/params", copy / "2/params")
    monkeypatch.setattr(manifests, "check_files", lambda path, manifest: None)
    with pytest.raises(CorruptError, match="numbers of leaf params/encoder/embed/token have chang"):
        verify(copy / "2")
    params, rest = make_state(2)
    wrong = pytest.raises(CheckpointError, match="leaf params/encoder/embed/token .* not what was")
    with Checkpoints(copy, keep=3) as checkpoints, wrong:
        checkpoints.restore(2, abstract(params), abstract(rest))


@pytest.mark.parametrize("change", ["middle byte", "missing"])
def test_the_older_one_is_resumed_from_and_the_newer_named(copy, capfd, change):
    victim = max(files_of(copy / "2"), key=lambda name: (copy / "2" / name).stat().st_size)
    before = files_of(copy / "1")
    CHANGES[change](copy / "2" / victim)
    left = files_of(copy / "2")
    with Checkpoints(copy, keep=3) as checkpoints:
        step = checkpoints.latest_step()
        params, rest = make_state(1)
        restored = checkpoints.restore(step, abstract(params), abstract(rest))
    assert step == 1
    jax.tree.map(np.testing.assert_array_equal, restored, (params, rest))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"checkpoint {copy / '2'} is skipped: ")
    assert files_of(copy / "2") == left
    assert files_of(copy / "1") == before


def test_a_source_that_is_corrupt_is_named_and_the_older_taken(copy, capfd):
    truncate(copy / "2/params/_METADATA")
    params, _ = make_state(1)
    restored, step = restore_params(copy.parent, abstract(params))
    assert step == 1
    jax.tree.map(np.testing.assert_array_equal, restored, params)
    assert "2 is skipped: file params/_METADATA has" in capfd.readouterr().err


def test_none_that_verifies_is_none(copy):
    for step in "12":
        (copy / step / "manifest.json").write_text("{}")
    with Checkpoints(copy, keep=3) as checkpoints:
        assert checkpoints.latest_step() is None
        assert checkpoints.steps() == []
    with pytest.raises(CheckpointError, match="no complete checkpoint to start from"):
        restore_params(copy, {})


def test_a_manifest_of_a_later_format_is_no_corruption(copy):
    found = manifests.read(copy / "2")
    for step in "12":
        later = dict(vars(found)) | {"format": 2}
        manifests.Manifest(**later).write(copy / step)
    wrong = pytest.raises(CheckpointError, match="has format 2, this version .* reads 1")
    with Checkpoints(copy, keep=3) as checkpoints, wrong:
        checkpoints.latest_step()


KILLED = """
import os, sys, threading, time
import jax
jax.config.update("jax_platforms", "cpu")
sys.path.insert(0, ".")
from sibert_jax.checkpoint import Checkpoints
from tests.checkpoint.conftest import DESCRIPTION, make_state

checkpoints = Checkpoints(sys.argv[1], keep=2)
step = (checkpoints.latest_step() or 0) + 1
since = time.monotonic()
checkpoints.save(step, *make_state(step), DESCRIPTION)
checkpoints.wait()
seconds = float(sys.argv[2]) * (time.monotonic() - since)
threading.Timer(seconds, lambda: os.kill(os.getpid(), 9)).start()
while True:
    step += 1
    checkpoints.save(step, *make_state(step), DESCRIPTION)
"""


@pytest.mark.slow
def test_whenever_the_writer_is_killed_the_newest_verifies_and_nothing_piles_up(tmp_path):
    newest, num_killed = 0, 16
    for i in range(num_killed):  # anywhere in two saves, and in the removal of the oldest
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(2 * i / num_killed)]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
        with Checkpoints(tmp_path, keep=2) as checkpoints:
            assert checkpoints.latest_step() == max(checkpoints.steps()) > newest
            newest = checkpoints.latest_step()
            assert all(not checkpoints._problem(step) for step in names.steps_in(tmp_path))
            assert len(list(tmp_path.iterdir())) <= 6
