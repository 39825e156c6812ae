"""Where the picture of the command places modules and tensors."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.homogeneity.flow import column, lanes, without_common_prefix

NAMES = st.sampled_from("abcdefg")
LINKS = st.lists(st.tuples(NAMES, NAMES, st.sampled_from("012")), max_size=12).map(
    lambda links: [link for link in dict.fromkeys(links) if link[0] != link[1]]
)


@settings(max_examples=100, database=None)
@given(LINKS)
def test_every_link_has_its_own_lane_and_lanes_do_not_overlap(links):
    nodes = column(links)
    assert sorted(nodes) == sorted({node for link in links for node in link[:2]})
    ways = lanes(nodes, links)
    drawn = {(nodes[w.source], nodes[target], w.degree) for w in ways for target in w.targets}
    assert drawn == set(links)
    for i, a in enumerate(ways):
        for b in ways[:i]:
            assert a.number != b.number or a.rows[1] < b.rows[0] or b.rows[1] < a.rows[0]


def test_modules_stand_in_the_order_in_which_they_compute():
    links = [("embed", "head", "1"), ("embed", "layer", "1"), ("layer", "top", "2")]
    links += [("layer", "head", "2"), ("head", "loss", "0")]
    assert column(links) == ["embed", "layer", "top", "head", "loss"]


def test_paths_lose_the_names_that_all_begin_with():
    assert without_common_prefix(["m/a/x", "m/a/y", "loss", ""]) == ["x", "y", "loss", ""]
    assert without_common_prefix(["m/a", "m"]) == ["a", "m"]
    assert without_common_prefix(["m/a", "n/a"]) == ["m/a", "n/a"]
