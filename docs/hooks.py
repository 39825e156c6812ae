"""Hooks of mkdocs.yml: the site also shows the files outside docs/ that its pages link to.

Pages link to other files of the repository as GitHub resolves them, by relative path. README.md is
the home page. Source files and folders without a README become pages; everything else, such as
pictures and JSON, is copied as it is. `::: PACKAGE` in a page shows all public names of a package.
"""

import importlib
import inspect
import os
import pathlib
import re

import griffe
import latex2mathml.converter
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = pathlib.Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
LANGUAGES = {".py": "python", ".sh": "bash", ".yml": "yaml"}


def on_files(files: Files, config) -> Files:
    """Adds every file that is reached from README.md and docs/ by links."""
    found = {ROOT / "docs" / file.src_uri for file in files.documentation_pages()}
    waiting = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *found]
    while waiting:
        path = waiting.pop()
        if path not in found:
            files.append(site_file(path, config))
        found.add(path)
        waiting += [target for target in targets(path) if target not in found]
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """Points links at the files of the site; a list may follow its paragraph without a gap."""
    source = pathlib.Path(page.file.abs_src_path or ROOT / page.file.src_uri)

    def link(match: re.Match) -> str:
        target = resolve(source, match[1])
        if target is None:
            return match[0]
        return os.path.relpath(uri(target), pathlib.PurePath(page.file.src_uri).parent)

    markdown = re.sub(r"^(?![-*\s|#>\d]).*\n(?=- |1\. )", r"\g<0>\n", markdown, flags=re.MULTILINE)
    return re.sub(r"^::: (\S+)$", reference, LINK.sub(link, markdown), flags=re.MULTILINE)


def reference(directive: re.Match) -> str:
    """A directive for each name in `__all__` of a package: functions, classes, then the rest.

    Functions and classes are named by where they are defined: a submodule may have the same name.
    """
    package = importlib.import_module(directive[1])
    public = {name: getattr(package, name) for name in getattr(package, "__all__", ())}
    defined = [x for x in public.values() if inspect.isfunction(x) or inspect.isclass(x)]
    paths = [f"{x.__module__}.{x.__qualname__}" for x in sorted(defined, key=inspect.isclass)]
    paths += [f"{directive[1]}.{name}" for name, x in public.items() if x not in defined]
    return "\n\n".join(f"::: {path}" for path in paths) or directive[0]


class Docstrings(griffe.Extension):
    """Reads "Example:", a section that griffe calls "Examples:", and formulas after `.. math::`."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring:
            found = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(
                r"^\.\. math::((?:.+|\n +)+)", formula, found, flags=re.MULTILINE
            )


def formula(latex: re.Match) -> str:
    """MathML, which browsers show without scripts."""
    text = " ".join(latex[1].split())
    if "&" in text:
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    return f"<div>{latex2mathml.converter.convert(text, display='block')}</div>"


def resolve(source: pathlib.Path, link: str) -> pathlib.Path | None:
    """The file that a link of a page means; None if there is none, which MkDocs reports."""
    target = (source.parent / link).resolve()
    if (target / "README.md").exists():
        return target / "README.md"
    return target if target.exists() and target.is_relative_to(ROOT) else None


def text(path: pathlib.Path) -> str:
    """The Markdown of a page."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    if path.is_dir():
        rows = (f"- [{file.name}]({path.name}/{file.name})\n" for file in sorted(path.glob("*.*")))
        return f"# {path.relative_to(ROOT)}\n\n" + "".join(rows)
    code = path.read_text(encoding="utf-8")
    return f"# {path.relative_to(ROOT)}\n\n````{LANGUAGES[path.suffix]}\n{code}\n````\n"


def is_page(path: pathlib.Path) -> bool:
    """Whether the site shows a file as a page."""
    return path.is_dir() or path.suffix == ".md" or path.suffix in LANGUAGES


def targets(path: pathlib.Path) -> list[pathlib.Path]:
    """The files that a page links to."""
    if not is_page(path) or path.suffix in LANGUAGES:
        return []
    found = (resolve(path, link) for link in LINK.findall(text(path)))
    return [target for target in found if target]


def uri(path: pathlib.Path) -> str:
    """Where a file of the repository is on the site."""
    for folder in (ROOT / "docs", ROOT):
        if path.is_relative_to(folder):
            name = path.relative_to(folder).as_posix()
            return f"{name}.md" if is_page(path) and path.suffix != ".md" else name
    raise AssertionError(path)


def site_file(path: pathlib.Path, config) -> File:
    """A file outside docs/ as MkDocs wants it."""
    given = {"content": text(path)} if is_page(path) else {"abs_src_path": str(path)}
    return File.generated(config, uri(path), inclusion=InclusionLevel.NOT_IN_NAV, **given)
