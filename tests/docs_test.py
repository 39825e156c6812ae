"""Every block of code and every command of README and docs runs, where nothing of ours lies.

The commands of a page run in its order, beside small files of the names that it uses, with sizes
and lengths made small. The short ones of README and those that look at its run are always tried.
"""

import contextlib
import io
import json
import lzma
import pathlib
import pydoc_data.topics
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator

import jax
import pytest
from absl import logging

from sibert_jax import command
from sibert_jax.__main__ import COMMANDS
from sibert_jax.data import ByteBPE
from sibert_jax.data.tokenizers.word_piece import SPECIAL_PIECES
from sibert_jax.homogeneity import rules
from sibert_jax.interop import gpt2, hugging_face
from sibert_jax.model import Encoder
from tests.builders import model_config, random_params, write_vocabulary

ROOT = pathlib.Path(__file__).parents[1]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = {path.name: path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
# Commands that other tests run, as they need several processes, compilers or minutes.
ELSEWHERE = {
    "make ": "CI, and demo() below",
    "pip install": "tests/install_test.py",
    "export GLIBC": "a setting of the shell",
    "python -m benchmarks": "tests/benchmarks/docs_test.py",
    "--config.distributed.": "tests/tools/pods_test.py",
    "--compile_only": "tests/tools/compile_only_test.py",
    "train.writers=": "tests/train/trackers_test.py",
}
MODEL = {
    "model.vocab_size": 512,
    "model.width": 16,
    "model.depth": 1,
    "model.num_heads": 2,
    "model.ffn_width": 32,
    "model.max_len": 64,
    "model.scan_layers": False,
}
TRAIN = {
    "train.global_batch_size": 8,
    "train.eval_batches": 1,
    "train.compilation_cache_dir": "",
}
PRETRAINING = {
    **MODEL,
    **TRAIN,
    "data.cache_dir": "cache",
    "data.seq_len": 32,
    "data.valid_fraction": 0.25,
    "optim.head.warmup_steps": 1,
    "train.num_steps": 2,
    "train.log_every_steps": 1,
    "train.eval_every_steps": 0,
    "checkpoint.every_steps": 1,
}
FINETUNING = TRAIN | {"data.num_seq_lens": 1, "data.seq_len": 48, "train.num_epochs": 1.0}
SQUAD = {"data.cache_dir": "cache", "task.max_query_len": 12, "task.doc_stride": 16}
TEXT = {"data.source": "text", "data.path": "text/*.txt"}  # gathered in no time
PAGES_OF_ONE_RUN = ("README.md", "checkpoints.md")
# Their commands make what their blocks of Python load.
PYTHON_OF_RUNS = ("python.md", "gpt.md", "quantization.md")
LONG = ("--config=sibert_large", "runs/demo")
ON_TEXT = "--config.data.path='text/*.txt'"
# Steps that a page names, and the sizes of matrices and text that it counts on.
SMALLER = {"1000": "1", "2000": "2", "--profile=1:3": "--profile=0:1"}
SMALLER |= {"--group=64": "--group=16 --steps=10", "--batches=16": "--batches=1"}


def blocks(page: pathlib.Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(page: pathlib.Path) -> list[str]:
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    plain = [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]
    if "make demo" in plain:
        plain += demo()
    return [line for line in plain if line and not any(part in line for part in ELSEWHERE)]


def demo() -> list[str]:
    """What `make demo` runs once everything is set up."""
    make = ["make", "-n", "-o", ".venv/installed", "demo"]
    lines = subprocess.check_output(make, cwd=ROOT, text=True).splitlines()
    start = ".venv/bin/"
    return [line.removeprefix(start) for line in lines if line.startswith(f"{start}python ")]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "README.md" else pytest.mark.slow)
        for name, page in PAGES.items()
        if blocks(page, "python")
    ],
)
def test_the_blocks_of_code_run_and_print_what_follows_them(name, tmp_path, monkeypatch, unchanged):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "models", "models")  # of the checkout
    if name in PYTHON_OF_RUNS:
        write_stand_ins(tmp_path)
        here = jax.devices()[:1]
        monkeypatch.setattr(jax, "devices", lambda: here)
        for line in commands(PAGES[name]):
            run(line)
    monkeypatch.setattr(rules, "RULES", dict(rules.RULES))  # a page declares rules
    found = re.findall(
        r"^```(\w*)\n(.*?)^```", PAGES[name].read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    names, printed = {}, None
    for language, block in found:
        if language == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output), as_users_have_it():
                exec(compile(block, name, "exec"), names)
            printed = output.getvalue()
        elif language == "text" and printed:
            assert printed == block
            printed = None


@contextlib.contextmanager
def as_users_have_it() -> Iterator[None]:
    """JAX without the strictness of these tests."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def topics() -> list[str]:
    """Documents of Python's help, a paragraph a line."""
    parts = (topic.split("\n\n") for _, topic in sorted(pydoc_data.topics.topics.items())[:60])
    kept = ([" ".join(part.split()) for part in topic if len(part) > 40] for topic in parts)
    return ["\n".join(paragraphs) for paragraphs in kept if paragraphs]


def write_stand_ins(folder: pathlib.Path) -> None:
    """Files of the names that the pages use."""
    documents = topics()
    for name in ("text", "glue/SST-2", "squad"):
        (folder / name).mkdir(parents=True)
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,:;()'\"`-_*/=[]<>|"]
    pieces = letters + [f"##{letter}" for letter in letters if letter.isalnum()]
    pieces += [f"[unused{i}]" for i in range(512 - len(SPECIAL_PIECES) - len(pieces))]
    write_vocabulary(folder / "vocab.txt", pieces)
    rows = "".join(f"an object of type {i}\t{i % 2}\n" for i in range(16))
    paragraphs = []
    for i in range(16):
        answer = {"text": f"name{i}", "answer_start": 32 + len(str(i))}
        question = {"id": f"q{i}", "question": f"Which type has object {i}?", "answers": [answer]}
        context = f"The object number {i} has the type name{i} and no other."
        paragraphs.append({"context": context, "qas": [question]})
    data = {"version": "1.1", "data": [{"title": "objects", "paragraphs": paragraphs}]}
    for name in ("train", "dev"):
        (folder / f"glue/SST-2/{name}.tsv").write_text(f"sentence\tlabel\n{rows}")
        (folder / f"squad/{name}-v1.1.json").write_text(json.dumps(data))
    for name, text in {
        "text/topics.txt": "\n\n".join(documents[:30]),
        "reviews.txt": "a fine object\nanother type\n",
        "questions.tsv": "Which type?\tThe object has the type name7.\n",
        "train.csv": "question,type\n" + "".join(f'"of type, {i}",{i % 3}\n' for i in range(30)),
        "prompts.txt": "the value of\nan object is\n",
        "new.txt": "a fine object\n\nanother type\n",
        "entities.conll": "".join(f"Ada B-PER\nwrote{i} O\n\n" for i in range(16)),
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "text/more.txt.xz").write_bytes(lzma.compress("\n\n".join(documents[30:]).encode()))


def write_bert(folder: pathlib.Path, vocabulary: pathlib.Path) -> None:
    """A small BERT of Hugging Face's layout, of other sizes than any configuration's."""
    sizes = {"vocab_size": 512, "max_len": 64, "width": 24, "depth": 3, "num_heads": 3}
    cfg = model_config(arch="bert", branch_scaling="none", norm_eps=1e-12, dropout=0.1, **sizes)
    tokens = jax.numpy.ones((1, 8), jax.numpy.int32)
    params = random_params(Encoder(cfg).init, tokens, 0 * tokens, tokens > 0)["params"]
    hugging_face.write(folder, cfg, {"encoder": params}, head="")
    shutil.copyfile(vocabulary, folder / "vocab.txt")


def write_gpt2(folder: pathlib.Path) -> None:
    """A small GPT-2 of Hugging Face's layout, of the sizes that commands get here."""
    sizes = {key.removeprefix("model."): value for key, value in MODEL.items()}
    cfg = model_config(arch="gpt", branch_scaling="none", norm_eps=1e-5, dropout=0.1, **sizes)
    tokens = jax.numpy.ones((1, 8), jax.numpy.int32)
    params = random_params(Encoder(cfg).init, tokens, 0 * tokens, tokens > 0)["params"]
    gpt2.write(folder, cfg, {"encoder": params}, end_id=256)
    ByteBPE.of_merges([], 512).save(folder / "vocab.json")


@pytest.fixture
def unchanged():
    """Puts back what commands change for their whole process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    verbosity = logging.get_verbosity()
    yield
    logging.set_verbosity(verbosity)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def overrides(words: list[str]) -> list[str]:
    """What makes the run of a command small."""
    (config,) = [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
    fine_tunes = re.match("glue|mnli|squad|classification|token_classification", config)
    values = FINETUNING if fine_tunes else PRETRAINING
    values = values | (SQUAD if config.startswith("squad") else {})
    values = values | (TEXT if "demo" in config else {})
    if "init_from=runs/gpt2" in " ".join(words):
        values = values | {"model.scan_layers": True}  # as all that is imported
    if "continue_from" in " ".join(words):
        values = values | {"train.num_steps": 4}
    return [f"--config.{key}={value}" for key, value in values.items()]


def run(line: str) -> None:
    """Runs one command in this process; fails if it does not end well."""
    for found, smaller in SMALLER.items():
        line = line.replace(found, smaller)
    python, dash_m, module, *words = shlex.split(line)
    assert (python, dash_m) == ("python", "-m"), line
    modules = {name.removesuffix(".__main__"): name for name in COMMANDS.values()}
    modules["sibert_jax.tasks.question_answering"] = "sibert_jax.tasks.question_answering.__main__"
    main = __import__(modules[module], fromlist=["main"]).main
    if any(word.startswith("--config=") for word in words):
        words += overrides(words)
    with pytest.raises(SystemExit) as ended, as_users_have_it():
        command.run(main, words)
    assert not ended.value.code, line


def missing_runs(lines: list[str]) -> list[str]:
    """Runs that commands use and none of the page has made before."""
    made, missing = set(), []
    for line in lines:
        used = set(re.findall(r"\bruns/\w+", line))
        new = set(re.findall(r"--workdir=(runs/\w+)", line)) if "--config=" in line else set()
        new |= set(re.findall(r"import \S+ (runs/\w+)", line))
        missing += sorted(used - made - new - set(missing))
        made |= new
    return missing


def cases() -> Iterator:
    """The short commands of README and those that look at its run; the others page by page."""
    rest = {name: commands(page) for name, page in PAGES.items()}
    lines = [line for name in PAGES_OF_ONE_RUN for line in rest[name]]
    short = [line for line in lines if not any(part in line for part in LONG)]
    yield pytest.param(short, id=" ".join(PAGES_OF_ONE_RUN))
    for name, lines in rest.items():
        if name in PYTHON_OF_RUNS:
            continue
        if lines := [line for line in lines if line not in short]:
            yield pytest.param(lines, id=name, marks=pytest.mark.slow)


@pytest.mark.parametrize("lines", list(cases()))
def test_the_commands_run_one_after_another(lines, tmp_path, monkeypatch, unchanged):
    write_stand_ins(tmp_path)
    if "bert-base-uncased" in " ".join(lines):
        write_bert(tmp_path / "bert-base-uncased", tmp_path / "vocab.txt")
        write_gpt2(tmp_path / "gpt2")
    monkeypatch.chdir(tmp_path)
    if "--config.mesh." not in " ".join(lines):
        here = jax.devices()[:1]
        monkeypatch.setattr(jax, "devices", lambda: here)
    for directory in missing_runs(lines):
        run(f"python -m sibert_jax.main --config=mini --workdir={directory} {ON_TEXT}")
    for line in lines:
        run(line)
    made = {path.name for path in tmp_path.rglob("*")}
    if "report" in " ".join(lines):
        assert "report.png" in made
    if "squad" in " ".join(lines):
        assert "nbest_predictions.json" in made


@pytest.mark.parametrize("page", [*PAGES.values(), CONTRIBUTING], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_what_contributing_names_is_there():
    text, makefile = CONTRIBUTING.read_text(encoding="utf-8"), (ROOT / "Makefile").read_text()
    named = re.findall(r"`((?:\w+/)+(?:\w+\.py)?|\w+/\w+\.py)`", text)
    named += re.findall(r"^(\w+/\S*)", text, re.MULTILINE)
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "sibert_jax" / name).exists(), name
    for target in re.findall(r"(?:^|`)make (\w\S*?)(?:`|$|\s)", text, re.MULTILINE):
        assert f"\n{target}: " in makefile
