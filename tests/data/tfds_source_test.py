"""Prepared TensorFlow Datasets as text, and what is said where they cannot be read."""

import importlib.util
import shutil
import sys

import pytest

from sibert_jax.data import DataError
from sibert_jax.data.tfds_source import tfds_source
from tests.builders import prepare_tfds

tfds = pytest.importorskip("tensorflow_datasets")

ARTICLES = {
    "train": [f"Article {i} is here.\n\nIt has {i} words. None is long." for i in range(20)],
    "validation": ["_START_ARTICLE_\nTitle\n_START_PARAGRAPH_\nHeld out._NEWLINE_It is.", "Last."],
}


def prepare(directory, file_format):
    texts = {name: [{"text": t, "id": i} for i, t in enumerate(x)] for name, x in ARTICLES.items()}
    return prepare_tfds(directory, "Articles", {"text": str, "id": int}, texts, file_format)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("tensorflow_datasets"), "array_record")


def documents(path, split="train", feature="text"):
    return list(tfds_source((str(path),), split, feature, "data.path").documents())


def test_an_example_is_a_document_and_a_line_a_paragraph(prepared):
    found = documents(prepared)
    expected = [[line for line in text.split("\n") if line] for text in ARTICLES["train"]]
    assert sorted(found) == sorted(expected)
    assert documents(f"{prepared}:train[:15]") == found[:15]
    assert documents(f"{prepared}:train[15:]") == found[15:]
    assert sorted(documents(f"{prepared}:validation")) == [["Held out.", "It is."], ["Last."]]


def test_corpora_are_made_of_prepared_directories(prepared, load):
    fields = {"source": "tfds", "path": str(prepared), "valid_path": f"{prepared}:validation"}
    corpora = load(**fields)
    assert (corpora.train[0].num_documents, corpora.valid.num_documents) == (20, 2)
    assert load(**fields).fingerprint == corpora.fingerprint
    assert load(**fields | {"path": f"{prepared}:train[:10]"}).train[0].num_documents == 10
    with pytest.raises(DataError, match=r"valid_path names .*articles/1\.0\.0:train, which"):
        load(**fields | {"valid_path": str(prepared)})


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow")
@pytest.mark.filterwarnings("default")
def test_a_tfrecord_set_is_read_in_order_with_tensorflow(prepared, tmp_path):
    path = prepare(tmp_path, "tfrecord")
    assert documents(path) == documents(path) == documents(prepared)


def test_where_nothing_is_prepared_the_command_is_given(tmp_path):
    data_dir = tmp_path / "tensorflow_datasets"
    with pytest.raises(DataError, match=r"no prepared dataset in .* prepare one .* with: ") as info:
        documents(data_dir / "wiki40b" / "en" / "1.3.0")
    command = str(info.value).split("with: ")[1]
    assert f"tfds.builder('wiki40b/en', data_dir='{data_dir}', file_format='array_re" in command


@pytest.mark.parametrize(
    ("split", "feature", "words"),
    [
        ("test", "text", r"has no split 'test' \(data\.tfds_split\) but train, validation"),
        ("train", "body", r"has no feature 'body' \(data\.tfds_feature\) but id, text"),
        ("train", "id", r"example 0 of .* holds int.*, not text"),
    ],
)
def test_a_wrong_split_or_feature_is_named(prepared, split, feature, words):
    with pytest.raises(DataError, match=rf"^data\.path: .*{words}"):
        documents(prepared, split, feature)


def need_tensorflow(path):
    info = (path / "dataset_info.json").read_text()
    (path / "dataset_info.json").write_text(info.replace("array_record", "tfrecord"))


def change_shards(change):
    return lambda path: [change(shard) for shard in path.glob("*train*")]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (need_tensorflow, r"as tfrecord.* pip install 'sibert_jax\[tf\]', or prepare"),
        (change_shards(lambda p: p.unlink()), r"cannot read .*articles/1\.0\.0: .*No such file"),
        (change_shards(lambda p: p.write_bytes(p.read_bytes()[:-100])), "cannot read .*articles"),
        (lambda p: (p / "dataset_info.json").write_text('{"name": '), "cannot read .*articles"),
        (lambda p: sys.modules.update(tensorflow_datasets=None), r"install 'sibert_jax\[tfds\]'"),
    ],
    ids=["tfrecord", "gone", "cut", "description", "no library"],
)
def test_a_set_that_cannot_be_read_is_named(prepared, tmp_path, monkeypatch, damage, words):
    copy = tmp_path / "articles" / "1.0.0"
    shutil.copytree(prepared, copy)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", tfds)  # restored at the end
    damage(copy)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # no TensorFlow
    with pytest.raises(DataError, match=words):
        documents(copy)
