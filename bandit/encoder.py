"""Encoder of a request's context to the feature vector ``x`` of a bucket's regressions.

Every number and category is scaled to a length of about 1, every group of content features (an embedding, the text's marks,
the text's words) to about ``CONTENT``, so that one prior precision suits them all: a priori a declared number or category may
move a prediction more than what can be made of the content, whatever its dimension. The intercept is last. Where numbers or
embeddings prove not to be of the declared scale, ``Encoder.rescale`` puts the scale in that the bucket has found
(``bandit.feature_scales``). Values are rounded to single precision, which is how the journal keeps them; a fold therefore sees
exactly the numbers that the decision saw.

What features mean must not change under what was learned from them: a bucket keeps the encoder ``VERSION`` of the event that
declared its schema.

>>> from pointsman.bandit.catalog import CategoryFeature, NumberFeature
>>> schema = Schema(numbers=(NumberFeature("size", scale=10.0),), categories=(CategoryFeature("lang", ("de", "en")),))
>>> feature_names(schema)
['size', 'lang=de', 'lang=en', 'intercept']
>>> encoder_of(schema).encode(Context(numbers={"size": 5.0}, categories={"lang": "en"})).x_d.tolist()
[0.5, 0.0, 1.0, 1.0]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dnrm2

from pointsman.bandit.catalog import Schema
from pointsman.bandit.errors import FieldError
from pointsman.bandit.feature_scales import CLIP, UNSEEN, FeatureScales, score
from pointsman.bandit.packed import Array
from pointsman.bandit.text import estimate_tokens, text_feature_names, text_features

VERSION = 2
"""The encoder of buckets whose schema is declared now. Version 1, of Pointsman 0.1, has no places that say that an optional
number is missing, clips embeddings by their components, does not rescale, and has other words of texts."""
CONTENT = 1.0 / 3.0
"""Length of content features: with the prior's precision of 8, as if each had one of 72. Found on validation data, where 8 let
tens of weak directions add more noise than signal and 128 was best with the task known, 32 without."""
MAX_TEXT = 1 << 20
"""Longest prompt text taken, in characters."""
_TOKEN_CENTER = math.log(256.0)
_TOKEN_SCALE = 2.0
MAX_TOKENS = 2**40
"""Largest number of tokens taken."""
LARGEST = 1e300
"""Measured values are kept within ±1e300."""
NOTHING_MEASURED = np.zeros(0)
"""What is measured of a context without numbers and embeddings."""


@dataclass(frozen=True, slots=True)
class Context:
    """The context of one request before the call; ``Schema`` declares the fields that a bucket accepts."""

    numbers: Mapping[str, float] = field(default_factory=dict)
    categories: Mapping[str, str] = field(default_factory=dict)
    embeddings: Mapping[str, Sequence[float] | npt.NDArray[np.float32]] = field(default_factory=dict)
    text: str | None = None
    input_tokens: int | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """A context as the policy sees it: ``x_d`` with the intercept last, and token counts (-1 when unknown).

    ``max_input_tokens`` is an upper bound of the input tokens: their number, or, if that is only estimated, the text's length in
    bytes. ``measured_m`` are the context's numbers in declared scales from their declared centers, and the lengths of its
    embeddings times their declared scales; NaN for what is missing.
    """

    x_d: npt.NDArray[np.float64]
    input_tokens: int
    max_output_tokens: int
    max_input_tokens: int = -1
    measured_m: npt.NDArray[np.float64] = field(default_factory=lambda: NOTHING_MEASURED)


class Encoder:
    """A schema made ready to encode contexts. Immutable; ``dim`` counts the intercept, ``content`` are the places of features
    made of the content (embeddings, text), ``measured`` (m) is how many numbers and embeddings there are.
    """

    def __init__(self, schema: Schema, version: int = VERSION) -> None:
        self.schema, self.version = schema, version
        self._text_dim = len(text_feature_names(former=version < 2))
        self.measured = len(schema.numbers) + len(schema.embeddings)
        self._categories = [(c, {value: i for i, value in enumerate(c.values)}) for c in schema.categories]
        self._number_names = {n.name for n in schema.numbers}
        self._category_names = {c.name for c in schema.categories}
        self._embedding_names = {e.name for e in schema.embeddings}
        self.dim = len(feature_names(schema, version))
        self._optional = [] if version < 2 else [n for n, number in enumerate(schema.numbers) if number.optional]
        before = len(schema.numbers) + sum(len(c.values) for c in schema.categories)
        content = sum(e.dimension for e in schema.embeddings) + (self._text_dim if schema.text is not None else 0)
        self.content = slice(before, before + content)

    def encode(self, context: Context) -> Encoded:
        """Make the feature vector of ``context``.

        Raises ``FieldError`` naming the field for a feature that is unknown, missing, not finite, or of the wrong
        length, for an undeclared category value, and for a text that is too long.
        """
        self._refuse_unknown(context)
        input_tokens = _tokens(context.input_tokens, "input_tokens")
        max_output_tokens = _tokens(context.max_output_tokens, "max_output_tokens")
        input_tokens, max_input_tokens = _estimate(context.text, input_tokens)
        x_d, measured_m = np.zeros(self.dim), np.full(self.measured, np.nan) if self.measured else NOTHING_MEASURED
        at = self._write_numbers(x_d, measured_m, context)
        at = self._write_categories(x_d, at, context)
        at = self._write_embeddings(x_d, measured_m, at, context)
        at = self._write_text(x_d, at, context)
        self._write_token_count(x_d, at, input_tokens)
        for place, number in enumerate(self._optional, start=self.dim - 1 - len(self._optional)):
            x_d[place] = float(math.isnan(measured_m[number]))
        x_d[-1] = 1.0
        x_d = x_d.astype(np.float32).astype(np.float64)
        return Encoded(x_d, input_tokens, max_output_tokens, max_input_tokens, measured_m)

    def rescale(self, x_d: Array, measured_m: Array, scales: FeatureScales) -> Array:
        """The features ``x_d`` (d), encoded as declared, with numbers and embeddings as ``scales`` have them."""
        x_d, numbers, at = x_d.copy(), len(self.schema.numbers), self.content.start
        if not scales.compared:
            np.clip(x_d[:numbers], -UNSEEN, UNSEEN, out=x_d[:numbers])
        for number in np.flatnonzero(scales.ranked_m).tolist():
            x_d[number] = 0.0 if math.isnan(measured_m[number]) else score(scales, number, float(measured_m[number]))
        longest = CLIP if scales.compared else UNSEEN
        for e, embedding in enumerate(self.schema.embeddings):
            length, factor = float(measured_m[numbers + e]), float(scales.factor_e[e])
            if length > 0.0:  # not missing, which is NaN
                x_d[at : at + embedding.dimension] *= min(length * factor, longest) / min(length, CLIP)
            at += embedding.dimension
        return x_d.astype(np.float32).astype(np.float64)

    def _write_numbers(self, x_d: Array, measured_m: Array, context: Context) -> int:
        """Write the numbers into ``x_d`` and ``measured_m`` from the start; the place after them in ``x_d``."""
        for at, number in enumerate(self.schema.numbers):
            value = context.numbers.get(number.name)
            if value is None:
                if not number.optional:
                    raise FieldError(f'numbers["{number.name}"]', "expected a number, got nothing")
            elif not math.isfinite(value):
                raise FieldError(f'numbers["{number.name}"]', f"expected a finite number, got {value:g}")
            else:
                scaled = min(LARGEST, max(-LARGEST, (value - number.center) / number.scale))
                x_d[at], measured_m[at] = min(CLIP, max(-CLIP, scaled)), scaled
        return len(self.schema.numbers)

    def _write_categories(self, x_d: Array, at: int, context: Context) -> int:
        """Write the categories into ``x_d`` from ``at`` on, one-hot; the place after them."""
        for category, places in self._categories:
            label = context.categories.get(category.name)
            if label is None:
                if not category.optional:
                    raise FieldError(f'categories["{category.name}"]', "expected a value, got nothing")
            elif label in places:
                x_d[at + places[label]] = 1.0
            elif not category.open:
                declared = ", ".join(category.values[:8]) + (", …" if len(category.values) > 8 else "")
                raise FieldError(f'categories["{category.name}"]', f"expected one of {declared}, got {label[:80]!r}")
            at += len(category.values)
        return at

    def _write_embeddings(self, x_d: Array, measured_m: Array, at: int, context: Context) -> int:
        """Write embeddings into ``x_d`` from ``at`` on, their lengths into ``measured_m``; the place after them in ``x_d``."""
        for number, embedding in enumerate(self.schema.embeddings, start=len(self.schema.numbers)):
            supplied = context.embeddings.get(embedding.name)
            name = f'embeddings["{embedding.name}"]'
            if supplied is None:
                if not embedding.optional:
                    raise FieldError(name, f"expected {embedding.dimension} numbers, got nothing")
            else:
                vector = np.asarray(supplied, dtype=np.float64)
                if vector.shape != (embedding.dimension,):
                    raise FieldError(name, f"expected {embedding.dimension} numbers, got {vector.size}")
                if not np.isfinite(vector).all():
                    raise FieldError(name, "expected finite numbers")
                measured_m[number] = length = min(LARGEST, float(dnrm2(vector)) * embedding.scale)
                scale, places = CONTENT * embedding.scale, slice(at, at + embedding.dimension)
                if self.version < 2:
                    np.clip(scale * vector, -CLIP, CLIP, out=x_d[places])
                else:
                    np.multiply(vector, scale * (CLIP / max(length, CLIP)), out=x_d[places])
            at += embedding.dimension
        return at

    def _write_text(self, x_d: Array, at: int, context: Context) -> int:
        """Write the text's features into ``x_d`` from ``at`` on; the place after them."""
        if self.schema.text is None:
            return at
        if context.text is not None:
            x_d[at : at + self._text_dim] = CONTENT * text_features(context.text, former=self.version < 2)
        elif not self.schema.text.optional:
            raise FieldError("text", "expected the prompt's text, got nothing")
        return at + self._text_dim

    def _write_token_count(self, x_d: Array, at: int, input_tokens: int) -> None:
        """Write the logarithm of the number of input tokens at ``at``."""
        if self.schema.input_tokens is None:
            return
        if input_tokens >= 0:
            logarithm = (math.log(input_tokens + 1.0) - _TOKEN_CENTER) / _TOKEN_SCALE
            x_d[at] = min(CLIP, max(-CLIP, logarithm))
        elif not self.schema.input_tokens.optional:
            raise FieldError("input_tokens", "expected a number of tokens or a text, got nothing")

    def _refuse_unknown(self, context: Context) -> None:
        for kind, supplied, declared_names in (
            ("numbers", context.numbers, self._number_names),
            ("categories", context.categories, self._category_names),
            ("embeddings", context.embeddings, self._embedding_names),
        ):
            for name in supplied:
                if name not in declared_names:
                    declared = ", ".join(sorted(declared_names)[:8]) or "none"
                    raise FieldError(
                        f'{kind}["{name[:80]}"]',
                        f"unknown feature; the bucket declares {declared}",
                    )


@lru_cache(maxsize=1024)
def encoder_of(schema: Schema, version: int = VERSION) -> Encoder:
    """The encoder of ``schema``, shared by all buckets that have the same."""
    return Encoder(schema, version)


def feature_names(schema: Schema, version: int = VERSION) -> list[str]:
    """Names of the components of ``x``, in order, as used in reports and exports."""
    names = [n.name for n in schema.numbers]
    names += [f"{c.name}={value}" for c in schema.categories for value in c.values]
    names += [f"{e.name}/{i}" for e in schema.embeddings for i in range(e.dimension)]
    if schema.text is not None:
        names += text_feature_names(former=version < 2)
    if schema.input_tokens is not None:
        names.append("log_input_tokens")
    if version >= 2:
        names += [f"{n.name}=missing" for n in schema.numbers if n.optional]
    return [*names, "intercept"]


def _estimate(text: str | None, input_tokens: int) -> tuple[int, int]:
    """The number of input tokens and an upper bound of it, each -1 if unknown; estimated if a text is all there is."""
    if text is None:
        return input_tokens, input_tokens
    if len(text) > MAX_TEXT:
        raise FieldError("text", f"expected at most {MAX_TEXT} characters, got {len(text)}")
    if input_tokens >= 0:
        return input_tokens, input_tokens
    return estimate_tokens(text), len(text.encode("utf-8", "surrogatepass"))


def _tokens(value: int | None, path: str) -> int:
    if value is None:
        return -1
    if not 0 <= value <= MAX_TOKENS:
        raise FieldError(path, f"expected 0 to {MAX_TOKENS}, got {value}")
    return value
