"""What the pages on fine-tuning and data say of the configuration is so."""

import pathlib
import re

from sibert_jax.configs import glue

ROOT = pathlib.Path(__file__).parents[3]
PAGE = (ROOT / "docs/finetuning.md").read_text(encoding="utf-8")


def test_the_variants_of_the_page_are_those_of_the_config():
    words = re.findall(r"`(\w+)`", PAGE.split("Variants of the config:")[1].split("They")[0])
    assert words == [*glue.FILES, "sibert", "bert", "paper", "recipe"]
    assert glue.get_config("task=rte,arch=bert").model.arch == "bert"


def test_the_page_on_data_names_the_files_that_the_config_wants():
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    for task in glue.FILES:
        data = glue.get_config(f"task={task}").data
        train, valid = re.search(
            rf"^\| `{task}` \| `(\S+)` \| ([^|]+) \|", page, re.MULTILINE
        ).groups()
        folder = train.rpartition("/")[0]
        paths = [train, *(f"{folder}/{name}" for name in re.findall(r"`(\S+)`", valid))]
        wanted = [data.path, data.valid_path, *filter(None, [data.test_path])]
        assert [f"{path}*" for path in paths] == wanted
