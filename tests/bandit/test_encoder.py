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
    assert NAMES[8:-2] == text_feature_names()
    assert NAMES[-2:] == ["log_input_tokens", "intercept"]
    assert ENCODER.dim == len(NAMES) == len(set(NAMES))


def test_values() -> None:
    x = encoded(numbers={"size": 20, "age": 1e9}, embeddings={"v": [0.3, 0, -0.3]}, input_tokens=255)
    assert x["size"] == 2.0
    assert x["age"] == CLIP
    assert (x["lang=en"], x["lang=de"], x["tier=a"]) == (1.0, 0.0, 0.0)
    assert x["v/0"] == pytest.approx(0.6 * CONTENT)
    assert x["v/2"] == pytest.approx(-0.6 * CONTENT)
    assert x["log_input_tokens"] == pytest.approx(0.0, abs=1e-6)
    assert x["intercept"] == 1.0
    assert encoded(categories={"lang": "de", "tier": "unheard"})["tier=a"] == 0.0


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
