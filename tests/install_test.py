"""The wheel, installed where the source tree is not on the path: by itself, and with its extras."""

import json
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest

import sibert_jax

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = pathlib.Path(sysconfig.get_path("purelib"))
CORE = ("absl", "jax", "jaxlib", "ml_dtypes", "numpy", "numpy.libs", "opt_einsum", "optax")
CORE += ("scipy", "scipy.libs")
FILES = {*(ROOT / "sibert_jax").rglob("*.py"), *(ROOT / "sibert_jax/configs").rglob("*.py")}
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in FILES
)


def run(*command, cwd, **env):
    """Runs a command with nothing of this tree in its environment."""
    plain = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "JAX_PLATFORMS": "cpu"}
    words, pipes = [str(word) for word in command], {"capture_output": True, "text": True}
    done = subprocess.run(words, cwd=cwd, env=plain | env, check=False, **pipes)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> pathlib.Path:
    """A folder with the source archive and the wheel."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("sibert_jax", "configs"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True)
    run(sys.executable, "-m", "build", "--no-isolation", f"--outdir={out}", copy, cwd=copy)
    return out


def environment(folder: pathlib.Path) -> pathlib.Path:
    """Makes an empty environment; returns its folder of packages."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    return site


@pytest.fixture(scope="module")
def full(built, tmp_path_factory) -> pathlib.Path:
    """The programs of an environment with everything but the source tree.

    It lies in the repository of another project.
    """
    folder = tmp_path_factory.mktemp("full")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c")
    run(*git, "init", "--quiet", cwd=folder)
    run(*git, "commit", "--quiet", "--allow-empty", "--message=theirs", cwd=folder)
    (environment(folder) / "dependencies.pth").write_text(f"{PACKAGES}\n")
    (wheel,) = built.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--no-deps")
    run(*pip, "--no-index", "--no-compile", wheel, cwd=folder)
    return folder / "bin"


@pytest.fixture(scope="module")
def core(built, tmp_path_factory) -> pathlib.Path:
    """The programs of an environment with what the core needs, and no extra."""
    folder = tmp_path_factory.mktemp("core")
    site = environment(folder)
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    for name in CORE:
        if (PACKAGES / name).exists():
            (site / name).symlink_to(PACKAGES / name)
    return folder / "bin"


def test_the_archives_hold_every_module_and_pass_the_check_of_an_index(built):
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    wanted = {str(path.relative_to(ROOT)) for path in FILES}
    more = {"sibert_jax/py.typed", "sibert_jax/interop/modeling_sibert.py.txt"}
    assert wanted | more <= set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert wanted <= inside
    done = run(sys.executable, "-m", "twine", "check", "--strict", wheel, source, cwd=built)
    assert done.stdout.count("PASSED") == 2


def test_every_module_imports_and_the_project_around_is_not_ours(full, tmp_path):
    script = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    script += "import sibert_jax\nprint(sibert_jax.__file__)\n"
    script += "print(sys.modules['sibert_jax.runtime.provenance'].git_commit())"
    done = run(full / "python", "-W", "error", "-c", script, *MODULES, cwd=tmp_path)
    file, commit = done.stdout.splitlines()
    assert file.startswith(str(full.parent))
    assert commit == "None"


@pytest.mark.parametrize("command", ["sibert_jax", "python -m sibert_jax.main"])
@pytest.mark.slow
def test_the_main_job_trains_in_an_empty_folder(full, tmp_path, command):
    program, *rest = command.split()
    settings = {
        "model.depth": 1,
        "model.width": 16,
        "model.ffn_width": 32,
        "model.vocab_size": 512,
        "data.seq_len": 32,
        "data.vocab_train_bytes": 200_000,
        "data.cache_dir": "cache",
        "optim.head.warmup_steps": 1,
        "train.num_steps": 3,
        "train.global_batch_size": 4,
        "train.eval_batches": 1,
        "train.compilation_cache_dir": "",
    }
    rest += ["--config=demo", "--workdir=w", *(f"--config.{k}={v}" for k, v in settings.items())]
    run(full / program, *rest, cwd=tmp_path, JAX_DISABLE_MOST_OPTIMIZATIONS="1")
    assert (tmp_path / "w/results.json").exists()
    code = json.loads((tmp_path / "w/run.json").read_text())
    assert code["git_commit"] is None
    assert code["versions"]["sibert_jax"] == sibert_jax.__version__
    run(full / "sibert_jax", "report", "w", "--out=w/report", cwd=tmp_path)
    assert (tmp_path / "w/report/report.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_finds_configurations_by_name_in_an_empty_folder(full, tmp_path):
    done = run(full / "sibert_jax", "--config=mini:bert", "--show_config", cwd=tmp_path)
    assert "model.arch = 'bert'  [config file]" in done.stdout


ARGUMENTS = {
    "main": ("--config=demo", "--workdir=w"),
    "sweep": ("--config=demo", "--sweep=s.py", "--workdir=w"),
    "report": ("w", "--out=r"),
    "checkpoint": ("list", "w"),
    "interop": ("import", "a", "b"),
    "homogeneity": ("--config=demo",),
}
# Ends each command as its own process would; a line of status, stdout and stderr for each.
EACH = """
import contextlib, importlib, io, json, sys
from sibert_jax import command
from sibert_jax.__main__ import COMMANDS
for name, words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            command.run(lambda w: importlib.import_module(COMMANDS[name]).main(w), words)
        except SystemExit as ended:
            status = ended.code or 0
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


def test_without_the_extra_help_works_and_commands_say_what_to_install(core, tmp_path):
    commands = [*((name, ["--help"]) for name in ARGUMENTS), *ARGUMENTS.items()]
    done = run(core / "python", "-c", EACH, json.dumps(commands), cwd=tmp_path)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for (name, words), (status, out, err) in zip(commands, lines, strict=True):
        if words == ["--help"]:
            assert (status, out[:7], err) == (0, "usage: ", ""), name
        else:
            assert (status, out, err.count("\n")) == (2, "", 1), name
            assert "pip install 'sibert_jax[train]'" in err
    assert not list(tmp_path.iterdir())


def test_the_core_has_the_optimizers_and_the_analysis(core, tmp_path):
    (tmp_path / "network.py").write_text(
        "import jax.numpy as jnp\nimport sibert_jax.optim\n"
        "def ratio():\n    return lambda w: w / jnp.linalg.norm(w), jnp.ones(3)\n"
    )
    command = ("-m", "sibert_jax.homogeneity", "network:ratio")
    assert "certified." in run(core / "python", *command, cwd=tmp_path).stdout
