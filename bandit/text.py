"""The built-in featuriser: a prompt's text to a short vector, without a model, a vocabulary or anything fitted.

Two groups of features. *Marks* are eighteen plain counts that tell kinds of task apart (how long, how much code, mathematics,
list, question …), each centred and scaled for ordinary prompts and clipped. *Words* are counts of word unigrams, bigrams and
openings (the first words of a prompt often are its instruction), dampened by a square root and projected by signed hashing
(Weinberger et al. 2009, arXiv:0902.2206): each n-gram adds ±1 at a few of the 16 places that its hash names, so inner
products are kept in expectation. Few dimensions, because a posterior over d features needs a multiple of d outcomes per model
before it beats ignoring the text.

Hashes are CRC-32 of UTF-8, the same on every machine. Only the first ``READ`` characters are read, besides the length.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from functools import lru_cache

import numpy as np
import numpy.typing as npt

READ = 6000
"""Characters of a text that are looked at (its length counts in full): bounds the time a huge prompt takes."""
WORDS = 16
"""Dimensions of the projected n-grams."""
PLACES = 4
"""Places of the projection that one n-gram touches."""
CLIP = 3.0
MARKS_LENGTH = 2.4
"""Root mean square length of the clipped marks on ordinary prompts."""

_TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
_SPACE = re.compile(r"\S+")
_CODE = re.compile(r"[{}();=<>\[\]_`#]")
_CODE_WORD = re.compile(
    r"\b(?:def|class|function|return|import|python|javascript|java|sql|code|program|array|string|list|regex|json)\b"
)
_MATHS = re.compile(r"[+*/=^%$\\]")
_OPTION = re.compile(r"(?m)^\s*[(\[]?[A-Ja-j0-9][).:]\s")
_ASKING = re.compile(r"(?i)\b(?:who|what|which|why|when|where|how)\b")
_ORDER = re.compile(
    r"(?i)\b(?:write|create|list|find|give|explain|describe|complete|sort|calculate|compute|solve|summari[sz]e|translate)\b"
)
_QUOTE = re.compile(r"[\"'\u201c\u201d]")
_SENTENCE = re.compile(r"[.!?](?:\s|$)")
_GAP = re.compile(r"_{2,}|\bblank\b")
_QUANTITY = re.compile(r"\$|\b(?:each|per|total|many|much)\b")
_STOP = frozenset("the a an of to and in is it that for on as with was at by be this or are from".split())  # noqa: SIM905

# Name, and the (center, scale) that make an ordinary prompt come out near 0 with a spread near 1/2.
_MARKS: tuple[tuple[str, float, float], ...] = (
    ("log_length", 6.0, 2.0),
    ("word_length", 5.0, 2.0),
    ("digits", 0.025, 0.05),
    ("code_marks", 0.017, 0.033),
    ("code_words", 0.25, 0.5),
    ("maths_marks", 0.007, 0.017),
    ("line_breaks", 0.008, 0.017),
    ("options", 1.5, 3.0),
    ("question_marks", 1.0, 1.0),
    ("ends_asking", 0.4, 0.5),
    ("question_words", 0.8, 1.0),
    ("quotes", 0.01, 0.02),
    ("capitals", 0.04, 0.05),
    ("orders", 0.3, 1.0),
    ("sentences", 2.8, 4.0),
    ("gaps", 0.1, 1.0),
    ("quantities", 1.0, 2.0),
    ("beyond_ascii", 0.0, 0.05),
)
TEXT_DIM = len(_MARKS) + WORDS
"""Length of ``text_features``."""
MARKS = len(_MARKS)
_CENTER = np.array([center for _, center, _ in _MARKS])
_SCALE = np.array([scale for _, _, scale in _MARKS])


def text_feature_names() -> list[str]:
    """Names of the components of ``text_features``, in order."""
    return [f"text/{name}" for name, _, _ in _MARKS] + [f"text/words/{i}" for i in range(WORDS)]


def estimate_tokens(text: str) -> int:
    """About how many tokens a model's tokeniser makes of ``text``.

    A rule of thumb: four ASCII characters a token, one of anything else (CJK, emoji); by the first ``READ`` characters.
    """
    head = text[:READ]
    plain = sum(map(str.isascii, head)) if not head.isascii() else len(head)
    per_character = (plain / 4 + (len(head) - plain)) / max(len(head), 1)
    return math.ceil(len(text) * per_character)


def text_features(text: str) -> npt.NDArray[np.float64]:
    """The features of ``text``, (TEXT_DIM,): marks of length about 1, words of length 1 (0 if there are none).

    Any string will do, lone surrogates included; the numbers are finite and within [-1.25, 1.25].
    """
    head = text[:READ]
    features = np.empty(TEXT_DIM)
    marks = features[:MARKS]
    np.subtract(_marks(text, head), _CENTER, out=marks)
    marks /= _SCALE
    np.clip(marks, -CLIP, CLIP, out=marks)
    marks /= MARKS_LENGTH
    features[MARKS:] = _words(head)
    return features


def _marks(text: str, head: str) -> list[float]:
    length = max(len(head), 1)
    words = _SPACE.findall(head)

    def share(pattern: re.Pattern[str]) -> float:
        return len(pattern.findall(head)) / length

    def count(pattern: re.Pattern[str], most: int) -> int:
        return min(len(pattern.findall(head)), most)

    return [
        math.log1p(len(text)),
        sum(map(len, words)) / max(len(words), 1),
        sum(map(str.isdigit, head)) / length,
        share(_CODE),
        float(_CODE_WORD.search(head) is not None),
        share(_MATHS),
        head.count("\n") / length,
        count(_OPTION, 8),
        min(head.count("?"), 4),
        float(head.rstrip().endswith("?")),
        count(_ASKING, 4),
        share(_QUOTE),
        sum(map(str.isupper, head)) / length,
        float(_ORDER.search(head) is not None),
        count(_SENTENCE, 20),
        count(_GAP, 4),
        count(_QUANTITY, 6),
        0.0 if head.isascii() else 1.0 - sum(map(str.isascii, head)) / length,
    ]


def _words(head: str) -> npt.NDArray[np.float64]:
    tokens = ["0" if token.isdigit() else token for token in _TOKEN.findall(head.lower())]
    words = [token for token in tokens if token.isalnum()]
    grams = Counter("u" + word for word in words if word not in _STOP)
    grams.update(map(_bigram, tokens, tokens[1:]))
    for opening in (*words[:4], " ".join(words[:2]), " ".join(words[:3])):
        grams["p" + opening] += 3
    grams.update({"e" + word: 3 for word in words[-4:]})
    if not words:
        return np.zeros(WORDS)
    places = np.array([_places(gram) for gram in grams])
    weights = np.sqrt(np.fromiter(grams.values(), dtype=np.float64, count=len(grams)))
    signs = np.where(places >= WORDS, 1.0, -1.0)
    projected = np.zeros(WORDS)
    np.add.at(projected, places % WORDS, signs * weights[:, None])
    norm = float(np.sqrt(projected @ projected))
    return projected / norm if norm > 0.0 else projected


def _bigram(first: str, second: str) -> str:
    return f"b{first} {second}"


@lru_cache(maxsize=1 << 16)
def _places(gram: str) -> tuple[int, ...]:
    """Where an n-gram falls: numbers below 2·WORDS, the place modulo WORDS, with sign + from WORDS on."""
    code = zlib.crc32(gram.encode("utf-8", "surrogatepass"))
    mixed = (code * 0x9E3779B97F4A7C15) & (2**64 - 1)  # CRC's low bits alone are too regular
    return tuple((mixed >> (20 + 8 * i)) % (2 * WORDS) for i in range(PLACES))
