import pytest

from sibert_jax.data import DataError


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"source": "wikipedia"}, "data.source must be one of builtin, text, tfds"),
        ({"source": "builtin", "path": "a.txt"}, "takes no data.path"),
        ({"path": "a", "layout": "lines"}, "data.layout must be one of auto, paragraphs, wrapped"),
        ({"source": "tfds", "path": "a", "layout": "wrapped"}, 'needs data.source="text", not '),
        ({"path": "a,b", "weights": (1.0,)}, "holds 1 numbers for 2 corpora"),
        ({"path": "a", "weights": (1.0, 2.0)}, "holds 2 numbers for 1 corpora"),
        ({"source": "builtin", "weights": (1.0, 1.0)}, "holds 2 numbers for 1 corpora"),
        ({"path": "a,b", "weights": (1.0, 0.0)}, "must be positive"),
        ({"path": "a,b", "weights": (1.0, -2.0)}, "must be positive"),
        ({"path": "a,b", "weights": (1.0, float("nan"))}, "must be positive"),
        ({"path": "a,b", "weights": (1.0, float("inf"))}, "must be positive"),
        ({"path": "a", "valid_fraction": 0.0}, "data.valid_fraction must lie between 0 and 1"),
        ({"path": "a", "valid_fraction": 1.0}, "data.valid_fraction must lie between 0 and 1"),
        ({"path": "a", "vocab_size": 0}, "data.vocab_size must be positive"),
        ({"path": "a", "vocab_train_bytes": 0}, "data.vocab_train_bytes must be positive"),
        ({"path": "a", "cache_dir": ""}, "data.cache_dir must name a directory"),
    ],
)
def test_a_field_outside_its_range_is_named(make_spec, fields, complaint):
    with pytest.raises(DataError, match=complaint):
        make_spec(**fields)


def test_valid_fraction_is_not_read_where_held_out_text_is_named(make_spec):
    assert make_spec(path="a", valid_path="b", valid_fraction=0.0).paths == ("a",)
