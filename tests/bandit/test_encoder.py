"""Contexts are encoded to vectors of a fixed layout; invalid fields are named."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.bandit.catalog import (
    CategoryFeature,
    EmbeddingFeature,
    NumberFeature,
    Schema,
    TextFeature,
    TokenCountFeature,
)
from pointsman.bandit.encoder import CLIP, CONTENT, MAX_TEXT, Context, Encoder, feature_names
from pointsman.bandit.errors import FieldError
from pointsman.bandit.text import estimate_tokens, text_feature_names

SCHEMA = Schema(
    numbers=(NumberFeature("size", center=10, scale=5), NumberFeature("age", optional=True)),
    categories=(CategoryFeature("lang", ("en", "de")), CategoryFeature("tier", ("a",), optional=True, open=True)),
    embeddings=(EmbeddingFeature("v", 3, scale=2.0, optional=True),),
    text=TextFeature(optional=True),
    input_tokens=TokenCountFeature(optional=True),
)
ENCODER = Encoder(SCHEMA)
NAMES = feature_names(SCHEMA)


def encoded(**more: object) -> dict[str, float]:
    given_ = {"numbers": {"size": 10}, "categories": {"lang": "en"}, **more}
    x_d = ENCODER.encode(Context(**given_)).x_d  # type: ignore[arg-type]
    return dict(zip(NAMES, x_d, strict=True))


def test_the_layout() -> None:
    assert NAMES[:8] == ["size", "age", "lang=en", "lang=de", "tier=a", "v/0", "v/1", "v/2"]
    assert NAMES[8:-3] == text_feature_names()
    assert NAMES[-3:] == ["log_input_tokens", "age=missing", "intercept"]
    assert ENCODER.dim == len(NAMES) == len(set(NAMES))


def test_values() -> None:
    x = encoded(numbers={"size": 20, "age": 1e9}, embeddings={"v": [0.3, 0, -0.3]}, input_tokens=255)
    assert x["size"] == 2.0
    assert x["age"] == CLIP
    assert (x["lang=en"], x["lang=de"], x["tier=a"]) == (1.0, 0.0, 0.0)
    assert x["v/0"] == pytest.approx(0.6 * CONTENT)
    assert x["v/2"] == pytest.approx(-0.6 * CONTENT)
    assert x["log_input_tokens"] == pytest.approx(0.0, abs=1e-6)
    assert (x["age=missing"], encoded()["age=missing"]) == (0.0, 1.0)
    assert x["intercept"] == 1.0
    assert encoded(categories={"lang": "de", "tier": "unheard"})["tier=a"] == 0.0


def test_the_first_version_is_what_it_was() -> None:
    encoder = Encoder(SCHEMA, version=1)
    context = Context({"size": 20.0}, {"lang": "en"}, {"v": [30.0, 0.0, -0.3]})
    x = dict(zip(feature_names(SCHEMA, version=1), encoder.encode(context).x_d, strict=True))
    assert len(x) == encoder.dim == ENCODER.dim - 1 - (len(text_feature_names()) - len(text_feature_names(former=True)))
    assert (x["size"], x["age"], x["intercept"]) == (2.0, 0.0, 1.0)
    assert x["v/0"] == CLIP  # clipped by components, which turns the vector
    assert x["v/2"] == pytest.approx(-0.6 * CONTENT)


@given(st.lists(st.floats(-1e299, 1e299), min_size=3, max_size=3))
def test_an_embedding_keeps_its_direction(vector: list[float]) -> None:
    context = Context({"size": 10.0}, {"lang": "en"}, {"v": vector})
    encoded = ENCODER.encode(context)
    largest = max(map(abs, vector))
    x_d, length = encoded.x_d[5:8], largest and 2.0 * largest * np.linalg.norm(np.array(vector) / largest)
    assert np.linalg.norm(x_d) == pytest.approx(CONTENT * min(length, CLIP), rel=1e-5, abs=1e-30)
    assert encoded.measured_m[2] == pytest.approx(min(length, 1e300))
    if length > 1e-20:
        assert x_d @ (np.array(vector) / largest) > 0.0


def test_what_is_measured_is_not_clipped() -> None:
    encoded = ENCODER.encode(Context({"size": 1e6}, {"lang": "en"}, {"v": [30.0, 0.0, -40.0]}))
    np.testing.assert_allclose(encoded.measured_m, [(1e6 - 10) / 5, math.nan, 100.0])


def test_token_counts_come_from_the_text_if_not_given() -> None:
    text = "How many apples are left? " * 20
    given_ = {"numbers": {"size": 10}, "categories": {"lang": "en"}}
    assert ENCODER.encode(Context(**given_, text=text)).input_tokens == estimate_tokens(text)
    assert ENCODER.encode(Context(**given_, text=text, input_tokens=7)).input_tokens == 7
    assert ENCODER.encode(Context(**given_)).input_tokens == -1


@pytest.mark.parametrize(
    ("context", "field"),
    [
        ({"numbers": {}}, 'numbers["size"]'),
        ({"numbers": {"size": math.nan}}, 'numbers["size"]'),
        ({"numbers": {"size": -math.inf}}, 'numbers["size"]'),
        ({"numbers": {"size": 1, "sise": 1}}, 'numbers["sise"]'),
        ({"categories": {}}, 'categories["lang"]'),
        ({"categories": {"lang": "fr"}}, 'categories["lang"]'),
        ({"categories": {"lang": "en", "x": "y"}}, 'categories["x"]'),
        ({"embeddings": {"v": [1, 2]}}, 'embeddings["v"]'),
        ({"embeddings": {"v": [1, 2, math.inf]}}, 'embeddings["v"]'),
        ({"embeddings": {"w": [1, 2, 3]}}, 'embeddings["w"]'),
        ({"text": "x" * (MAX_TEXT + 1)}, "text"),
        ({"input_tokens": -1}, "input_tokens"),
        ({"max_output_tokens": 2**60}, "max_output_tokens"),
    ],
)
def test_errors_name_their_place(context: dict[str, object], field: str) -> None:
    whole = {"numbers": {"size": 1}, "categories": {"lang": "en"}, **context}
    with pytest.raises(FieldError) as caught:
        ENCODER.encode(Context(**whole))  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        (Schema(numbers=(NumberFeature("n"),)), 'numbers["n"]'),
        (Schema(embeddings=(EmbeddingFeature("e", 2),)), 'embeddings["e"]'),
        (Schema(text=TextFeature()), "text"),
        (Schema(input_tokens=TokenCountFeature()), "input_tokens"),
    ],
)
def test_what_is_required_is_missed(schema: Schema, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        Encoder(schema).encode(Context())
    assert caught.value.field == field


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.floats(-1e300, 1e300), min_size=3, max_size=3),
    st.text(max_size=60),
    st.integers(0, 2**40),
)
def test_vectors_are_finite_bounded_and_survive_single_precision(
    size: float, vector: list[float], text: str, tokens: int
) -> None:
    context = Context({"size": size}, {"lang": "de"}, {"v": vector}, text, tokens)
    x_d = ENCODER.encode(context).x_d
    assert np.isfinite(x_d).all()
    assert np.abs(x_d).max() <= CLIP
    np.testing.assert_array_equal(x_d, x_d.astype(np.float32).astype(np.float64))
    np.testing.assert_array_equal(x_d, ENCODER.encode(context).x_d)
