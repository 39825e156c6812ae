import pytest

from sibert_jax.data import PackedExamples, PretrainingBatches, load_corpora, python_docs
from sibert_jax.data.python_docs import gather_documents, prose_sentences

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

    For more, see the page on means. too short. Use x[0] = 1 for the first of them.
    """


def test_prose_is_kept_and_the_rest_is_dropped():
    (document,) = gather_documents(iter([[DOCSTRING]]))
    assert document == [
        "Return the mean of the values along an axis.",
        "The mean is taken over the flattened array by default.",
        "For more, see the page on means. too short.",
    ]


@pytest.mark.parametrize(
    ("paragraph", "sentences"),
    [
        ("Call ``close()`` when the file is no longer needed.", []),
        ("Wrap the ``file`` in a\n   *buffer* of its own.", []),
        (
            "Wrap the ``file`` in a\n   buffer of its own.",
            ["Wrap the file in a buffer of its own."],
        ),
        ("See `the guide <http://x.org>`_ for what to do.", ["See the guide for what to do."]),
        ("Heading of a section\n====================", []),
        ("this sentence does not begin with a capital.", []),
        ("Too few words here.", []),
    ],
)
def test_markup_is_taken_off_or_drops_the_sentence(paragraph, sentences):
    assert list(prose_sentences(paragraph)) == sentences


def test_a_sentence_comes_once_in_all_modules():
    licence = "This text is licensed to everyone who wants it."
    texts = [[f"First of all there is this one. {licence}"], [licence, "It is not alone in here."]]
    texts.append(["The third module says two things. One of them is quite short."])
    documents = list(gather_documents(iter(texts)))
    assert documents == [
        ["First of all there is this one. " + licence],
        ["The third module says two things. One of them is quite short."],
    ]


def test_gathering_stops_at_the_limit():
    texts = [[f"Module {i} has one sentence. Module {i} has two of them."] for i in range(50)]
    assert len(list(gather_documents(iter(texts), max_bytes=200))) == 4


def test_installed_python_has_enough_english_to_train_on(make_spec, monkeypatch):
    monkeypatch.setattr(python_docs, "MAX_SOURCE_BYTES", 1_000_000)
    spec = make_spec(source="builtin", valid_fraction=0.1, vocab_size=1000)
    said = []
    corpora = load_corpora(spec, progress=said.append)
    assert said[0].startswith("gathering English")
    assert corpora.train[0].num_tokens > 50_000
    assert corpora.valid.num_documents > 5
    assert corpora.unigram_counts[corpora.tokenizer.unk_id] < 1e-3 * corpora.unigram_counts.sum()
    words = {"the", "which", "function", "value", "object"}
    assert words <= set(corpora.tokenizer.pieces)
    examples = PackedExamples(corpora.train[0], 64, corpora.tokenizer)
    batches = PretrainingBatches(
        examples,
        corpora.tokenizer,
        global_batch_size=8,
        seed=0,
        mask_rate=0.15,
        whole_word=False,
        shuffle=True,
    )
    assert batches.batch(0)["valid"].all()
    said.clear()
    assert load_corpora(spec, progress=said.append).fingerprint == corpora.fingerprint
    assert len(said) == 2  # what was found, to train on and held out


@pytest.mark.slow
def test_the_whole_of_it_is_over_a_megabyte():
    num_bytes = sum(len(p) for d in gather_documents(python_docs._texts()) for p in d)
    assert 1_000_000 < num_bytes <= python_docs.MAX_TEXT_BYTES + python_docs.MAX_FILE_BYTES


def test_files_that_do_not_parse_are_passed_over(tmp_path, monkeypatch):
    good = '"""This module has one sentence. And then it has another one."""\n'
    for name, source in {
        "a.py": good,
        "b.py": '"""Open quotes and Python 2 in the body."""\nprint "x"\n',
        "c.py": good.replace("This", "That").replace("And", "Or") + 'PATTERN = "\\d"\n',
        "d.py": "x = 1\n" * 50 + good,
        "tests/e.py": good,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    (tmp_path / "f.py").write_bytes(b'"""' + b"\xff" * 50 + b'"""\n')
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(python_docs, "_topics", lambda: iter(()))
    assert [document[0][:4] for document in gather_documents(python_docs._texts())] == [
        "This",
        "That",
    ]
