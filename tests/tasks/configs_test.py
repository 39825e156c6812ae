"""Every variant of the fine-tuning configs is a run, and the documentation names them."""

import itertools
import pathlib
import re

import pytest

from sibert_jax.configs import glue, squad1, squad2
from sibert_jax.tasks.classification.glue import TASKS
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve
from sibert_jax.train.trainer import bare_task

DOCS = pathlib.Path(__file__).parents[2] / "docs"
VARIANTS = [
    f"size={size},arch={arch},optim={optim}"
    for size, arch, optim in itertools.product(*squad1.CHOICES.values())
    if arch == "sibert" or optim == "paper"
]


def run_of(module, variant):
    run = run_config(resolve(module.get_config(variant)))
    assert bare_task(run).seq_lens == (run.data.seq_len,)
    is_bert = "arch=bert" in variant
    assert run.model.arch == ("bert" if is_bert else "sibert")
    baseline = "adamw" if is_bert else "lamb"
    by_variant = {"optim=recipe": "scale_invariant_sgd", "optim=stateless": "equilibrium_sgd"}
    named = [name for words, name in by_variant.items() if words in variant]
    assert run.optim.name == (named or [baseline])[0]
    return run


@pytest.mark.parametrize("variant", ["", *VARIANTS])
def test_every_variant_of_squad_is_a_run(variant):
    for module, unanswerable in ((squad1, False), (squad2, True)):
        run = run_of(module, variant)
        assert run.task.unanswerable == unanswerable
        assert run.model.width == (128 if "mini" in variant else 768)


@pytest.mark.parametrize("task", TASKS)
def test_every_variant_of_glue_is_a_run_on_the_files_of_the_page(task):
    for variant in ("", ",arch=bert", ",optim=recipe", ",optim=stateless"):
        run = run_of(glue, f"task={task}{variant}")
        assert run.task.dataset == task
    data, folder = run.data, TASKS[task].name
    valid, test = ("dev_matched", "dev_mismatched") if task == "mnli" else ("dev", "")
    wanted = [f"glue/{folder}/{name}.tsv" for name in ("train", valid, test) if name]
    assert [data.path, data.valid_path, data.test_path][: len(wanted)] == [f"{w}*" for w in wanted]
    page = (DOCS / "data.md").read_text(encoding="utf-8")
    train, others = re.search(rf"^\| `{task}` \| `(\S+)` \| ([^|]+) \|", page, re.M).groups()
    assert [train, *(f"glue/{folder}/{n}" for n in re.findall(r"`(\S+)`", others))] == wanted


def test_the_documentation_lists_the_variants():
    page = (DOCS / "finetuning.md").read_text(encoding="utf-8")
    words = re.findall(r"`(\w+)`", page.split("Variants of the config:")[1].split("They")[0])
    assert words == [*glue.FILES, "sibert", "bert", "paper", "recipe", "stateless"]
