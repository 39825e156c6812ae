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
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for folder in (ROOT / "sibert_jax", ROOT / "sibert_jax/configs")
    for path in folder.rglob("*.py")
)


def run(*command, cwd, check=True, **env):
    """Runs a command with nothing of this tree in its environment."""
    plain = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=plain | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
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


def install(wheel: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Makes an environment of the wheel alone; returns its folder of packages."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=wheel.parent)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--no-deps")
    run(*pip, "--no-index", wheel, cwd=wheel.parent)
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
    (wheel,) = built.glob("*.whl")
    (install(wheel, folder) / "dependencies.pth").write_text(f"{PACKAGES}\n")
    return folder / "bin"


@pytest.fixture(scope="module")
def core(built, tmp_path_factory) -> pathlib.Path:
    """The programs of an environment with what the core needs, and no extra."""
    folder = tmp_path_factory.mktemp("core")
    (wheel,) = built.glob("*.whl")
    site = install(wheel, folder)
    for name in CORE:
        if (PACKAGES / name).exists():
            (site / name).symlink_to(PACKAGES / name)
    return folder / "bin"


def test_the_archives_hold_every_module_and_pass_the_check_of_an_index(built):
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    files = {f"{name.replace('.', '/')}" for name in MODULES}
    wanted = {f"{name}.py" if (ROOT / f"{name}.py").exists() else f"{name}/__init__.py"
              for name in files}  # fmt: skip
    assert wanted | {"sibert_jax/py.typed", "sibert_jax/interop/modeling_sibert.py.txt"} <= set(
        zipfile.ZipFile(wheel).namelist()
    )
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert wanted <= inside
    done = run(sys.executable, "-m", "twine", "check", "--strict", wheel, source, cwd=built)
    assert done.stdout.count("PASSED") == 2


def test_every_module_imports(full, tmp_path):
    script = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    script += "print(importlib.import_module('sibert_jax').__file__)"
    done = run(full / "python", "-W", "error", "-c", script, *MODULES, cwd=tmp_path)
    assert str(full.parent) in done.stdout


@pytest.mark.parametrize(
    "command",
    ["sibert_jax", pytest.param("python -m sibert_jax.main", marks=pytest.mark.slow)],
)
def test_the_main_job_trains_in_an_empty_folder(full, tmp_path, command):
    program, *rest = command.split()
    settings = {
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
    run(
        full / program,
        *rest,
        "--config=demo",
        "--workdir=w",
        *(f"--config.{key}={value}" for key, value in settings.items()),
        cwd=tmp_path,
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",
    )
    assert (tmp_path / "w/results.json").exists()
    code = json.loads((tmp_path / "w/run.json").read_text())
    assert code["git_commit"] is None
    assert code["versions"]["sibert_jax"] == sibert_jax.__version__
    run(full / "sibert_jax", "report", "w", "--out=w/report", cwd=tmp_path)
    assert (tmp_path / "w/report/report.png").read_bytes().startswith(b"\x89PNG")


def test_variants_of_a_configuration_are_found_by_name(full, tmp_path):
    done = run(full / "sibert_jax", "homogeneity", "--config=mini:bert", cwd=tmp_path, check=False)
    assert done.returncode == 1, done.stderr  # BERT is not scale invariant
    assert "Not certified" in done.stdout


ARGUMENTS = {
    "main": ("--config=demo", "--workdir=w"),
    "sweep": ("--config=demo", "--sweep=s.py", "--workdir=w"),
    "report": ("w", "--out=r"),
    "checkpoint": ("list", "w"),
    "interop": ("import", "a", "b"),
    "homogeneity": ("--config=demo",),
}


@pytest.mark.parametrize("command", ARGUMENTS)
def test_without_the_extra_a_command_says_how_to_install_it(core, tmp_path, command):
    words = ("-m", f"sibert_jax.{command}", *ARGUMENTS[command])
    done = run(core / "python", *words, cwd=tmp_path, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "pip install 'sibert_jax[train]'" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ARGUMENTS)
def test_help_is_no_error(core, tmp_path, command):
    done = run(core / "python", "-m", f"sibert_jax.{command}", "--help", cwd=tmp_path)
    assert done.stdout.startswith("usage: ")


def test_the_core_has_the_optimizers_and_the_analysis(core, tmp_path):
    run(core / "python", "-c", "import sibert_jax.optim, sibert_jax.homogeneity", cwd=tmp_path)
    (tmp_path / "network.py").write_text(
        "import jax.numpy as jnp\n"
        "def ratio():\n    return lambda w: w / jnp.linalg.norm(w), jnp.ones(3)\n"
    )
    command = ("-m", "sibert_jax.homogeneity", "network:ratio")
    assert "certified." in run(core / "python", *command, cwd=tmp_path).stdout
