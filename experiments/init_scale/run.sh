#!/usr/bin/env bash
# Initial scales with and without weight decay, at the η and λ that suit scale 1:
# experiments/init_scale/run.sh FOLDER_WITH_THE_TEXT ETA LAMBDA
set -eu
python=${PYTHON:-.venv/bin/python}
for decay in "$3" 0; do
  for scale in 1 0.01 100; do
    name=scale_${scale}_$([ "$decay" = 0 ] && echo no_decay || echo decay)
    $python -m sibert_jax.main --config=mini:paper --workdir=runs/init_scale/$name \
      --config.data.path="$1/wiki_train.txt.xz,$1/books_train.txt.xz" \
      --config.data.valid_path="$1/wiki_valid.txt.xz,$1/books_valid.txt.xz" \
      --config.init_scale=$scale --config.optim.eta_lambda=0 \
      --config.optim.learning_rate="$2" --config.optim.weight_decay="$decay"
  done
done
$python -m sibert_jax.report runs/init_scale/*/ --out=experiments/init_scale
$python experiments/collect.py runs/init_scale/*/ > experiments/init_scale/results.jsonl
