"""The text featuriser: invariants for any string, and discrimination between kinds of prompt."""

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pointsman.bandit import text as module
from pointsman.bandit import words as words_module
from pointsman.bandit.text import (
    FORMER_WORDS,
    MARKS,
    READ,
    READ_END,
    TEXT_DIM,
    estimate_tokens,
    text_feature_names,
    text_features,
)
from pointsman.bandit.words import LONGEST, WORDS, located_units, standing_out

NAMES = text_feature_names()
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=400)  # lone surrogates and NUL included

CODE = (
    "Fix this function:\n```python\ndef f(xs):\n    return {x: xs[x] for x in range(len(xs))}\n```",
    "def total(items):\n    s = 0\n    for i in items:\n        s += i['price']\n    return s\n# why does this fail?",
    "const xs = rows.filter(r => r.id === id);\nif (xs.length > 0) { return xs[0]; }\nWhat does this code do?",
    "SELECT name FROM users WHERE id = 3; -- rewrite this sql query with a join on orders(user_id)",
)
MATHS = (
    "Solve 3x^2 + 5x - 7 = 0 for x.",
    "What is 17 * 23 + 45 / 9?",
    "Compute \\frac{d}{dx} x^3 + 2*x = 0 at x = 4.",
    "A shop sells 12 apples at $3 each and 8 pears at $2 each. How much is the total, + 10% tax?",
)
CHAT = (
    "Hi there, could you help me word a friendly note to my neighbour about her dog?",
    "I feel a bit tired lately and would like to hear your thoughts on taking a break from work.",
    "Tell me a story about an old lighthouse keeper who befriends a seal.",
    "Thanks, that was lovely. Please make it a little shorter and warmer.",
)
CHOICE = (
    "Which planet is largest?\n(A) Mars\n(B) Jupiter\n(C) Venus\n(D) Earth\nAnswer with the correct letter.",
    "Pick the best ending.\n1) He sat.\n2) He ran.\n3) He slept.\n4) He sang.\nWhich option is best?",
)
OTHERS = (
    "Summarize the following article in three bullet points: The council met on Tuesday to discuss the new bridge, which "
    "has been delayed twice. Members disagreed about cost. A vote is planned for June.",
    "Translate to French: The meeting has been moved to Friday.",
    "Explain why the sky is blue to a ten-year-old.",
    "List five causes of the First World War.",
    "请解释一下量子力学的基本原理。",
    "Напиши короткое письмо моему начальнику.",
)
PROMPTS = (*CODE, *MATHS, *CHAT, *CHOICE, *OTHERS)

FORMER_KNOWN = {
    "": (
        "-1.25 -1.0417 -0.2083 -0.2146 -0.2083 -0.1716 -0.1961 -0.2083 -0.4167 -0.3333 -0.3333 -0.2083 "
        "-0.3333 -0.125 -0.2917 -0.0417 -0.2083 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"
    ),
    "Write a Python function that sorts a list of numbers.": (
        "-0.419 -0.125 -0.2083 -0.2146 0.625 -0.1716 -0.1961 -0.2083 -0.4167 -0.3333 -0.3333 -0.2083 -0.0189 "
        "0.2917 -0.1875 -0.0417 -0.2083 0 -0.2492 -0.2492 -0.4116 0.112 0 0.224 -0.3612 -0.112 0.1372 0 0.112 "
        "-0.5853 -0.224 0 -0.1624 0.224"
    ),
    "Quelle est la capitale de l'\xe9t\xe9 ? \u6771\u4eac \U0001f600": (
        "-0.4868 -0.3472 -0.2083 -0.2146 -0.2083 -0.1716 -0.1961 -0.2083 0 -0.3333 -0.3333 0.3399 -0.114 "
        "-0.125 -0.1875 -0.0417 -0.2083 1.0965 0.0625 0.1249 -0.1249 0.0561 -0.0905 0.1249 -0.0968 0.3123 "
        "-0.2779 0.153 0.5621 0.3403 0.3123 -0.0625 0.1874 0.4028"
    ),
}

KNOWN_WORDS = {
    "": ("0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"),
    "Write a Python function that sorts a list of numbers.": (
        "0 0 0 0 0 -0.1674 0 -0.2699 0 0.2699 0 -0.1674 0 0 0 0 -0.1674 0 -0.2699 0 -0.2699 0.4749 0 0 "
        "-0.1674 0.4749 0 0 -0.2699 0.2699 0 0"
    ),
    "Quelle est la capitale de l'\xe9t\xe9 ? \u6771\u4eac \U0001f600": (
        "0 0.2408 -0.1345 0 -0.2408 -0.2408 -0.1345 0 0 0 0 0 0.2408 -0.2408 0.2408 0.2408 0 0.1345 0.2408 "
        "-0.2408 0 0 0 0 -0.2408 -0.4816 0.2408 -0.2408 0 0 0 -0.1345"
    ),
}


def named(text: str, name: str) -> float:
    return float(text_features(text)[NAMES.index(f"text/{name}")])


def words(text: str) -> NDArray[np.float64]:
    return text_features(text)[MARKS:]


@pytest.mark.parametrize("prompt", FORMER_KNOWN)
def test_known_answers(prompt: str) -> None:
    # Stored features are compared with new ones by models that learned from the former: a change here is a break.
    expected = [float(number) for number in FORMER_KNOWN[prompt].split()]
    np.testing.assert_allclose(text_features(prompt, former=True), expected, rtol=0.0, atol=6e-5)
    np.testing.assert_allclose(text_features(prompt)[:MARKS], expected[:MARKS], rtol=0.0, atol=6e-5)
    known_words = [float(number) for number in KNOWN_WORDS[prompt].split()]
    np.testing.assert_allclose(words(prompt), known_words, rtol=0.0, atol=6e-5)


def test_another_process_makes_the_same_features() -> None:
    code = (
        "import sys; from pointsman.bandit.text import text_features; print(text_features(sys.argv[1]).tobytes().hex())"
    )
    folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(module.__file__))))
    feature_bytes = {
        subprocess.run(
            [sys.executable, "-c", code, CODE[0]],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": folder},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert feature_bytes == {text_features(CODE[0]).tobytes().hex()}


@given(ANY_TEXT)
def test_any_text_has_finite_bounded_features(text: str) -> None:
    features = text_features(text)
    assert features.shape == (TEXT_DIM,) and features.dtype == np.float64
    assert np.isfinite(features).all()
    assert np.abs(features).max() <= 1.25
    length = np.linalg.norm(features[MARKS:])
    assert length == pytest.approx(1.0) or length == 0.0


@given(ANY_TEXT)
def test_features_do_not_depend_on_earlier_calls(text: str) -> None:
    first = text_features(text)
    for other in PROMPTS:
        text_features(other)
    words_module._places.cache_clear()
    np.testing.assert_array_equal(text_features(text), first)


@given(st.text(max_size=200))
def test_digits_of_a_number_do_not_move_the_words(text: str) -> None:
    np.testing.assert_array_equal(words(f"{text} 17 apples"), words(f"{text} 4096 apples"))


@given(st.text(alphabet="abcdefgh .,?", max_size=200))
def test_case_does_not_move_the_words(text: str) -> None:
    np.testing.assert_array_equal(words(text.upper()), words(text))


@pytest.mark.parametrize("text", ["", " ", "\n\t \n", "\x00", "?!...", "\ufe0f\u200d"])
def test_without_words_the_words_are_zero(text: str) -> None:
    assert not words(text).any()
    assert np.isfinite(text_features(text)).all()


@pytest.mark.parametrize("text", ["\ud800", "a \udfff b", "\ud83d" * 50, "caf\u00e9 \udc80"])
def test_lone_surrogates_are_text_like_any_other(text: str) -> None:
    assert np.isfinite(text_features(text)).all()
    assert estimate_tokens(text) >= 1


def test_names_are_those_of_the_components() -> None:
    assert len(NAMES) == len(set(NAMES)) == TEXT_DIM
    assert sum("/words/" in name for name in NAMES) == WORDS
    former_names = text_feature_names(former=True)
    assert former_names[:MARKS] == NAMES[:MARKS] and len(former_names) == MARKS + FORMER_WORDS
    assert all("/words/" in name for name in NAMES[MARKS:])


def test_scale_on_diverse_prompts() -> None:
    # The encoder counts on both groups being about as long as an intercept is: one prior precision serves all. These prompts
    # are extreme on purpose (a third is code or not English), so their marks are longer than those of ordinary prompts.
    features_nd = np.array([text_features(prompt) for prompt in PROMPTS])
    marks_length = np.sqrt((features_nd[:, :MARKS] ** 2).sum(axis=1).mean())
    assert 0.5 < marks_length < 2.0
    np.testing.assert_allclose(np.linalg.norm(features_nd[:, MARKS:], axis=1), 1.0)
    assert np.abs(features_nd[:, :MARKS].mean(axis=0)).max() < 0.7
    assert np.abs(features_nd[:, MARKS:].mean(axis=0)).max() < 0.25


def test_no_intercept_among_the_features() -> None:
    features_nd = np.array([text_features(prompt) for prompt in PROMPTS])
    assert (features_nd.std(axis=0) > 0.0).sum() >= TEXT_DIM - 1  # no fill-in-the-gap prompt among them
    assert np.linalg.matrix_rank(features_nd - features_nd.mean(axis=0)) == len(PROMPTS) - 1


def test_code_maths_and_chat_are_told_apart() -> None:
    assert min(named(p, "code_marks") for p in CODE) > max(named(p, "code_marks") for p in CHAT)
    assert min(named(p, "maths_marks") for p in MATHS[:3]) > max(named(p, "maths_marks") for p in CHAT)
    assert min(named(p, "digits") for p in MATHS) > max(named(p, "digits") for p in CHAT)
    assert min(named(p, "options") for p in CHOICE) > max(named(p, "options") for p in (*CHAT, *MATHS, *OTHERS))
    assert named(OTHERS[4], "beyond_ascii") > 0.5 > named(CHAT[0], "beyond_ascii")
    assert named(MATHS[1], "ends_asking") > named(CHAT[2], "ends_asking")


@pytest.mark.parametrize(
    ("mark", "little", "much"),
    [
        ("log_length", "Hello", "Hello " * 100),
        ("word_length", "a bc d", "incomprehensibility notwithstanding"),
        ("digits", "call me", "call 555 0199"),
        ("code_marks", "call f", "f(x[0]);"),
        ("code_words", "a poem", "a json file"),
        ("maths_marks", "a or b", "a + b = c"),
        ("line_breaks", "a b c", "a\nb\nc"),
        ("options", "A. then B", "A. one\nB. two"),
        ("question_marks", "really", "really? why?"),
        ("ends_asking", "Why? Tell me.", "Tell me. Why? \n"),
        ("question_words", "do it", "what, when and where"),
        ("quotes", "he said so", "he said \u201cso\u201d"),
        ("capitals", "nasa", "NASA"),
        ("orders", "the sky", "Describe the sky"),
        ("sentences", "one", "One. Two. Three."),
        ("gaps", "the cat", "the ____ cat"),
        ("quantities", "apples", "how many apples per box"),
        ("beyond_ascii", "cafe", "caf\u00e9"),
    ],
)
def test_each_mark_rises_with_what_it_names(mark: str, little: str, much: str) -> None:
    assert named(much, mark) > named(little, mark)


def test_every_mark_is_tested() -> None:
    cases = {case[0] for case in test_each_mark_rises_with_what_it_names.pytestmark[0].args[1]}  # type: ignore[attr-defined]
    assert {f"text/{case}" for case in cases} == set(NAMES[:MARKS])


def test_capitals_digits_and_lines_beyond_ascii_count() -> None:
    assert named("ÉТÀ", "capitals") > named("étà", "capitals")
    assert named("٣٤٥ é", "digits") > named("ааа é", "digits")


def test_prompts_of_one_template_are_closer_than_others() -> None:
    families = [
        [
            f"Translate the following sentence to French: {s}"
            for s in ("The cat sleeps.", "We left early.", "It rains.")
        ],
        [
            f"Write a Python function that {s}."
            for s in ("sorts a list", "reverses a string", "finds the largest prime")
        ],
        [
            f"{s}\n(A) yes\n(B) no\nAnswer with the correct letter."
            for s in ("Is ice cold?", "Do birds have wings?", "Can a fish walk?")
        ],
        [f"Summarize this article in one sentence: {s}" for s in ("The bridge closed.", "Prices fell.", "A team won.")],
    ]
    vectors = [np.array([text_features(prompt) for prompt in family]) for family in families]
    within = [float(np.linalg.norm(a - b)) for family in vectors for a, b in pairwise(family)]
    between = [
        float(np.linalg.norm(a - b))
        for i, family_vectors in enumerate(vectors)
        for earlier in vectors[:i]
        for a in family_vectors
        for b in earlier
    ]
    assert np.mean(within) < 0.7 * np.mean(between)
    assert np.max(within) < np.median(between)


def test_prompts_that_differ_in_a_number_are_near() -> None:
    small, large = (text_features(f"Tom has {n} apples and gives 2 to Ann. How many apples are left?") for n in (3, 81))
    assert np.linalg.norm(small - large) < 0.1 * min(np.linalg.norm(small - text_features(prompt)) for prompt in CODE)


def test_a_long_body_does_not_drown_the_instruction() -> None:
    def body(start: int) -> str:
        return " ".join(f"topic{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}" for i in range(start, start + 200))

    same = words(f"Summarize this report briefly: {body(0)}") @ words(f"Summarize this report briefly: {body(300)}")
    different = words(f"Summarize this report briefly: {body(0)}") @ words(f"Count every vowel here: {body(300)}")
    assert same > different + 0.15


def test_the_last_line_of_a_long_prompt_is_read() -> None:
    document = "The committee met again and nothing was decided. " * 2000
    at_the_end = text_features(f"{document}\nWhich option is the cheapest?")
    ordered = text_features(f"{document}\nTranslate everything into German.")
    assert at_the_end[NAMES.index("text/ends_asking")] > ordered[NAMES.index("text/ends_asking")]
    assert at_the_end[MARKS:] @ ordered[MARKS:] < 0.95


def test_the_middle_of_a_long_prompt_is_read_for_what_stands_out() -> None:
    start, end = "begin here " * (READ // 2), " and end here" * (READ // 2)
    letters, digits = start + "xyz " * 9 + end, start + "777 " * 9 + end
    former = text_features(letters, former=True)
    np.testing.assert_array_equal(former, text_features(digits, former=True))
    np.testing.assert_array_equal(text_features(letters)[:MARKS], former[:MARKS])
    assert words(letters) @ words(digits) < 0.99
    assert READ_END < READ


@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize(
    ("filler", "task", "units"),
    [
        (
            "the committee met and nothing was decided ",
            "translate everything into french ",
            {"trans", "every", "frenc"},
        ),
        ("委员会没有决定旧桥", "请翻译成英文", {"请", "翻", "译", "成", "英", "文"}),
        ("คณะกรรมการไม่มีสะพานเก่า", "ช่วยแปลภาษา", {"แป", "ปล", "ภา", "ษา"}),
        ("위원회가 다리를 결정하지 ", "번역해 줘 ", {"번역", "줘"}),
        ("🏠🌊🌅👥", "🌐🔤", {"🌐", "🔤"}),
        ("Ausschuss Brücke 河流 🏠 ", "übersetze 翻译 🌐 ", {"übers", "翻", "译", "🌐"}),
    ],
)
def test_a_task_named_anywhere_stands_out(filler: str, task: str, units: set[str], place: float) -> None:
    repeats = 100_000 // len(filler)
    before = int(place * repeats)
    assert units <= set(standing_out(filler * before + task + filler * (repeats - before)))


def test_of_a_longer_text_stretches_are_looked_at() -> None:
    filler = "the committee met and nothing was decided "
    text = filler * (10 * LONGEST // len(filler))
    assert len(words_module._sample(text)) == LONGEST
    assert len(standing_out(text)) < 100
    assert "frenc" in standing_out(f"translate into french {text}")


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("Translating TRANSLATED 12 3", ["trans", "trans", "0", "0"]),
        ("अनुवाद करें", ["अनुवा", "करें"]),
        ("مُتَرْجِم", ["مُتَر"]),
        ("翻訳して", ["翻", "訳", "し", "て"]),
        ("번역하세요 번역", ["번역", "번역"]),
        ("แปล ก", ["แป", "ปล", "ก"]),
        ("👍🏽 ✍️", ["👍", "✍"]),
        ("snake_case x", ["snake", "case", "x"]),
    ],
)
def test_units_of_many_writings(text: str, units: list[str]) -> None:
    assert [unit for _, unit in located_units(text.lower())] == units


@given(ANY_TEXT)
def test_units_are_where_they_say(text: str) -> None:
    lowered = text.lower()
    for start, unit in located_units(lowered):
        assert unit == "0" or lowered.startswith(unit, start)


def test_a_text_of_the_length_that_is_read_is_read_whole() -> None:
    text = ("a b " * READ)[: READ - READ_END - 1] + "9" + ("c d " * READ)[:READ_END]
    assert len(text) == READ
    assert named(text, "digits") > named(text.replace("9", "e"), "digits")


@pytest.mark.parametrize(
    "piece", ["\n", " ", "word ", "_", "((", "a", "?", "\ud800", "\U0001f600", "\u4e2d", "İ", "A) \n"]
)
def test_huge_texts_are_bounded_work(piece: str) -> None:
    text = piece * (10_000_000 // len(piece))
    assert len(module._read(text)) == READ
    features = text_features(text)
    assert np.isfinite(features).all() and np.abs(features).max() <= 1.25
    assert features[0] == 1.25  # the length counts in full, and is clipped
    assert estimate_tokens(text) >= len(text) // 4


def test_an_option_is_found_from_its_own_line() -> None:
    # Were blank lines part of the match, each would be a start that runs over all later ones: time in their square.
    option = module._OPTION.search("\n\n \n  (B) no")
    assert option is not None and option.group() == "  (B) "


def test_the_cache_is_bounded() -> None:
    assert module._places.cache_info().maxsize == words_module._places.cache_info().maxsize == 1 << 14
    endless = "ab" * 2500  # only the first characters of a word are hashed
    np.testing.assert_array_equal(words(endless), words(endless + "ab"))


@given(st.text(alphabet="abcdefghijklmnop", min_size=1, max_size=12))
def test_places_are_within_range(word: str) -> None:
    former, places = module._places("u", word), words_module._places(word)
    assert len(former) == module.PLACES and len(places) == words_module.PLACES
    assert all(0 <= place < 2 * FORMER_WORDS for place in former)
    assert all(0 <= place < 2 * WORDS for place in places)


@pytest.mark.parametrize(
    ("places_of", "dim"),
    [(lambda word: module._places.__wrapped__("u", word), FORMER_WORDS), (words_module._places.__wrapped__, WORDS)],
    ids=["former", "present"],
)
def test_places_are_even(places_of: Callable[[str], tuple[int, ...]], dim: int) -> None:
    count = 20_000
    places = np.array([places_of(f"word{i}") for i in range(count)])
    expected = count * places.shape[1] / (2 * dim)
    observed = np.bincount(places.ravel(), minlength=2 * dim)
    assert np.abs(observed / expected - 1.0).max() < 0.2  # five standard deviations
    for left in range(places.shape[1]):
        for right in range(left):
            assert np.mean(places[:, left] == places[:, right]) == pytest.approx(1 / (2 * dim), abs=0.01)
    assert module._places("p", "write") != module._places("e", "write")


def test_projection_keeps_inner_products_in_expectation() -> None:
    rng = np.random.default_rng(1)
    overlaps = []
    for _ in range(400):
        ids = rng.integers(0, 10**9, size=30)
        first_bag = module._bag("u", [f"w{i}" for i in ids[:20]])
        second_bag = module._bag("u", [f"w{i}" for i in ids[10:]])
        overlaps.append((first_bag @ second_bag / module.PLACES, first_bag @ first_bag / module.PLACES))
    shared, own = np.mean(overlaps, axis=0)
    assert shared == pytest.approx(0.5, abs=0.06)
    assert own == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("", 0, 0),
        (" ", 1, 1),
        ("Hello", 1, 3),
        ("The quick brown fox jumps over the lazy dog.", 8, 13),
        ("def add(a, b):\n    return a + b\n", 7, 16),
        ("请解释一下量子力学的基本原理。", 10, 20),
        ("东京是日本的首都", 8, 8),
        ("Напиши короткое письмо моему начальнику.", 10, 30),
        ("\U0001f600\U0001f680", 2, 6),
    ],
)
def test_tokens_of_known_texts(text: str, low: int, high: int) -> None:
    assert low <= estimate_tokens(text) <= high


@given(ANY_TEXT)
def test_tokens_of_any_text(text: str) -> None:
    tokens = estimate_tokens(text)
    assert isinstance(tokens, int)
    assert len(text) / 4 <= tokens <= len(text) * 4 / 3 + 1


@given(st.text(max_size=100), st.text(max_size=100))
def test_more_text_is_more_tokens(first: str, second: str) -> None:
    assert estimate_tokens(first + second) >= max(estimate_tokens(first), estimate_tokens(second))


@given(st.integers(0, 3 * READ))
def test_tokens_grow_with_length(length: int) -> None:
    assert estimate_tokens("a" * length) == -(-length // 4)
