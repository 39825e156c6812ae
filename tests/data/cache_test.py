"""Entries are built once and atomically, and are checked when they are read."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from sibert_jax.data import DataError
from sibert_jax.data.cache import ABANDONED_SECONDS, BUILDING_PREFIX, MANIFEST, Cache


@pytest.fixture
def said():
    return []


@pytest.fixture
def cache(tmp_path, said, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return Cache("~/cache", said.append)


class Build:
    """Writes one file and counts how often it was asked to."""

    def __init__(self, content="content"):
        self.content, self.count = content, 0

    def __call__(self, directory):
        self.count += 1
        (directory / "a").write_text(self.content)
        return {"answer": 42}


def leftovers(cache):
    return list(cache.directory.glob(f"{BUILDING_PREFIX}*"))


def with_manifest(change):
    def damage(path):
        manifest = json.loads((path / MANIFEST).read_text())
        change(manifest)
        (path / MANIFEST).write_text(json.dumps(manifest))

    return damage


DAMAGES = {
    "other content": (lambda p: (p / "a").write_text("Content"), "a has another hash"),
    "file gone": (lambda p: (p / "a").unlink(), "a is missing"),
    "manifest gone": (lambda p: (p / MANIFEST).unlink(), "manifest.json is missing"),
    "manifest cut": (lambda p: (p / MANIFEST).write_text('{"for'), "manifest.json cannot be read"),
    "other format": (with_manifest(lambda m: m.update(format=-1)), "is of another entry"),
    "other key": (with_manifest(lambda m: m.update(key="b")), "is of another entry"),
    "no files": (with_manifest(lambda m: m.pop("files")), "manifest.json cannot be read"),
    "a file": (lambda p: (shutil.rmtree(p), p.touch()), "manifest.json cannot be read"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_corrupt_entry_is_rebuilt_and_the_fault_named(cache, said, name):
    damage, fault = DAMAGES[name]
    build = Build()
    path, manifest = dataclasses.astuple(cache.load_or_build("key", build))
    assert manifest["answer"] == 42
    damage(path)
    for _ in range(2):
        entry = cache.load_or_build("key", build)
        assert (entry.path / "a").read_text() == "content"
        assert entry.manifest["files"] == manifest["files"]  # nothing in it depends on the time
    assert build.count == 2
    (line,) = said
    assert line.startswith(f"rebuilding the corrupt cache {path}: ")
    assert line.endswith(fault)
    assert not leftovers(cache)


def test_contents_are_hashed_only_if_the_time_changed(cache, said):
    file = cache.load_or_build("key", Build()).path / "a"
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    os.utime(file, (1, 1))  # as a copy would
    cache.load_or_build("key", Build())
    assert file.stat().st_mtime_ns == times[1]  # hashed once, then trusted
    file.write_text("Content")
    os.utime(file, ns=times)
    cache.load_or_build("key", Build())
    assert not said
    file.touch()
    cache.load_or_build("key", Build())
    assert said[0].endswith("a has another hash")


def test_a_build_that_fails_leaves_nothing(cache):
    def fail(directory):
        (directory / "a").write_text("half")
        raise DataError("bad text")

    with pytest.raises(DataError, match=r"^bad text$"):
        cache.load_or_build("key", fail)
    assert not (cache.directory / "key").exists()
    assert not leftovers(cache)


@pytest.mark.parametrize(("damaged", "kept"), [(False, "theirs"), (True, "ours")])
def test_of_two_builds_at_once_the_first_good_one_wins(cache, tmp_path, damaged, kept):
    other = Cache(str(tmp_path / "cache"), print)

    def build_while_another_finishes(directory):
        (directory / "a").write_text("ours")
        theirs = other.load_or_build("key", Build("theirs")).path
        if damaged:
            (theirs / "a").write_text("t")
        return {}

    entry = cache.load_or_build("key", build_while_another_finishes)
    assert (entry.path / "a").read_text() == kept
    assert not leftovers(cache)


def test_what_dead_builds_left_is_removed_after_a_day(tmp_path):
    cache = Cache(str(tmp_path), print)
    old, new = (tmp_path / f"{BUILDING_PREFIX}{name}" for name in ("old", "new"))
    yesterday = time.time() - 2 * ABANDONED_SECONDS
    for path in (old, new):
        path.mkdir()
        (path / "a").write_text("half")
    for path in (old / "a", old):
        os.utime(path, (yesterday, yesterday))
    Cache(str(tmp_path), print)
    assert leftovers(cache) == [new]


def test_a_source_is_read_again_only_if_its_size_or_time_changed(cache, tmp_path):
    path = tmp_path / "a.txt"

    def sha256_of(text, mtime_ns):
        path.write_text(text)
        os.utime(path, ns=(0, mtime_ns))
        return cache.source_sha256(path)

    first = sha256_of("one", 1)
    assert sha256_of("two", 1) == first  # not read
    assert sha256_of("one", 2) == first
    assert sha256_of("two", 3) != first
    assert sha256_of("three", 3) != first
    assert sha256_of("one", 3) == first
    for damaged in ("", "[]", "{}"):
        for note in (cache.directory / "sources").iterdir():
            note.write_text(damaged)
        assert sha256_of("one", 3) == first


PROGRAM = """
import os, sys
from sibert_jax.data.cache import Cache

def build(directory):
    (directory / "a").write_text(str(os.getpid()))
    if sys.argv[2:]:
        os.kill(os.getpid(), 9)
    return {}

print((Cache(sys.argv[1], print).load_or_build("key", build).path / "a").read_text())
"""


def test_processes_agree_whatever_a_killed_one_left(cache):
    command = [sys.executable, "-c", PROGRAM, str(cache.directory)]
    assert subprocess.run([*command, "kill"]).returncode == -9
    assert leftovers(cache)
    processes = [subprocess.Popen(command, stdout=-1, text=True) for _ in range(2)]
    assert len({process.communicate()[0] for process in processes}) == 1
    assert [process.returncode for process in processes] == [0] * 2
