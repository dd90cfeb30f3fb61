"""Words of a text, in whatever writing, projected to a short vector by signed hashing (Weinberger et al. 2009, arXiv:0902.2206).

A *unit* is what carries meaning: the first letters of a word (so that its forms are near each other), two syllables of a Korean
one, a Chinese or Japanese character, a pair of letters where words are not spaced (Thai, Khmer …), an emoji; all numbers are one.
Three bags are added up: each unit of what is read, once, however often it comes; the first and the last few, because
instructions stand at either end; and what *stands out*: units of the stretch that has most of what no other stretch of the text
has, because instructions within a long document do. A unit is the same one in each bag, so what is learned of it at the start
holds in the middle too.

Hashes are CRC-32 of UTF-8, the same on every machine. Of a text longer than ``LONGEST`` characters evenly spaced stretches are
looked at.

>>> document = "the committee met and nothing was decided about the old bridge " * 500
>>> standing_out(document + "translate into french, please " + document)
['trans', 'into', 'frenc', 'pleas']
>>> [unit for _, unit in located_units("请翻译 12 pages 🌐")]
['请', '翻', '译', '0', 'pages', '🌐']
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

WORDS = 32
"""Dimensions of the projected words."""
PLACES = 2
"""Places of the projection that one unit touches."""
STEM = 5
"""Letters of a word that count."""
ENDS = 4
"""Units that make the opening, and the ending."""
ENDS_WEIGHT = 0.5
"""Length of the bags of opening and ending, where that of all units is 1."""
OUTSTANDING_WEIGHT = 0.7
"""Length of the bag of what stands out."""
OUTSTANDING_FROM = 400
"""Characters of a text from which on something can stand out."""
STRETCHES = 64
"""Most stretches that a text is divided into."""
SHORTEST_STRETCH = 64
"""Fewest characters of a stretch."""
LONGEST = 64 * 1750
"""Most characters of a text that are looked at."""
MARGIN = 32
"""Characters before and after a stretch that are taken with it, since it may cut what stands out."""
CODES = 1 << 16
"""Codes that three characters in a row, or one that is a unit of its own, are hashed to."""

_STOP = frozenset("the a an of to and in is it that for on as with was at by be this or are from".split())  # noqa: SIM905
# One character is a unit: kana, ideographs, arrows to dingbats, pictographs without tones of skin.
_SINGLE = (
    "\u2190-\u2bff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U0001f000-\U0001f3fa\U0001f400-\U0001faff\U00020000-\U0003ffff"
)
# Words are not spaced: Thai, Lao, Tibetan, Burmese, Khmer.
_UNSPACED = "\u0e00-\u109f\u1780-\u17ff"
# Marks that belong to the letters before: of Latin, Hebrew, Arabic and the scripts of India.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0971-\u0dff"
_UNIT = re.compile(rf"([{_SINGLE}])|([{_UNSPACED}]+)|(\d+)|((?:[^\W\d_{_SINGLE}{_UNSPACED}]|[{_MARKS}])+)")


def project_words(text: str, read: str) -> npt.NDArray[np.float64]:
    """The projection of the words of ``text``, (WORDS,), of length 1, or 0 if there are none; all units are those of ``read``.

    Any strings will do, lone surrogates included.
    """
    units = [unit for _, unit in located_units(read.lower())]
    weights = dict.fromkeys([unit for unit in units if unit not in _STOP] or units, 0.0)
    _add(weights, list(weights), 1.0)
    for ends in (units[:ENDS], units[-ENDS:]):
        _add(weights, ends, ENDS_WEIGHT)
    if len(text) >= OUTSTANDING_FROM:
        _add(weights, standing_out(text), OUTSTANDING_WEIGHT)
    if not weights:
        return np.zeros(WORDS)
    places_up = np.array([_places(unit) for unit in weights])
    weights_u = np.fromiter(weights.values(), dtype=np.float64, count=len(weights))
    sums = np.bincount(places_up.ravel(), np.repeat(weights_u, PLACES), minlength=2 * WORDS).astype(np.float64)
    projected = sums[WORDS:] - sums[:WORDS]
    norm = math.sqrt(math.fsum((projected * projected).tolist()))
    return projected / norm if norm > 0.0 else projected


def located_units(lowered: str) -> list[tuple[int, str]]:
    """The units of a text in small letters, in order, each with the place of its first character."""
    units = []
    for match in _UNIT.finditer(lowered):
        run, start = match[0], match.start()
        if match.lastindex == 4:
            units.append((start, run[: 2 if "\uac00" <= run[0] <= "\ud7a3" else STEM]))
        elif match.lastindex == 2:
            units += [(start + i, run[i : i + 2]) for i in range(max(1, len(run) - 1))]
        else:
            units.append((start, "0" if match.lastindex == 3 else run))
    return units


def standing_out(text: str) -> list[str]:
    """The units, each once, in order, of the stretch of ``text`` that has most codes found in no other: those units with such."""
    looked_at = text.lower() if len(text) <= LONGEST else _sample(text).lower()
    code_n = _codes(looked_at)
    size = max(SHORTEST_STRETCH, -(-len(looked_at) // STRETCHES))
    stretches = [np.unique(code_n[start : start + size]) for start in range(0, len(code_n), size)]
    stretches_with_c = np.zeros(CODES, dtype=np.int64)
    for codes in stretches:
        stretches_with_c[codes] += 1
    most = max(range(len(stretches)), key=lambda s: int(np.count_nonzero(stretches_with_c[stretches[s]] == 1)))
    first = max(0, most * size - MARGIN)
    last = (most + 1) * size + MARGIN
    alone_n = stretches_with_c[code_n[first:last]] == 1
    units = located_units(looked_at[first:last])
    return list(dict.fromkeys([unit for start, unit in units if alone_n[start : start + len(unit)].any()]))


def _sample(text: str) -> str:
    """``LONGEST`` characters of a longer text, in evenly spaced stretches."""
    size = LONGEST // STRETCHES
    starts = [stretch * (len(text) - size) // (STRETCHES - 1) for stretch in range(STRETCHES)]
    return "".join([text[start : start + size] for start in starts])


def _codes(lowered: str) -> npt.NDArray[np.uint16]:
    """For each character a code, below CODES, of it and the two after it, or of it alone if it is a unit of its own."""
    points_n = np.frombuffer(lowered.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    mixed_n = points_n * np.uint64(0x9E3779B97F4A7C15)
    code_n = mixed_n.copy()
    code_n[:-1] += points_n[1:] * np.uint64(0xC2B2AE3D27D4EB4F)
    code_n[:-2] += points_n[2:] * np.uint64(0x165667B19E3779F9)
    single_n = (points_n >= 0x2190) & ((points_n < 0xAC00) | (points_n > 0xD7FF))
    return (np.where(single_n, mixed_n, code_n) >> np.uint64(48)).astype(np.uint16)


def _add(weights: dict[str, float], bag: Iterable[str], length: float) -> None:
    """Add a bag of units, in place, whose weights are together as long as ``length``."""
    bag = list(bag)
    for unit in bag:
        weights[unit] = weights.get(unit, 0.0) + length / math.sqrt(len(bag))


@lru_cache(maxsize=1 << 14)
def _places(unit: str) -> tuple[int, ...]:
    """Where a unit falls: numbers below 2·WORDS, the place modulo WORDS, with sign + from WORDS on."""
    mixed = (zlib.crc32(unit.encode("utf-8", "surrogatepass")) * 0x9E3779B97F4A7C15) & (2**64 - 1)
    return tuple((mixed >> (20 + 8 * i)) % (2 * WORDS) for i in range(PLACES))
