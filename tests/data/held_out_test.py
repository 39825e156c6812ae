import math

import pytest

from sibert_jax.data.documents import document_parts as cut

DOCUMENTS = {
    "short": (["aa bb"], [["aa bb"]]),
    "exact": (["aaaaa", "bbbbb"], [["aaaaa", "bbbbb"]]),
    "paragraphs": (["aaaa"] * 6, [["aaaa"] * 3, ["aaaa"] * 3]),
    "long paragraph": (["aaaa bbbb cccc dddd eeee"], [["aaaa bbbb", "cccc dddd", "eeee"]]),
    "short rest": (["aaaa"] * 7, [["aaaa"] * 3, ["aaaa"] * 4]),
    "no spaces": (["a" * 27], [["a" * 10], ["a" * 10], ["a" * 7]]),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_are_cut_into_pieces_that_are_not_much_shorter(name):
    document, pieces = DOCUMENTS[name]
    assert cut(document, 10) == pieces
    assert cut(document, math.inf) == [document]
