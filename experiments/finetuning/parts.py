"""Writes smaller sets: every 10th article of SQuAD 1.1 to train on and every 24th to evaluate on,
and every 4th pair of MNLI's matched development set.

python experiments/finetuning/parts.py FOLDER OUT     FOLDER holds squad/ and glue/
"""

import json
import lzma
import pathlib
import sys

SQUAD = {"train-v1.1.json.xz": 10, "dev-v1.1.json.xz": 24}
MNLI, EVERY = "MNLI/dev_matched.tsv.xz", 4


def main(source: pathlib.Path, out: pathlib.Path) -> None:
    """Writes both under `out` and prints what they hold."""
    out.mkdir(parents=True, exist_ok=True)
    for name, every in SQUAD.items():
        squad = json.loads(lzma.decompress((source / "squad" / name).read_bytes()))
        squad["data"] = squad["data"][::every]
        (out / name).write_bytes(lzma.compress(json.dumps(squad).encode()))
        paragraphs = [part for article in squad["data"] for part in article["paragraphs"]]
        questions = sum(len(part["qas"]) for part in paragraphs)
        print(f"{name}: {len(squad['data'])} articles, {questions:,} questions")
    header, *rows = lzma.decompress((source / "glue" / MNLI).read_bytes()).splitlines(True)
    target = out / MNLI
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(lzma.compress(header + b"".join(rows[::EVERY])))
    print(f"{MNLI}: {len(rows[::EVERY]):,} pairs")


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
