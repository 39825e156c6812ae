"""Writes three small tasks, none of them GLUE's, in the form of GLUE's files.

python -m experiments.finetuning_rates.make_data --source=FOLDER --out=OUT

FOLDER holds text/{wiki_train,books_train,books_valid}.txt.xz and glue/SNLI. Each task
gets at most 3,000 examples to train on and 600 to evaluate on, as many of each class.
"""

import argparse
import itertools
import pathlib
import random
from collections.abc import Iterable, Iterator

from sibert_jax.data.documents import split_sentences
from sibert_jax.data.text_files import read_documents, read_lines

SIZES = {"train": 3_000, "dev": 600}
NUM_CHAPTERS_OF_LAWRENCE = 31  # then Arlen's begin, in books_valid
QUOTES = str.maketrans(dict.fromkeys("“”‘’\"'"))
Row = tuple[str, ...]  # the texts, then the label


def main() -> None:
    """Writes OUT/TASK/{train,dev}.tsv."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    given = parser.parse_args()
    text = given.source / "text"
    tasks = {
        "snli": snli(given.source / "glue/SNLI/dev.tsv.xz"),
        "origin": origin(text),
        "author": author(text),
    }
    for name, groups in tasks.items():
        write(given.out / name, list(groups))


def snli(path: pathlib.Path) -> Iterator[list[Row]]:
    """Pairs and their labels; those with the same first sentence stay together."""
    lines = iter(read_lines(path))
    header = next(lines).split("\t")
    columns = [header.index(name) for name in ("sentence1", "sentence2", "label")]
    rows = [tuple(line.split("\t")[i] for i in columns) for line in lines]
    for _, group in itertools.groupby(sorted(rows), key=lambda row: row[0]):
        yield list(group)


def origin(text: pathlib.Path) -> Iterator[list[Row]]:
    """Is a sentence from Wikipedia (0) or from a novel (1)? Articles and chapters stay together."""
    for label, name in enumerate(("wiki_train", "books_train")):
        documents = itertools.islice(read_documents(text / f"{name}.txt.xz"), 0, None, 5)
        for document in itertools.islice(documents, 400):
            yield [(s, str(label)) for s in itertools.islice(sentences(document), 10)]


def author(text: pathlib.Path) -> Iterator[list[Row]]:
    """Is a sentence by D. H. Lawrence (0) or by Michael Arlen (1)? Paragraphs stay together."""
    for i, document in enumerate(read_documents(text / "books_valid.txt.xz")):
        label = str(int(i >= NUM_CHAPTERS_OF_LAWRENCE))
        for paragraph in document:
            yield [(sentence, label) for sentence in sentences([paragraph])]


def sentences(document: Iterable[str]) -> Iterator[str]:
    """Those of 30 to 300 characters, in lower case; without quotes, which tell editions apart."""
    for paragraph in document:
        plain = paragraph.translate(QUOTES)
        yield from (s.lower() for s in split_sentences(plain) if 30 <= len(s) <= 300)


def write(folder: pathlib.Path, groups: list[list[Row]]) -> None:
    """Splits groups, so that none is in both sets, and writes as many of each class."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    rng.shuffle(groups)
    rows = [row for group in groups for row in group]
    labels = sorted({row[-1] for row in rows})
    cut = len(groups) // 5
    for name, part in (("dev", groups[:cut]), ("train", groups[cut:])):
        by_label = {label: [row for g in part for row in g if row[-1] == label] for label in labels}
        count = min(SIZES[name] // len(labels), *map(len, by_label.values()))
        kept = [row for rows in by_label.values() for row in rng.sample(rows, count)]
        rng.shuffle(kept)
        columns = ["sentence"] if len(kept[0]) == 2 else ["sentence1", "sentence2"]
        lines = ["\t".join(row) for row in ([*columns, "label"], *kept)]
        (folder / f"{name}.tsv").write_text("".join(line + "\n" for line in lines), "utf-8")
        print(f"{folder.name}/{name}.tsv: {len(kept):,} examples, {len(labels)} classes")


if __name__ == "__main__":
    main()
