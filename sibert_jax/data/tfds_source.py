"""Text from prepared TensorFlow Datasets, never downloaded; only TFRECORD needs TensorFlow."""

import contextlib
import importlib.util
import pathlib
import re
from collections.abc import Callable, Iterator

from sibert_jax.data.documents import (
    MAX_DOCUMENT_CHARS,
    Document,
    Source,
    shortened,
    split_at_spaces,
)
from sibert_jax.errors import DataError, named_by
from sibert_jax.files import user_path

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_PATH = re.compile(r"(?P<directory>.+?)(?::(?P<split>[^/:\[]+(?:\[[^\]]*\])?))?")
# wiki40b marks its structure with words on separate lines.
_TITLE_MARKS = frozenset({"_START_ARTICLE_", "_START_SECTION_"})
_PARAGRAPH_MARK = "_START_PARAGRAPH_"
_NEWLINE_MARK = "_NEWLINE_"


def tfds_source(paths: tuple[str, ...], split: str, feature: str, key: str) -> Source:
    """Returns the examples of prepared directories as documents, one paragraph per line.

    Args:
      paths: each a directory with `dataset_info.json`, or `DIR:SPLIT`.
      split: the split of a directory named without one; slices such as "train[:99%]" work.
      feature: the name of the text feature.
      key: the config key that names them, such as "data.path".

    Raises:
      DataError: if nothing is prepared there, the split or the feature is missing, or it is
        prepared as TFRECORD and TensorFlow is not installed.
    """
    pairs = [_directory_and_split(path, split) for path in paths]
    feature_key = " (data.tfds_feature)"
    with named_by(key):
        readers = [_reader(directory, split, (feature,), feature_key) for directory, split in pairs]
    files = tuple(
        file for directory, _ in pairs for file in sorted(directory.iterdir()) if file.is_file()
    )

    def documents() -> Iterator[Document]:
        with named_by(key):
            for (directory, _), read in zip(pairs, readers):
                for i, example in enumerate(_examples(read, directory)):
                    yield from _documents(example[feature], directory, i)

    return Source(
        key=key,
        name=shortened([f"{directory.name}:{split}" for directory, split in pairs], "sets"),
        files=files,
        documents=documents,
        parts=tuple(f"{directory.resolve()}:{split}" for directory, split in pairs),
        options=(feature, *(split for _, split in pairs)),
    )


def tfds_examples(path: str, features: tuple[str, ...]) -> Iterator[dict]:
    """Yields the examples of a prepared `DIR:SPLIT`, each with at least the given features.

    Raises:
      DataError: as for `tfds_source`.
    """
    directory, split = _directory_and_split(path, "")
    if not split:
        raise DataError(f"{path} names no split; write {path}:train or another split")
    return _examples(_reader(directory, split, features), directory)


def _directory_and_split(path: str, split: str) -> tuple[pathlib.Path, str]:
    match = _PATH.fullmatch(path)
    return user_path(match["directory"]), match["split"] or split


def _reader(
    directory: pathlib.Path, split: str, features: tuple[str, ...], key: str = ""
) -> Callable[[], Iterator[dict]]:
    """Returns a function that iterates over the examples of one split."""
    if not (directory / "dataset_info.json").is_file():
        raise DataError(
            f"no prepared dataset in {directory} (it holds no dataset_info.json); prepare one "
            f"where downloads are allowed with: {prepare_command(directory)}"
        )
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(
            f'data.source="tfds" needs tensorflow_datasets ({error}); '
            "pip install 'sibert_jax[tfds]'"
        ) from error
    try:
        builder = tfds.builder_from_directory(directory)
    except Exception as error:  # a damaged description raises many kinds of error
        raise _unreadable(directory, error) from error
    if missing := [name for name in features if name not in builder.info.features]:
        raise DataError(
            f"{directory} has no feature {missing[0]!r}{key} but "
            f"{', '.join(sorted(builder.info.features))}"
        )
    unknown = {part.split("[")[0] for part in split.split("+")} - set(builder.info.splits)
    if unknown:
        raise DataError(
            f"{directory} has no split {min(unknown)!r} (data.tfds_split) but "
            f"{', '.join(sorted(builder.info.splits))}"
        )
    if builder.info.file_format.value == "tfrecord":
        return _tensorflow_reader(builder, split, directory)
    try:
        source = builder.as_data_source(split)
    except (ValueError, NotImplementedError) as error:
        raise _unreadable(directory, error) from error
    return lambda: (source[i] for i in range(len(source)))


def _examples(read: Callable[[], Iterator[dict]], directory: pathlib.Path) -> Iterator[dict]:
    try:
        yield from read()
    except Exception as error:  # the readers raise many kinds of error
        raise _unreadable(directory, error) from error


def _unreadable(directory: pathlib.Path, error: Exception) -> DataError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(f"cannot read {directory}: {reason}")


def _tensorflow_reader(
    builder, split: str, directory: pathlib.Path
) -> Callable[[], Iterator[dict]]:
    """Returns the reader of a dataset prepared as TFRECORD, which needs TensorFlow."""
    if importlib.util.find_spec("tensorflow") is None:
        raise DataError(
            f"{directory} is prepared as tfrecord, which needs TensorFlow: pip install "
            f"'sibert_jax[tf]', or prepare it again with: {prepare_command(directory)}"
        )
    import tensorflow as tf
    import tensorflow_datasets as tfds

    with contextlib.suppress(RuntimeError):  # too late once they are in use
        tf.config.set_visible_devices([], "GPU")  # leave their memory to JAX
    one_file_at_a_time = tfds.ReadConfig(interleave_cycle_length=1)
    dataset = builder.as_dataset(split=split, shuffle_files=False, read_config=one_file_at_a_time)
    return lambda: iter(tfds.as_numpy(dataset))


def _documents(text, directory: pathlib.Path, index: int) -> Iterator[Document]:
    if not isinstance(text, str | bytes):
        raise DataError(f"example {index} of {directory} holds {type(text).__name__}, not text")
    try:
        text = text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise DataError(f"example {index} of {directory} is not UTF-8: {error}") from error
    document = [
        part
        for paragraph in paragraphs(text)
        for part in split_at_spaces(paragraph, MAX_DOCUMENT_CHARS)
    ]
    if document:
        yield document


def paragraphs(text: str) -> Iterator[str]:
    """Yields the non-blank lines of an example, without the marks of wiki40b.

    Example:
      >>> list(paragraphs("_START_ARTICLE_\\nBerne\\n_START_PARAGRAPH_\\nA city._NEWLINE_Old."))
      ['A city.', 'Old.']
    """
    is_title = False
    for line in text.replace(_NEWLINE_MARK, "\n").splitlines():
        line = line.strip()
        if line in _TITLE_MARKS:
            is_title = True
        elif line and line != _PARAGRAPH_MARK:
            if not is_title:
                yield line
            is_title = False


def prepare_command(directory: pathlib.Path) -> str:
    """Returns the command that prepares a dataset in the expected directory.

    Example:
      >>> command = prepare_command(pathlib.Path("/data/lm1b/1.1.0"))
      >>> "tfds.builder('lm1b', data_dir='/data', file_format='array_record')" in command
      True
    """
    parts = [part for part in directory.parts if not _VERSION.fullmatch(part)]
    if "tensorflow_datasets" in parts[:-1]:
        split_at = parts.index("tensorflow_datasets") + 1
    else:
        split_at = len(parts) - 1
    data_dir, name = pathlib.Path(*parts[:split_at]), "/".join(parts[split_at:])
    return (
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', data_dir='{data_dir}', file_format='array_record')"
        '.download_and_prepare()"'
    )
