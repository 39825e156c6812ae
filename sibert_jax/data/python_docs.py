"""English text found on every machine with Python: documentation topics and docstrings.

Source files are parsed, never imported. The text is gathered once per cache directory and Python
version, so that a later `pip install` does not change the data of a run.
"""

import ast
import dataclasses
import importlib.util
import inspect
import os
import pathlib
import re
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator

from sibert_jax.data.cache import FORMAT_VERSION, Cache, digest
from sibert_jax.data.documents import Source, split_sentences
from sibert_jax.data.text_files import text_source
from sibert_jax.errors import DataError

MAX_TEXT_BYTES = 8_000_000
MAX_SOURCE_BYTES = 40_000_000  # parsed in about ten seconds
MAX_FILE_BYTES = 1_000_000
MIN_DOCUMENTED = 0.2  # fraction of a file in triple quotes that makes it worth parsing
MIN_SENTENCES = 2
SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "testing", "_vendor", "lib2to3", "site-packages", "dist-packages"}
)

_ROLE = re.compile(r":[a-z][a-z:-]*:`")
_LINK = re.compile(r"\s*<[^<>\s]*>`_*")
_NOT_PROSE = re.compile(r"""[<>{}|=\\@#~^\[\]*]|::|\.\.\s|--|\w\(|://|(?:^|\s)[:$]|\w\.\w+\.\w""")
_PROSE_START = re.compile(r"""["'(]?[A-Z]""")
_PROSE_END = re.compile(r"""[.!?]["')]?$""")
_UNDERLINE = re.compile(r"""([=\-~^*"'`#+.])\1{2,}\s*$""")
MIN_WORDS = 5
MIN_LETTERS = 0.75  # fraction of the characters


def builtin_source(cache: Cache, progress: Callable[[str], None]) -> Source:
    """Returns the documentation found in this Python installation, one document per module.

    Raises:
      DataError: if there is too little text for training.
    """

    def build(directory: pathlib.Path) -> dict:
        progress("gathering English from Python's documentation and docstrings (once)")
        with open(directory / "python_docs.txt", "w", encoding="utf-8") as file:
            for document in gather_documents(_texts()):
                file.write("\n".join(document) + "\n\n")
            if not file.tell():
                raise DataError('data.source="builtin" found no docstrings on this machine')
        return {"python": sys.version}

    version = ".".join(map(str, sys.version_info[:2]))
    limits = (MAX_TEXT_BYTES, MAX_SOURCE_BYTES, MAX_FILE_BYTES, MIN_DOCUMENTED, MIN_SENTENCES)
    key = digest(FORMAT_VERSION, *limits, MIN_WORDS, MIN_LETTERS)
    entry = cache.load_or_build(f"builtin-{version}-{key}", build)
    source = text_source((str(entry.path / "python_docs.txt"),), "data.source", "paragraphs")
    return dataclasses.replace(source, name="Python's documentation")


def gather_documents(
    texts: Iterator[list[str]], max_bytes: int = MAX_TEXT_BYTES
) -> Iterator[list[str]]:
    """Yields the prose of modules, each sentence once, up to `max_bytes`.

    Args:
      texts: the docstrings of each module.
      max_bytes: the total size to stop at, in bytes.
    """
    seen: set[str] = set()
    num_bytes = 0
    for docstrings in texts:
        document = []
        num_sentences = 0
        for docstring in docstrings:
            for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
                sentences = [s for s in prose_sentences(paragraph) if s.lower() not in seen]
                seen.update(s.lower() for s in sentences)
                num_sentences += len(sentences)
                if sentences:
                    document.append(" ".join(sentences))
        if num_sentences >= MIN_SENTENCES:
            yield document
            num_bytes += sum(len(paragraph.encode()) + 1 for paragraph in document)
        if num_bytes >= max_bytes:
            return


def prose_sentences(paragraph: str) -> Iterator[str]:
    """Yields the sentences of a docstring's paragraph that are English prose.

    Example:
      >>> text = "Return the :func:`len` of ``x``, which is known.  See x[0] = 1 for that one."
      >>> list(prose_sentences(text))
      ['Return the len of x, which is known.']
    """
    lines = [line.strip() for line in paragraph.splitlines()]
    if any(line.startswith((">>>", "...", "$ ", ".. ")) for line in lines):
        return
    lines = [line for line in lines if not _UNDERLINE.match(line)]
    text = " ".join(" ".join(lines).split())
    text = _LINK.sub("", _ROLE.sub("`", text)).replace("`", "")
    for sentence in split_sentences(text):
        letters = sum(char.isalpha() or char == " " for char in sentence)
        if (
            sentence.isascii()
            and len(sentence.split(" ")) >= MIN_WORDS
            and letters >= MIN_LETTERS * len(sentence)
            and _PROSE_START.match(sentence)
            and _PROSE_END.search(sentence)
            and not _NOT_PROSE.search(sentence)
        ):
            yield sentence


def _texts() -> Iterator[list[str]]:
    """Yields the docstrings of each module: topics, standard library, installed packages."""
    yield from _topics()
    num_bytes = 0
    for path in _source_files():
        try:
            source = path.read_bytes()
            if len(source) > MAX_FILE_BYTES or not _is_documented(source):
                continue
            num_bytes += len(source)
            if num_bytes > MAX_SOURCE_BYTES:
                return
            tree = _parse(source)
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # packages contain templates and files for other Python versions
        yield list(_docstrings(tree))


def _topics() -> Iterator[list[str]]:
    """Yields the pages behind `help("TOPIC")`."""
    spec = importlib.util.find_spec("pydoc_data")
    for folder in spec.submodule_search_locations if spec else ():
        path = pathlib.Path(folder) / "topics.py"
        if path.exists():
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.Dict):
                    yield from ([page] for page in ast.literal_eval(node).values())


def _source_files() -> Iterator[pathlib.Path]:
    """Yields the Python files of the standard library, then of the packages, each sorted."""
    roots = dict.fromkeys(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    for root in roots:
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = sorted(s for s in subfolders if s not in SKIPPED_FOLDERS)
            for name in sorted(names):
                if name.endswith(".py"):
                    yield pathlib.Path(folder, name)


def _parse(source: bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about invalid escapes in strings
        return ast.parse(source)


def _is_documented(source: bytes) -> bool:
    between_quotes = sum(map(len, source.split(b'"""')[1::2]))
    return between_quotes > MIN_DOCUMENTED * len(source)


def _docstrings(tree: ast.Module) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds):
            docstring = ast.get_docstring(node, clean=False)
            if docstring:
                yield docstring
