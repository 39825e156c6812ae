"""Files of labeled sentences, and prepared TensorFlow Datasets."""

import re

import numpy as np
import pytest

from sibert_jax.data import DataError
from sibert_jax.tasks.classification.examples import read_examples
from sibert_jax.tasks.classification.glue import TASKS
from sibert_jax.tasks.classification.new_text import read_new_text

from .conftest import SHARED

GLUE = SHARED / "glue"


def test_columns_are_found_by_name_missing_ids_are_indices(write):
    path = write("label\tsentence", "", "1\tA “good” one", "0\t", "")
    examples = read_examples("files", path, TASKS["sst2"])
    assert (examples.name, examples.report) == ("SST-2_train", ())
    assert (examples.ids, examples.texts) == (["0", "1"], (["A “good” one", ""],))
    assert examples.labels.tolist() == [1, 0]


PARSES = "sentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
MNLI = f"index\tpromptID\tpairID\tgenre\t{PARSES}\tsentence1\tsentence2"
ROW = "6\t0\t1\tg\t(\t(\t(\t(\ta\tb"
STSB = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
MRPC = "#1 ID\t#2 ID\t#1 String\t#2 String"


@pytest.mark.parametrize(
    ("task", "lines", "ids", "texts", "labels"),
    [
        ("cola", ["gj04\t1\t\tBirds sing.", "bc01\t0\t*\tSing birds the."], ["0", "1"],
         (["Birds sing.", "Sing birds the."],), [1, 0]),
        ("cola", ["index\tsentence", "7\tBirds sing."], ["7"], (["Birds sing."],), None),
        ("sst2", ["sentence\tlabel", "so \" good \t1"], ["0"], (['so " good '],), [1]),
        ("sst2", ["index\tsentence", "4\ta"], ["4"], (["a"],), None),
        ("mrpc", [f"\ufeffQuality\t{MRPC}", '0\t8\t9\ta "b\tc'], ["0"], (['a "b'], ["c"]), [0]),
        ("mrpc", [f"index\t{MRPC}", "3\t8\t9\ta\tb"], ["3"], (["a"], ["b"]), None),
        ("qqp", ["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "7\t1\t2\ta\tb\t1"],
         ["7"], (["a"], ["b"]), [1]),
        ("qqp", ["id\tquestion1\tquestion2", "7\ta\tb"], ["7"], (["a"], ["b"]), None),
        ("stsb", [f"{STSB}\tscore", "5\tg\tf\t2012\t1\tn\tn\ta\tb\t4.750"], ["5"], (["a"], ["b"]),
         [4.75]),
        ("stsb", [STSB, "5\tg\tf\t2012\t1\tn\tn\ta\tb"], ["5"], (["a"], ["b"]), None),
        ("mnli", [f"{MNLI}\tlabel1\tgold_label", f"{ROW}\tneutral\tentailment"],
         ["6"], (["a"], ["b"]), [0]),
        ("mnli", [f"{MNLI}\t{chr(9).join(f'label{i}' for i in range(1, 6))}\tgold_label",
                  f"{ROW}\tneutral\t\t\t\t\tcontradiction"],
         ["6"], (["a"], ["b"]), [2]),
        ("mnli", [MNLI, ROW], ["6"], (["a"], ["b"]), None),
        ("mnli", ["index\tsentence1\tsentence2", "6\ta\tb"], ["6"], (["a"], ["b"]), None),
        ("mnli", ["Lexical Semantics\tDomain\tPremise\tHypothesis\tLabel", "\tNews\ta\tb\tneutral"],
         ["0"], (["a"], ["b"]), [1]),
        ("qnli", ["index\tquestion\tsentence\tlabel", "1\ta\tb\tentailment"], ["1"], (["a"], ["b"]),
         [0]),
        ("qnli", ["index\tquestion\tsentence", "1\ta\tb"], ["1"], (["a"], ["b"]), None),
        ("rte", ["index\tsentence1\tsentence2\tlabel", "1\ta\tb\tnot_entailment"], ["1"],
         (["a"], ["b"]), [1]),
        ("wnli", ["index\tsentence1\tsentence2\tlabel", "1\ta\tb\t0"], ["1"], (["a"], ["b"]), [0]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_the_official_files_of_every_task_are_read(
    tmp_path, task, lines, ids, texts, labels, line_end
):
    path = tmp_path / "train.tsv"
    path.write_bytes(line_end.join(lines).encode())  # the last line has no end
    examples = read_examples("files", str(path), TASKS[task], strict=True)
    assert (examples.ids, examples.texts, examples.report) == (ids, texts, ())
    assert (None if examples.labels is None else examples.labels.tolist()) == labels
    new = read_new_text(str(path), TASKS[task])
    assert (new.texts, new.labels) == (texts, None)


QQP = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"


@pytest.mark.parametrize(
    ("task", "lines", "ids", "count", "first"),
    [
        ("qqp", [QQP, "1\t2\t3\ta\tb\t0", '2\t4\t5\tWho?\t"', '"\tWas he?\t0', "3\t6\t7\tc\td\t1"],
         ["1", "3"], "2 of 4", "train.tsv, line 3 has 5 tab"),
        ("qqp", [QQP, "1\t2\t3\ta\tb\tc\t0", "3\t6\t7\tc\td\t1"], ["3"],
         "1 of 2", "line 2 has 7 tab.* expected 6: id, qid1"),
        ("cola", ["gj04\t1\t\ta", "gj04\t1\ta"], ["0"], "1 of 2", "line 2 has 3 tab"),
        ("mnli", ["sentence1\tsentence2\tgold_label", "a\tb\t-", "a\tb\tneutral"], ["0"],
         "1 of 2", "line 2: unknown label '-'"),
    ],
)  # fmt: skip
def test_malformed_rows_are_counted_or_end_a_strict_run(write, task, lines, ids, count, first):
    path = write(*lines)
    examples = read_examples("files", path, TASKS[task])
    assert examples.ids == ids
    assert all(len(column) == len(ids) for column in (*examples.texts, examples.labels))
    (line,) = examples.report
    assert re.match(f"{count} rows skipped, the first: .*{first}", line)
    with pytest.raises(DataError, match=first):
        read_examples("files", path, TASKS[task], strict=True)


def test_new_text_is_lines_of_text_or_a_file_of_the_task(write):
    plain = read_new_text(write("It rains.", "It is dry.", name="new.txt"), TASKS["cola"])
    assert plain.texts == (["It rains.", "It is dry."],)
    assert plain.labels is None
    pairs = read_new_text(write("It rains.\tIt is wet.", name="new.txt"), TASKS["rte"])
    assert pairs.texts == (["It rains."], ["It is wet."])
    unknown_label = write("idx\tsentence\tlabel", "3\tIt rains.\t?", name="new.txt")
    assert read_new_text(unknown_label, TASKS["cola"]).ids == ["3"]


@pytest.mark.skipif(not GLUE.exists(), reason="../shared/data/glue is not there")
def test_the_real_files_have_the_published_sizes():
    published = {
        "CoLA/dev": ("cola", 1043, 0.691),
        "RTE/train": ("rte", 2490, 0.498),
        "WNLI/dev": ("wnli", 71, 0.437),
        "STS-B/dev": ("stsb", 1500, None),
        "SST-2/dev": ("sst2", 872, 0.509),
    }
    for name, (task, size, positive) in published.items():
        examples = read_examples("files", f"{GLUE}/{name}.tsv*", TASKS[task])
        assert len(examples.ids) == size
        share = np.mean(examples.labels == 1)
        assert positive is None or share == pytest.approx(positive, abs=6e-4)


def test_tfds_labels_are_numbers_and_missing_in_test_sets(prepared_mnli):
    train = read_examples("tfds", f"{prepared_mnli}:train", TASKS["mnli"])
    found = sorted(zip(train.ids, *train.texts, train.labels.tolist()))
    assert found == [("0", "Rain.", "Sun.", 2), ("1", "Rain.", "Wet.", 0)]
    test = read_examples("tfds", f"{prepared_mnli}:test", TASKS["mnli"])
    assert test.labels is None
    assert test.name == "mnli_test"
