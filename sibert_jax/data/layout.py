"""Whether the lines of a text are paragraphs or parts of wrapped ones, and the way back."""

import itertools
from collections.abc import Iterable, Iterator

LAYOUTS = ("auto", "paragraphs", "wrapped")
SAMPLE_CHARS = 1_000_000  # at the start of a text, by which it is judged
MAX_PARAGRAPH_CHARS = 500_000

# Real novels wrapped by hand have 0.8 to 1 of `full`, verse up to 0.2, paragraphs and sentences on
# lines of their own 0.05; of `continued` wrapped prose has 0.8 to 0.95, the others 0 to 0.15.
MIN_PAIRS = 4
MIN_WIDTH = 30
MIN_FULL = 0.6
MIN_CONTINUED = 0.3
MAX_ENDED = 0.5
LONGEST_WORD = 15
_CLOSING = "\"'”’»)]"
_SENTENCE_ENDS = tuple(".!?…。！？")


def is_wrapped(lines: Iterable[str]) -> bool:
    """Whether lines are broken at a width, as in the files of Project Gutenberg.

    Of a line that was broken at a width, the next word would not have fit; few such lines end a
    sentence, and many of the next lines go on in lower case. All three are asked of the first
    million characters, so that verse, and sentences or paragraphs with a line each, are not taken
    for it.

    Args:
      lines: without their line ends.

    Example:
      >>> import textwrap
      >>> sentence = "A line of a wrapped text ends where the next word would not have fit. "
      >>> is_wrapped(textwrap.wrap(sentence * 3, width=40))
      True
      >>> is_wrapped([sentence] * 9)
      False
    """
    pairs = list(_neighbours(lines))
    if len(pairs) < MIN_PAIRS:
        return False
    lengths = sorted(len(line) for line, _ in pairs)
    width = lengths[int(0.95 * (len(lengths) - 1))]  # a few lines are too long for any width
    full = sum(
        len(line) + 1 + min(len(following.split(None, 1)[0]), LONGEST_WORD) > width
        for line, following in pairs
    )
    continued = sum(_is_continuation(following) for _, following in pairs)
    ended = sum(line.rstrip(_CLOSING).endswith(_SENTENCE_ENDS) for line, _ in pairs)
    return (
        width >= MIN_WIDTH
        and full >= MIN_FULL * len(pairs)
        and continued >= MIN_CONTINUED * len(pairs)
        and ended <= MAX_ENDED * len(pairs)
    )


def _neighbours(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yields each two lines of the sample that would be one paragraph if the text is wrapped."""
    num_chars = 0
    for line, following in itertools.pairwise(map(str.rstrip, lines)):
        if line and following and not _begins_paragraph(line, following):
            yield line, following
        num_chars += len(line) + 1
        if num_chars >= SAMPLE_CHARS:
            return


def _is_continuation(line: str) -> bool:
    first = line.lstrip()[0]
    return first.isalpha() and not first.isupper()


def _begins_paragraph(line: str, following: str) -> bool:
    """Whether a line is indented after one that is not."""
    return following[0].isspace() and not line[0].isspace()


def line_paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """Yields each line as a paragraph, and "" where a document ends: at a blank line."""
    return map(str.strip, lines)


def joined_paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """Yields the paragraphs of a wrapped text, and "" where a document ends.

    A paragraph ends at a blank line or before an indented one, a document at two or more blank
    lines. Titles, paragraphs of one line, stay with the text that follows.

    Example:
      >>> list(joined_paragraphs(["A TITLE", "", "", "Not", "long.", "", "", "Two.", "", "Three."]))
      ['A TITLE', 'Not long.', '', 'Two.', 'Three.']
    """
    paragraph, before = "", ""
    num_blank, has_text = 0, False
    for line in map(str.rstrip, lines):
        ends = not line or (before and _begins_paragraph(before, line))
        if paragraph and (ends or len(paragraph) >= MAX_PARAGRAPH_CHARS):
            yield paragraph
            paragraph = ""
        num_blank = 0 if line else num_blank + 1
        if num_blank == 2 and has_text:
            yield ""
            has_text = False
        if line:
            has_text = has_text or bool(paragraph)
            # A word or a dash is cut at its hyphen; a dash between spaces is not.
            glued = paragraph.endswith("-") and not paragraph.endswith(" -")
            paragraph += line.strip() if glued or not paragraph else f" {line.strip()}"
        before = line
    if paragraph:
        yield paragraph
