"""Prepared TensorFlow Datasets with the features of TFDS's "glue"."""

import numpy as np
import pytest

from sibert_jax.data import DataError
from sibert_jax.tasks.classification.examples import read_examples
from sibert_jax.tasks.classification.glue import TASKS

tfds = pytest.importorskip("tensorflow_datasets")

# As in tfds.text.glue: the labels of test sets are -1.
SETS = {"train": [("Rain.", "Sun.", 2), ("Rain.", "Wet.", 0)], "test": [("Snow.", "Cold.", -1)]}


class Mnli(tfds.core.GeneratorBasedBuilder):
    """A few pairs."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"premise": tfds.features.Text(), "hypothesis": tfds.features.Text()}
        features |= {"label": np.int64, "idx": np.int64}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(rows) for split, rows in SETS.items()}

    def _generate_examples(self, rows):
        for i, (premise, hypothesis, label) in enumerate(rows):
            yield i, {"premise": premise, "hypothesis": hypothesis, "label": label, "idx": i}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tensorflow_datasets")
    Mnli(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return data_dir / "mnli" / "1.0.0"


def test_labels_are_numbers_and_missing_in_test_sets(prepared):
    train = read_examples("tfds", f"{prepared}:train", TASKS["mnli"])
    found = sorted(zip(train.ids, *train.texts, train.labels.tolist()))
    assert found == [("0", "Rain.", "Sun.", 2), ("1", "Rain.", "Wet.", 0)]
    test = read_examples("tfds", f"{prepared}:test", TASKS["mnli"])
    assert test.labels is None
    assert test.name == "mnli_test"


@pytest.mark.parametrize(
    ("path", "task", "message"),
    [
        ("{}", "mnli", "names no split; write .*:train or another split"),
        ("{}:validation", "mnli", r"has no split 'validation'"),
        ("{}:train", "sst2", r"has the features .* but none of \['sentence'\]"),
        ("{}:train", "rte", r"example 0: the label '2' is unknown; RTE has entailment"),
        ("nowhere:train", "mnli", "no prepared dataset in nowhere"),
    ],
)
def test_what_is_not_there_is_named(prepared, path, task, message):
    with pytest.raises(DataError, match=message):
        read_examples("tfds", path.format(prepared), TASKS[task])
