"""Atomic writes."""

import pytest

from sibert_jax.files import atomically


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "predictions.json"
    path.write_text("old")

    def write(text, error=None):
        with atomically(path) as temporary:
            temporary.write_text(text)
            if error:
                raise error

    with pytest.raises(OSError, match="No space left"):
        write("half of the n", OSError(28, "No space left on device"))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write("new")
    assert path.read_text() == "new"
