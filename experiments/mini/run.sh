#!/usr/bin/env bash
# Trains both mini encoders and draws the report: experiments/mini/run.sh FOLDER_WITH_THE_TEXT
set -eu
python=${PYTHON:-.venv/bin/python}
for arch in paper bert; do
  $python -m sibert_jax.main --config=mini:$arch --workdir=runs/mini_$arch \
    --config.data.path="$1/wiki_train.txt.xz,$1/books_train.txt.xz" \
    --config.data.valid_path="$1/wiki_valid.txt.xz,$1/books_valid.txt.xz"
done
$python -m sibert_jax.report runs/mini_paper runs/mini_bert --out=experiments/mini
$python experiments/collect.py runs/mini_paper runs/mini_bert > experiments/mini/results.jsonl
