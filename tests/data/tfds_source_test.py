import importlib.util
import shutil
import subprocess
import sys

import numpy as np
import pytest

from sibert_jax.data import DataError, load_corpora
from sibert_jax.data.tfds_source import prepare_command, tfds_source

tfds = pytest.importorskip("tensorflow_datasets")

ARTICLES = {
    "train": [f"Article {i} is here.\n\nIt has {i} words. None is long." for i in range(20)],
    "validation": ["_START_ARTICLE_\nTitle\n_START_PARAGRAPH_\nHeld out._NEWLINE_It is.", "Last."],
}


class Articles(tfds.core.GeneratorBasedBuilder):
    """A few articles."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"text": tfds.features.Text(), "id": np.int64})
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(texts) for split, texts in ARTICLES.items()}

    def _generate_examples(self, texts):
        for i, text in enumerate(texts):
            yield i, {"text": text, "id": i}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tensorflow_datasets")
    builder = Articles(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
    return data_dir / "articles" / "1.0.0"


def documents(path, split="train", feature="text"):
    return list(tfds_source((str(path),), split, feature, "data.path").documents())


def test_an_example_is_a_document_and_a_line_a_paragraph(prepared):
    found = documents(prepared)
    expected = [[line for line in text.split("\n") if line] for text in ARTICLES["train"]]
    assert sorted(found) == sorted(expected)
    assert found == documents(prepared)


def test_marks_of_structure_are_not_text(prepared):
    assert sorted(documents(f"{prepared}:validation")) == [["Held out.", "It is."], ["Last."]]


def test_a_slice_of_a_split_can_be_named(prepared):
    first, second = (documents(f"{prepared}:train[{part}]") for part in (":15", "15:"))
    assert [len(first), len(second)] == [15, 5]
    assert first + second == documents(prepared)


def test_corpora_are_made_of_prepared_directories(prepared, make_spec):
    spec = make_spec(source="tfds", path=str(prepared), valid_path=f"{prepared}:validation")
    said = []
    corpora = load_corpora(spec, progress=said.append)
    assert corpora.train[0].num_documents == 20
    assert corpora.valid.num_documents == 2
    assert load_corpora(spec, progress=said.append).fingerprint == corpora.fingerprint
    other = make_spec(source="tfds", path=f"{prepared}:train[:10]", valid_path=spec.valid_path)
    assert load_corpora(other, progress=said.append).train[0].num_documents == 10


def test_the_split_to_train_on_is_not_evaluated_on(prepared, make_spec):
    spec = make_spec(source="tfds", path=str(prepared), valid_path=str(prepared))
    with pytest.raises(DataError, match=r"valid_path names .*articles/1\.0\.0:train, which"):
        load_corpora(spec, progress=print)


def test_where_nothing_is_prepared_the_command_is_said(tmp_path):
    path = tmp_path / "tensorflow_datasets" / "wiki40b" / "en" / "1.3.0"
    with pytest.raises(DataError, match=r"no prepared dataset in .* prepare one .* with: ") as info:
        documents(path)
    command = str(info.value).split("with: ")[1]
    data_dir = tmp_path / "tensorflow_datasets"
    assert command == (
        "python -c \"import tensorflow_datasets as tfds; tfds.builder('wiki40b/en', "
        f"data_dir='{data_dir}', file_format='array_record').download_and_prepare()\""
    )


def test_the_command_is_python(tmp_path):
    code = prepare_command(tmp_path / "lm1b" / "1.1.0").split('"')[1]
    compile(code, "command", "exec")
    assert f"tfds.builder('lm1b', data_dir='{tmp_path}'" in code


@pytest.mark.parametrize(
    ("split", "feature", "complaint"),
    [
        ("test", "text", r"has no split 'test' \(data\.tfds_split\) but train, validation"),
        ("train", "body", r"has no feature 'body' \(data\.tfds_feature\) but id, text"),
    ],
)
def test_an_unknown_split_or_feature_is_named(prepared, split, feature, complaint):
    with pytest.raises(DataError, match=complaint):
        documents(prepared, split, feature)


def test_a_feature_that_is_not_text_is_refused(prepared):
    with pytest.raises(DataError, match=r"example 0 of .* holds int.*, not text"):
        documents(prepared, feature="id")


def test_a_set_prepared_for_tensorflow_alone_is_refused_without_it(prepared, tmp_path, monkeypatch):
    copy = tmp_path / "articles" / "1.0.0"
    shutil.copytree(prepared, copy)
    info = (copy / "dataset_info.json").read_text()
    (copy / "dataset_info.json").write_text(info.replace("array_record", "tfrecord"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"as tfrecord.* pip install 'sibert_jax\[tf\]', or prep"):
        documents(copy)


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow")
@pytest.mark.filterwarnings("default")
def test_a_tfrecord_set_is_read_in_order_with_tensorflow(prepared, tmp_path):
    builder = Articles(data_dir=tmp_path, file_format="tfrecord")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
    path = tmp_path / "articles" / "1.0.0"
    assert documents(path) == documents(path) == documents(prepared)
    assert documents(f"{path}:validation") == documents(f"{prepared}:validation")
    with pytest.raises(DataError, match="has no split 'test'"):
        documents(path, "test")


def test_a_set_whose_files_are_gone_is_named(prepared, tmp_path):
    copy = tmp_path / "articles" / "1.0.0"
    shutil.copytree(prepared, copy)
    for path in copy.glob("*train*"):
        path.unlink()
    with pytest.raises(DataError, match=r"cannot read .*articles/1\.0\.0: .*No such file"):
        documents(copy)


def test_a_damaged_description_is_named(prepared, tmp_path):
    copy = tmp_path / "articles" / "1.0.0"
    shutil.copytree(prepared, copy)
    (copy / "dataset_info.json").write_text('{"name": ')
    with pytest.raises(DataError, match=r"cannot read .*articles/1\.0\.0: "):
        documents(copy)


def test_a_damaged_file_is_named(prepared, tmp_path):
    copy = tmp_path / "articles" / "1.0.0"
    shutil.copytree(prepared, copy)
    for path in copy.glob("*train*"):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"cannot read .*articles/1\.0\.0: "):
        documents(copy)


def test_a_machine_without_the_library_is_told_what_to_install(prepared):
    program = (
        "import sys; sys.modules['tensorflow_datasets'] = None\n"
        "from sibert_jax.data.tfds_source import tfds_source\n"
        "from sibert_jax.data import DataError\n"
        f"try: tfds_source(({str(prepared)!r},), 'train', 'text', 'data.path')\n"
        "except DataError as error: print(error)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert "pip install 'sibert_jax[tfds]'" in printed
