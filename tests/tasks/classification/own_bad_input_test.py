"""Files and keys of one's own that cannot be used, and rows that are left out."""

import pytest

from sibert_jax.data import DataError
from sibert_jax.errors import ConfigError
from sibert_jax.tasks.classification.config import dataset_of
from sibert_jax.tasks.classification.examples import read_raw
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve
from sibert_jax.train.run import load_task

COLUMNS = "text,label\n"
GOOD = "a,x\nb,y\n"


@pytest.mark.parametrize(
    ("files", "keys", "message"),
    [
        ({}, {"data.path": ""}, "data.path is empty"),
        ({"t.csv": ""}, {}, "data.path: .*t.csv is empty; its first line must name the columns"),
        ({"t.csv": COLUMNS}, {}, "t.csv has no examples"),
        ({"t.csv": "text,label\na,x\n"}, {}, "line 2: all 1 labels are 'x'; at least two"),
        ({"t.csv": COLUMNS + GOOD}, {"data.text": "txt"}, "no 'txt', .*did you mean 'text'"),
        ({"t.csv": COLUMNS + GOOD}, {"data.label": "labl"},
         r"t.csv has no labels: .*columns \['text', 'label'\] but no 'labl'; did you mean 'label'"),
        ({"t.csv": COLUMNS + GOOD}, {"data.text": "7"}, "but no '7', which t.csv needs"),
        ({"t.csv": COLUMNS + GOOD}, {"data.text": "a,b,c"}, "data.text='a,b,c' names 3 columns"),
        ({"t.csv": "text,text,label\na,b,x\n"}, {},
         "t.csv, line 1: the columns 0 and 1 are both called 'text'"),
        ({"t.csv": COLUMNS + GOOD + ',y\n'}, {"task.strict": True},
         "t.csv, line 4: the text 'text' is empty; task.strict=False skips such rows"),
        ({"t.csv": COLUMNS + GOOD + 'c,\n'}, {"task.strict": True}, "line 4: no label; task"),
        ({"t.csv": COLUMNS + GOOD + 'c\n'}, {"task.strict": True},
         "line 4 has 1 comma-separated fields, expected 2: text, label"),
        ({"t.csv": COLUMNS + '"a\nb",x\n"c,y\n'}, {}, "line 4: the quotes do not match"),
        ({"t.csv": COLUMNS.encode() + b"caf\xe9,x\n"}, {},
         "t.csv is not UTF-8: line 2, byte 14 is 0xe9 .*convert it with iconv"),
        ({"t.csv": COLUMNS + GOOD, "v.csv": COLUMNS + "a,x\nb,z\n"}, {"data.valid_path": "{v.csv}"},
         "data.valid_path: .*v.csv, line 3: unknown label 'z'; the labels of t.csv are x, y"),
        ({"t.csv": COLUMNS + "a,1.5\nb,2\n"}, {},
         "line 2: the label '1.5' is a fraction; for scores set task.kind=regression"),
        ({"t.csv": COLUMNS + "".join(f"x,l{i}\n" for i in range(101))}, {},
         "101 different labels in 101 examples, such as 'l0'; name the column"),
        ({"t.csv": COLUMNS + "a,1\nb,high\n"}, {"task.kind": "regression"},
         "line 3: the score 'high' is not a number"),
        ({"t.csv": COLUMNS + "a,1\nb,1\n"}, {"task.kind": "regression"}, "all 2 scores are 1"),
        ({"t.csv": COLUMNS + GOOD}, {}, "data.valid_fraction=0.1 holds out 0 of 2 examples"),
        ({"t.csv": COLUMNS + GOOD}, {"data.valid_path": "{t.csv}", "task.class_weights": "z:2"},
         "there is no class 'z' but x, y; write 'balanced'"),
        ({"t.csv": COLUMNS + GOOD}, {"data.valid_path": "{t.csv}", "task.class_weights": "x:-1"},
         "'-1' must be a number of at least 0"),
        ({"t.csv": COLUMNS + GOOD}, {"task.kind": "regression", "task.label_smoothing": 0.1},
         "task.class_weights and task.label_smoothing are for classes"),
        ({"t.csv": COLUMNS + GOOD}, {"task.labels": "('x', 'x')"}, "task.labels has 'x' twice"),
        ({"t.csv": COLUMNS + GOOD}, {"task.score_range": "(1, 1)"}, "must be two numbers"),
        ({"t.jsonl": '{"text": "a"'}, {}, "t.jsonl, line 1: not JSON .*one object per line"),
        ({"t.json": '"text"'}, {}, "line 1: expected an object, as in"),
        ({"t.jsonl": '{"text": ["a"], "label": "x"}\n'}, {"task.strict": True},
         "line 1 holds a list or an object where text or a number is expected"),
        ({"t.txt": "ham hello\nspam buy\n"}, {}, "no 'text', .*or data.format=label_first"),
        ({"t.txt": " \n"}, {"data.format": "label_first"}, "t.txt is empty; expected a label and"),
        ({"t.json": '[\n{"text": "a"}'}, {}, "line 1: starts a JSON list, but one object"),
        ({"t.tsv": 'text\tlabel\n"a"\t1\n"b"\t2\n'}, {},
         "t.tsv: all texts or all labels are in quotes, .*; set data.format=csv, which takes tabs"),
        ({"t.csv": "text;label\na;x\nb;x;y\n"}, {"task.strict": True},
         "line 3 has 3 semicolon-separated fields, expected 2"),
        ({"t.csv": COLUMNS + "a,x\rb,y\r"}, {}, "line 2 holds a carriage return between texts"),
        ({"t.csv": "text,label\r".encode("utf-16")}, {}, "UTF-16, which iconv -f UTF-16 -t UTF-8"),
        ({"t.xlsx": "PK"}, {}, "t.xlsx is a spreadsheet; save its sheet as CSV"),
        ({"t.parquet": "no"}, {}, "t.parquet cannot be read as Parquet"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(configure, tmp_path, files, keys, message):
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
    paths = {f"{{{path.name}}}": path for path in tmp_path.iterdir()}
    path = {"data.path": tmp_path / next(iter(files), "")}
    settings = path | {key: paths.get(value, value) for key, value in keys.items()}
    with pytest.raises((ConfigError, DataError), match=message) as error:
        load_task(run_config(resolve(configure(settings))), print)
    assert "\n" not in str(error.value)


SAME = [["a, 1\nb", "not good"], ["c ü 😀", "1"]]


@pytest.mark.parametrize(
    ("name", "content", "keys"),
    [
        ("t.csv", '\ufeffMy Text,Label\r\n"a, 1\nb", not good \r\nc ü 😀,1.0\r\n', {}),
        ("t.csv", '\ufeff"My Text";label\r\n"a, 1\nb";not good\r\nc ü 😀;1\r\n', {}),
        ("t.csv", 'sep=;\nMy Text;label\n"a, 1\nb";not good\nc ü 😀;1\n', {}),
        ("t.tsv", 'My Text\tlabel\n"a, 1\nb"\t"not good"\n"c ü 😀"\t1\n', {"data.format": "csv"}),
        ("t.jsonl", '{"label": 0}\n{"my text": "a, 1\\nb", "label": "not good"}\n'
         '{"my text": "c ü 😀", "label": 1.0}\n', {}),
        ("t.jsonl", '{"doc": {"my text": "a, 1\\nb"}, "label": "not good"}\n'
         '{"doc": {"my text": "c ü 😀"}, "label": 1}\n', {"data.text": "doc.my text"}),
    ],
)  # fmt: skip
def test_files_of_other_programs_read_as_the_same_examples(
    configure, tmp_path, name, content, keys
):
    (tmp_path / name).write_bytes(content.encode())
    keys = {"data.path": tmp_path / name, "data.text": "my text"} | keys
    run = run_config(resolve(configure(keys)))
    raw = read_raw("files", run.data.path, dataset_of(run.task, run.data))
    assert [list(row) for row in zip(*raw.texts, raw.labels)] == SAME


def test_classes_that_differ_in_capitals_are_named(configure, tmp_path):
    (tmp_path / "t.csv").write_text(COLUMNS + "a,Good\nb,good\nc,bad\n")
    said = []
    resolve(configure({"data.path": tmp_path / "t.csv"}), say=said.append)
    assert "classes that differ only in case: 'Good', 'good'" in said


def test_rows_that_are_left_out_are_counted(configure, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(COLUMNS + GOOD + ',x\nc,\nd\n\n"e\nf",y\n')
    keys = {"data.path": path, "data.valid_path": path}
    said = []
    run = run_config(resolve(configure(keys)))
    _, data = load_task(run, said.append)
    assert len(data.valid.batch(0, slice(0, 3))["labels"]) == 3
    first = f"{path}, line 4: the text 'text' is empty"
    assert said[0].endswith(f"3 of 6 rows skipped, the first: {first}")
