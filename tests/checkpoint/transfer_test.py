"""What another run's parameters become in a new one, and which sources are refused."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.checkpoint import CheckpointError, Checkpoints, manifest, start_from
from tests.checkpoint.conftest import DESCRIPTION, make_state


@pytest.fixture
def fresh():
    """Another task's: the encoder and the pooler are alike; `nsp` has another shape."""
    params = jax.tree.map(jnp.zeros_like, make_state(1)[0])
    params["head"]["classifier"] = {"kernel": jnp.full((4, 3), 7.0)}
    params["head"]["nsp"] = {"kernel": jnp.zeros((4, 3))}
    return params


def test_the_encoder_and_what_fits_of_the_head_are_taken_and_told(two, fresh):
    lines, description = [], copy.deepcopy(DESCRIPTION)
    description["config"]["model"]["dropout"] = 0.0
    params = start_from(two, fresh, description, lines.append)
    stored, _ = make_state(2)
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], stored["encoder"])
    np.testing.assert_array_equal(
        params["head"]["pooler"]["kernel"], stored["head"]["pooler"]["kernel"]
    )
    for name in ("classifier", "nsp"):
        assert params["head"][name]["kernel"] is fresh["head"][name]["kernel"]
    assert lines == [
        f"parameters from {two / 'checkpoints/2'} (step 2, commit 0123456789): encoder, head/pooler"
        " taken; head/classifier, head/nsp fresh; model.dropout 0.1 there, 0.0 here"
    ]


def test_of_a_run_with_an_average_the_average_is_taken(tmp_path, fresh):
    params, rest = make_state(2)
    average = jax.tree.map(lambda x: x + 1, params)
    with Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(2, params, rest | {"averages": average}, DESCRIPTION)
    found = start_from(tmp_path, fresh, DESCRIPTION, lambda line: None)
    jax.tree.map(np.testing.assert_array_equal, found["encoder"], average["encoder"])


def test_another_vocabulary_or_encoder_is_refused(two, fresh):
    with pytest.raises(CheckpointError, match=r"another vocabulary \(hash a{12}\) than .*bb"):
        start_from(two, fresh, DESCRIPTION | {"vocab_hash": "b" * 64})
    description = copy.deepcopy(DESCRIPTION)
    description["config"]["model"]["width"] = 8
    fresh["encoder"]["embed"]["token"] = jnp.zeros((12, 4))
    with pytest.raises(CheckpointError, match=r"embed/token .* \(11, 4\).*width 4 there, 8 here"):
        start_from(two, fresh, description)
    del fresh["encoder"]["embed"]
    with pytest.raises(CheckpointError, match="has the leaf encoder/embed/token"):
        start_from(two, fresh, DESCRIPTION)


MNLI = ["entailment", "neutral", "contradiction"]
KERNEL = jnp.arange(12.0).reshape(4, 3)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The directory of a classifier's checkpoint and its parameters."""
    directory, (params, rest) = tmp_path_factory.mktemp("classifier"), make_state(1)
    params["head"] = {"classifier": {"kernel": KERNEL, "bias": jnp.arange(3.0)}}
    with Checkpoints(directory, 1) as checkpoints:
        checkpoints.save(1, params, rest, DESCRIPTION)
    return directory, params


@pytest.mark.parametrize(
    ("theirs", "ours", "order", "said"),
    [
        (MNLI, MNLI, [0, 1, 2], None),
        (None, MNLI, [0, 1, 2], None),
        (MNLI, None, [0, 1, 2], None),
        (["CONTRADICTION", "Entailment", "neutral"], MNLI, [1, 2, 0], "reordered: CONTRADICTI"),
        (["LABEL_2", "LABEL_0", "LABEL_1"], ["0", "1", "2"], [1, 2, 0], "reordered: LABEL_2"),
        (
            ["LABEL_0", "LABEL_1", "LABEL_2"],
            MNLI,
            None,
            "not taken, because its labels are LABEL_0, ",
        ),
        (["a", "a", "b"], ["a", "b", "a"], None, "not taken, because its labels are a, a, b there"),
    ],
)
def test_a_classifier_is_put_into_the_order_of_the_labels(classifier, theirs, ours, order, said):
    source, params = classifier
    fresh = jax.tree.map(jnp.zeros_like, params)
    there, here = (DESCRIPTION | ({} if x is None else {"labels": x}) for x in (theirs, ours))
    stored = manifest.read(source / "1")
    dataclasses.replace(stored, run=there).write(source / "1")
    lines = []
    found = start_from(source, fresh, here, lines.append)["head"]["classifier"]
    wanted = jnp.zeros((4, 3)) if order is None else KERNEL[:, jnp.array(order)]
    np.testing.assert_array_equal(found["kernel"], wanted)
    np.testing.assert_array_equal(found["bias"], jnp.zeros(3) if order is None else order)
    assert (said or "") in lines[0]
    assert ("labels" in lines[0] or "order" in lines[0]) == (said is not None)


@pytest.mark.parametrize(
    ("module", "leaves"),
    [
        ("tagger", {"kernel": KERNEL, "bias": jnp.arange(3.0)}),
        ("classifier", {"rows": KERNEL.T}),  # of the invariant head: a row for each label
    ],
)
def test_the_outputs_of_every_head_are_put_in_order(tmp_path, module, leaves):
    params, rest = make_state(1)
    params["head"] = {module: leaves}
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(1, params, rest, DESCRIPTION | {"labels": ["a", "b", "c"]})
    fresh, lines = jax.tree.map(jnp.zeros_like, params), []
    here = DESCRIPTION | {"labels": ["b", "c", "a"]}
    found = start_from(tmp_path, fresh, here, lines.append)["head"][module]
    order = jnp.array([1, 2, 0])
    wanted = {k: x[order] if k == "rows" else x[..., order] for k, x in leaves.items()}
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert f"head/{module} is reordered: a, b, c there, b, c, a here" in lines[0]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [((0.0, 1.0), (250.0, 150.0)), ((1.0, 0.8), (-3.0, 0.1)), (None, (1.0, 2.0))],
)
def test_a_score_stays_the_same_in_the_unit_of_the_data(tmp_path, theirs, ours):
    params, rest = make_state(1)
    params["head"] = {"classifier": {"kernel": KERNEL[:, :1], "bias": jnp.array([2.0])}}
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(
            1, params, rest, DESCRIPTION | {"labels": ["LABEL_0"]} | {"score_map": theirs}
        )
    fresh = jax.tree.map(jnp.zeros_like, params)
    here = DESCRIPTION | {"labels": ["score"], "score_map": ours}
    found = start_from(tmp_path, fresh, here, lambda line: None)
    x = jnp.array([[0.1, -0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0]])
    scores = [
        shift
        + scale
        * (x @ tree["head"]["classifier"]["kernel"] + tree["head"]["classifier"]["bias"][None])
        for tree, (shift, scale) in (
            (params, theirs or (0, 1)),
            (found, ours if theirs else (0, 1)),
        )
    ]
    np.testing.assert_allclose(*scores, rtol=1e-5)
