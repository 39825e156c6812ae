import pytest

from sibert_jax.data import python_docs
from sibert_jax.data.python_docs import gather_documents

DOCSTRING = """Return the mean of the values along an axis.

    The mean is taken over the flattened array by default. See :func:`numpy.var` too.

    Parameters
    ----------
    axis : int, optional
        Axis along which the means are computed, in the usual way.
    x: {int, float} which is the number that is used.

    >>> mean([1, 2])
    This line belongs to the example above it.

    .. math:: This is a formula and nothing else.

    Call ``close()`` when it is no longer needed. Wrap the ``file`` in a
       *buffer* of its own. See `the guide <http://x.org>`_ for what to do.

    For more, see the page on means. too short. Use x[0] = 1 for the first of them. Too few words.
    """


def test_prose_is_kept_and_the_rest_is_dropped():
    (document,) = gather_documents(iter([[DOCSTRING]]))
    assert document == [
        "Return the mean of the values along an axis.",
        "The mean is taken over the flattened array by default.",
        "See the guide for what to do.",
        "For more, see the page on means. too short.",
    ]


def test_a_sentence_occurs_once_in_all_modules():
    license = "This text is licensed to everyone who wants it."
    texts = [[f"First of all there is this one. {license}"], [license, "It is not alone in here."]]
    texts.append(["The third module says two things. One of them is quite short."])
    assert list(gather_documents(iter(texts))) == [texts[0], texts[2]]
    assert list(gather_documents(iter(texts), max_bytes=60)) == [texts[0]]


@pytest.mark.parametrize(
    ("source_bytes", "num_tokens"),
    [(200_000, 30_000), pytest.param(40_000_000, 200_000, marks=pytest.mark.slow)],
)
def test_installed_python_has_english_to_train_on(
    load, progress, monkeypatch, source_bytes, num_tokens
):
    monkeypatch.setattr(python_docs, "MAX_SOURCE_BYTES", source_bytes)
    fields = {"source": "builtin", "valid_fraction": 0.1, "vocab_size": 800}
    corpora = load(**fields)
    assert progress[0].startswith("gathering English")
    assert corpora.train[0].num_tokens > num_tokens
    assert corpora.valid.num_documents > 5
    assert corpora.unigram_counts[corpora.tokenizer.unk_id] < 1e-3 * corpora.unigram_counts.sum()
    assert {"the", "which", "function", "value", "object"} <= set(corpora.tokenizer.pieces)
    assert load(**fields).fingerprint == corpora.fingerprint
    assert len(progress) == 2  # the sizes of the two corpora


def test_files_that_do_not_parse_are_skipped(load, write_text, tmp_path, monkeypatch):
    root = tmp_path / "installed"
    (root / "tests").mkdir(parents=True)
    good = '"""{0} module has one sentence. And {0} has another one."""\n'
    for name, source in {
        "a.py": good.format("This"),
        "b.py": '"""Open quotes and Python 2 in the body."""\nprint "x"\n',
        "c.py": good.format("That") + 'PATTERN = "\\d"\n',
        "d.py": "x = 1\n" * 50 + good.format("Sparse"),
        "tests/e.py": good.format("Test"),
    }.items():
        (root / name).write_text(source)
    (root / "f.py").write_bytes(b'"""' + b"\xff" * 50 + b'"""\n')
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda name: str(root))
    monkeypatch.setattr(python_docs.importlib.util, "find_spec", lambda name: None)  # no topics
    load(source="builtin", valid_path=write_text("valid.txt", 5))
    (text,) = (tmp_path / "cache").glob("builtin-*/python_docs.txt")
    assert [line.split()[0] for line in text.read_text().splitlines() if line] == ["This", "That"]
