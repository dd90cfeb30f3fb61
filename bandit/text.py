"""The built-in featuriser: a prompt's text to a short vector, without a model, a vocabulary or anything fitted.

Two groups of features. *Marks* are eighteen plain counts that tell kinds of task apart (how long, how much code, mathematics,
list, question …), each centred and scaled for ordinary prompts and clipped. *Words* are projected by signed hashing
(``bandit.words``); few dimensions, because a posterior over d features needs a multiple of d outcomes per model before it
beats ignoring the text. Of a text longer than ``READ`` characters only the beginning and the end are read, besides its length
and what stands out in between.

The first version of the words, which buckets of former journals keep, has three bags: the words of the whole text, its opening
(first words, alone, as pair and as triple) and its ending (last words). Each is dampened by a square root and brought to length
1, so that a long body does not drown the instruction; each word adds ±1 at a few of 16 places that its hash names.

>>> features = text_features("What is 2 + 2?")
>>> dict(zip(text_feature_names(), features.round(2).tolist()))["text/question_words"]
0.08
>>> estimate_tokens("What is 2 + 2?")
4
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pointsman.bandit.words import WORDS, project_words

READ = 6000
"""Characters of a text that are looked at (its length counts in full): bounds the time a huge prompt takes."""
READ_END = 2000
"""How many of them come from the end of a text that is longer."""
FORMER_WORDS = 16
"""Dimensions of the projected words of the first version."""
PLACES = 4
"""Places of that projection that one word touches."""
LONGEST = 24
"""Characters of a word that are hashed: bounds what the cache of hashes can hold."""
ENDS = 4
"""Words that make the opening, and the ending."""
CLIP = 3.0
"""Marks are clipped to [-3, 3]."""
MARKS_LENGTH = 2.4
"""Root mean square length of the clipped marks on ordinary prompts."""

# A run of letters or of digits; a Chinese or Japanese character is a word of its own, as there are no spaces between words.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_\u3040-\u30ff\u3400-\u9fff]+|\d+")
_CODE_WORD = re.compile(
    r"\b(?:def|class|function|return|import|python|javascript|java|sql|code|program|array|string|list|regex|json)\b"
)
_OPTION = re.compile(r"(?m)^[ \t]*[(\[]?[A-Ja-j0-9][).:]\s")
_ASKING = re.compile(r"(?i)\b(?:who|what|which|why|when|where|how)\b")
_ORDER = re.compile(
    r"(?i)\b(?:write|create|list|find|give|explain|describe|complete|sort|calculate|compute|solve|summari[sz]e|translate)\b"
)
_SENTENCE = re.compile(r"[.!?](?:\s|$)")
_GAP = re.compile(r"_{2,}|\bblank\b")
_QUANTITY = re.compile(r"\$|\b(?:each|per|total|many|much)\b")
_STOP = frozenset("the a an of to and in is it that for on as with was at by be this or are from".split())  # noqa: SIM905

# Characters that the marks count: digits, code, mathematics, lines, questions, quotes, capitals, all of ASCII.
_CHARACTERS = (
    "0123456789",
    "{}();=<>[]_`#",
    "+*/=^%$\\",
    "\n",
    "?",
    "\"'",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "".join(map(chr, range(128))),
)
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
MARKS = len(_MARKS)
"""Number of marks."""
TEXT_DIM = MARKS + WORDS
"""Length of ``text_features``."""
_KINDS = np.array([[c in kind for kind in _CHARACTERS] for c in map(chr, range(128))], dtype=np.int64)
_CENTER = np.array([center for _, center, _ in _MARKS])
_SCALE = np.array([scale for _, _, scale in _MARKS])


def text_feature_names(former: bool = False) -> list[str]:
    """Names of the components of ``text_features``, in order."""
    words = FORMER_WORDS if former else WORDS
    return [f"text/{name}" for name, _, _ in _MARKS] + [f"text/words/{i}" for i in range(words)]


def estimate_tokens(text: str) -> int:
    """About how many tokens a model's tokeniser makes of ``text``; 0 for no text.

    A rule of thumb: a token is four ASCII characters (English, code), or three bytes of UTF-8 of anything else: one Chinese
    character, one and a half Cyrillic or accented letters. Of a long text, the average over what is read of it.
    """
    excerpt = _read(text)
    if excerpt.isascii():
        return math.ceil(len(text) / 4)
    plain = len(excerpt.encode("ascii", "ignore"))
    beyond = len(excerpt.encode("utf-8", "surrogatepass")) - plain
    return math.ceil(len(text) * (plain / 4 + beyond / 3) / len(excerpt))


def text_features(text: str, former: bool = False) -> npt.NDArray[np.float64]:
    """The features of ``text``, (TEXT_DIM,): marks of length about 1, words of length 1 (0 if there are none). ``former``: with
    the words of the first version.

    Any string will do, lone surrogates included; the numbers are finite and within [-1.25, 1.25].
    """
    excerpt = _read(text)
    words = _former_words(excerpt) if former else project_words(text, excerpt)
    features = np.empty(MARKS + len(words))
    marks = features[:MARKS]
    np.subtract(_marks(text, excerpt), _CENTER, out=marks)
    marks /= _SCALE
    np.clip(marks, -CLIP, CLIP, out=marks)
    marks /= MARKS_LENGTH
    features[MARKS:] = words
    return features


def _read(text: str) -> str:
    """What is looked at of a text: all of it, or its beginning and its end on a line of its own."""
    return text if len(text) <= READ else f"{text[: READ - READ_END - 1]}\n{text[-READ_END:]}"


def _marks(text: str, excerpt: str) -> list[float]:
    length = max(len(excerpt), 1)
    bytes_n = np.frombuffer(excerpt.encode("ascii", "ignore"), dtype=np.uint8)
    digits, code, maths, lines, asking, quotes, capitals, plain = (
        np.bincount(bytes_n, minlength=128) @ _KINDS
    ).tolist()
    beyond = len(excerpt) - plain
    if beyond:
        others = [character for character in excerpt if not character.isascii()]
        digits += sum(map(str.isdigit, others))
        capitals += sum(map(str.isupper, others))
        quotes += others.count("\u201c") + others.count("\u201d")
    pieces = excerpt.split()

    def count(pattern: re.Pattern[str], most: int) -> int:
        return min(len(pattern.findall(excerpt)), most)

    return [
        math.log1p(len(text)),
        sum(map(len, pieces)) / max(len(pieces), 1),
        digits / length,
        code / length,
        float(_CODE_WORD.search(excerpt) is not None),
        maths / length,
        lines / length,
        count(_OPTION, 8),
        min(asking, 4),
        float(excerpt.rstrip().endswith("?")),
        count(_ASKING, 4),
        quotes / length,
        capitals / length,
        float(_ORDER.search(excerpt) is not None),
        count(_SENTENCE, 20),
        count(_GAP, 4),
        count(_QUANTITY, 6),
        beyond / length,
    ]


def _former_words(excerpt: str) -> npt.NDArray[np.float64]:
    words = ["0" if word.isdigit() else word[:LONGEST] for word in _WORD.findall(excerpt.lower())]
    if not words:
        return np.zeros(FORMER_WORDS)
    opening = words[:ENDS]
    projected = _bag("u", [word for word in words if word not in _STOP])
    projected += _bag("p", [*opening, " ".join(opening[:2]), " ".join(opening[:3])])
    projected += _bag("e", words[-ENDS:])
    norm = math.sqrt(math.fsum((projected * projected).tolist()))
    return projected / norm if norm > 0.0 else projected


def _bag(kind: str, words: Iterable[str]) -> npt.NDArray[np.float64]:
    """The projection of a bag of words, (FORMER_WORDS,): each word's count under a square root, all of length 1 together."""
    counts = Counter(words)
    if not counts:
        return np.zeros(FORMER_WORDS)
    weights = np.sqrt(np.fromiter(counts.values(), dtype=np.float64, count=len(counts)) / counts.total())
    places = np.array([_places(kind, word) for word in counts])
    sums = np.bincount(places.ravel(), np.repeat(weights, PLACES), minlength=2 * FORMER_WORDS).astype(np.float64)
    return sums[FORMER_WORDS:] - sums[:FORMER_WORDS]


@lru_cache(maxsize=1 << 14)
def _places(kind: str, word: str) -> tuple[int, ...]:
    """Where a word falls: numbers below 2·FORMER_WORDS, the place modulo FORMER_WORDS, with sign + from FORMER_WORDS on."""
    code = zlib.crc32((kind + word).encode("utf-8", "surrogatepass"))
    mixed = (code * 0x9E3779B97F4A7C15) & (2**64 - 1)  # CRC's low bits alone are too regular
    return tuple((mixed >> (20 + 8 * i)) % (2 * FORMER_WORDS) for i in range(PLACES))
