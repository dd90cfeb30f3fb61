"""Contexts become vectors of a fixed layout; everything wrong is named."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.catalog import (
    CategoryFeature,
    EmbeddingFeature,
    NumberFeature,
    Schema,
    TextFeature,
    TokenCountFeature,
)
from bandit.encoder import CLIP, CONTENT, MAX_TEXT, Context, Encoder, feature_names
from bandit.errors import FieldError
from bandit.text import TEXT_DIM, estimate_tokens, text_feature_names, text_features

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
def test_what_is_wrong_is_named(context: dict[str, object], field: str) -> None:
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


# --- text --------------------------------------------------------------------------------------------------------------


@given(st.one_of(st.text(max_size=300), st.text(alphabet="\ud800\udfff\x00 a1\n", max_size=50)))
def test_any_text_has_finite_bounded_features(text: str) -> None:
    features = text_features(text)
    assert features.shape == (TEXT_DIM,)
    assert np.isfinite(features).all()
    assert np.abs(features).max() <= 1.25 + 1e-9
    assert estimate_tokens(text) >= 0


def test_features_are_the_same_everywhere_and_always() -> None:
    features = text_features("Write a python function to copy a list from a singleton tuple.")
    named = dict(zip(text_feature_names(), features, strict=True))
    assert named["text/log_length"] == pytest.approx((math.log1p(62) - 6.0) / 2.0 / 2.4)
    assert named["text/code_words"] > 0 > text_features("Tell me of the sea.")[4]
    words = features[-16:]
    assert words @ words == pytest.approx(1.0)
    stored = [-0.1711, -0.1879, -0.0291, 0.0626]
    np.testing.assert_allclose(words[:4], stored, atol=1e-4)


def test_huge_and_empty_texts() -> None:
    assert np.isfinite(text_features("")).all()
    assert not text_features("  \n ")[-16:].any()
    huge = text_features("word and number 12, " * 500_000)
    np.testing.assert_array_equal(huge[1:], text_features("word and number 12, " * 1000)[1:])


def test_like_prompts_are_nearer_than_unlike_ones() -> None:
    maths = [text_features(f"Tom has {n} apples and gives 2 to Ann. How many apples are left?") for n in (3, 8)]
    code = text_features("def f(x):\n    return [i for i in x if i > 0]\n# explain this python function")
    assert np.linalg.norm(maths[0] - maths[1]) < 0.5 * np.linalg.norm(maths[0] - code)


def test_tokens_are_about_right() -> None:
    assert 8 <= estimate_tokens("The quick brown fox jumps over the lazy dog.") <= 14
    assert estimate_tokens("东京是日本的首都") == 8
    assert estimate_tokens("a" * 4_000_000) == 1_000_000
