"""The commands of docs/performance.md are legal, and its names and links are there."""

import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from benchmarks import __main__ as command
from benchmarks.accelerator import __main__ as accelerator
from tests.docs_test import PRETRAINING

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
BENCH, ACCELERATOR, _, LARGE_PAGES, REMAT, _ = re.findall(
    r"^```bash\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL
)


def test_command_of_a_benchmark_is_legal():
    arguments = command.parse(shlex.split(BENCH)[3:])
    assert (arguments.name, arguments.repeats) == ("models", 3)


def test_command_for_accelerators_is_legal():
    arguments = accelerator.parse(shlex.split(ACCELERATOR)[3:])
    assert (str(arguments.out), arguments.minutes) == ("runs/accelerator", 25)


def test_every_benchmark_is_named_and_every_link_works():
    assert all(f"`{name}`" in PAGE for name in command.BENCHMARKS)
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


def test_documented_setting_gives_large_pages():
    assert LARGE_PAGES.strip() in (ROOT / "Makefile").read_text().replace(
        "GLIBC_TUNABLES = ", "GLIBC_TUNABLES="
    )
    offered = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not offered.exists() or "[never]" in offered.read_text():
        pytest.skip("this kernel gives no large pages")
    count = (
        "import re; array = b'1' * (1 << 28); "
        "print(re.search(r'AnonHugePages: +(\\d+)', open('/proc/self/smaps_rollup').read())[1])"
    )
    command = f'{LARGE_PAGES}\n"{sys.executable}" -c "{count}"'
    kilobytes = int(subprocess.check_output(["bash", "-c", command]))
    assert kilobytes >= 1 << 17  # half of the array


@pytest.mark.slow
def test_command_of_the_remat_table_runs():
    words = shlex.split(REMAT.replace("\\\n", " "))
    words += [f"--config.{key}={value}" for key, value in PRETRAINING.items()]
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "activations and other temporaries" in done.stdout
