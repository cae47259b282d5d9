"""Numbers, negations, code and names that differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.compare.facts import FactDiff, fact_diff


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("1,000 users", "1000.0 users"),
        ("1e3", "1000"),
        ("+5 degrees", "5 degrees"),
        ("\u22125", "-5"),
        ("30%", "30 percent"),
        ("thirty per cent", "30 %"),
        ("twenty-one days", "21 days"),
        ("two hundred and five", "205"),
        ("three thousand four hundred", "3,400"),
        ("a hundred", "100"),
        (".50", "0.5"),
        ("007", "7"),
        ("0.0", "zero"),
        ("1.50e-2", "0.015"),
        ("1e400", "10e399"),
        ("1,234,567.50", "1234567.5"),
        ("\u0663 apples", "3 apples"),
        ("one of them", "some of them"),
        ("I can't go", "I cannot go"),
        ("It isn\u2019t", "It is not"),
        ("It dont work", "It don't work"),
        ("You cannot return it", "You can't return it"),
        ("It is impossible", "It is not possible"),
        ("It is non-refundable", "It is not a refundable one"),
        ("It is harmless", "It is not harmful"),
        ("impossible", "impossible, whatever is possible"),
        ("Please inform us in the form", "Please tell us in the form"),
        ("Inside, on a side", "Within, on a side"),
        ("regardless of regard", "for all regard"),
        ("Painless as can be", "Quiet as can be"),
    ],
)
def test_the_same_fact_in_other_words(a: str, b: str) -> None:
    assert not fact_diff(a, b).blocking


@pytest.mark.parametrize(
    ("a", "b", "numbers"),
    [
        ("within 30 days", "within 14 days", (("30", "14"),)),
        ("thirty days", "sixty days", (("30", "60"),)),
        ("3,5", "3.5", (("3", "3.5"), ("5", ""))),
        ("-5", "5", (("-5", "5"),)),
        ("30%", "30", (("30%", "30"),)),
        ("2024-05-01", "2024-06-01", (("5", "6"),)),
        ("v1.2.3", "v1.2.4", (("3", "4"),)),
        ("order A123", "order A124", (("123", "124"),)),
        ("1e30", "1e31", (("1e30", "1e31"),)),
        ("1e-30", "", (("1e-30", ""),)),
        ("10 and 10", "10", (("10", ""),)),
        ("3 tablets every 5 hours", "5 tablets every 3 hours", (("3", "5"), ("5", "3"))),
        ("1 to 2 of 3", "2 to 1 of 3", (("1", "2"), ("2", "1"))),
        ("nineteen eighty", "nineteen ninety", (("nineteen eighty", "nineteen ninety"),)),
        ("two thousand thousand", "four hundred hundred", (("two thousand thousand", "four hundred hundred"),)),
        ("five hundred and two", "two hundred and five", (("502", "205"),)),
        ("twenty hundred", "zero zero", (("twenty hundred", "zero zero"),)),
    ],
)
def test_other_numbers_block(a: str, b: str, numbers: tuple[tuple[str, str], ...]) -> None:
    diff = fact_diff(a, b)

    assert diff.numbers == numbers
    assert diff.blocking


@pytest.mark.parametrize(
    ("a", "b", "negations"),
    [
        ("It is refundable.", "It is not refundable.", (("", "not refundable"),)),
        ("with a receipt", "without a receipt", (("", "without receipt"),)),
        ("You can't", "You can", (("not", ""),)),
        ("Never do it", "Always do it", (("never do", ""),)),
        ("returnable but not refundable", "not returnable but refundable", (("not refundable", "not returnable"),)),
        ("It is not **to be** opened", "It is to be **opened**", (("not opened", ""),)),
        ("It is possible", "It is impossible", (("", "not possible"),)),
        ("Irregular", "regular", (("not regular", ""),)),
        ("Unsafe, dishonest", "safe, honest", (("not safe", ""), ("not honest", ""))),
        ("It is harmless", "It is harmful", (("not harmful", ""),)),
        ("without pain", "painless, no pain", (("without pain", "not pain"), ("", "no pain"))),
        ("It is not impossible", "It is possible", (("not impossible", ""), ("not possible", ""))),
        ("No, it is", "It is", (("no", ""),)),
    ],
)
def test_a_flipped_negation_blocks(a: str, b: str, negations: tuple[tuple[str, str], ...]) -> None:
    assert fact_diff(a, b).negations == negations
    assert fact_diff(a, b).blocking


def test_words_that_only_contain_a_negator_are_none() -> None:
    assert fact_diff("I know a notable north nonetheless", "").negations == ()


def test_code_and_names_are_shown_but_do_not_block() -> None:
    diff = fact_diff(
        "Call `foo()` in New York.\n```python\nprint()\n```\n", "Call `bar()` in Boston. Then I go.\n```\nexit()\n```\n"
    )

    assert diff.code == (("foo()", "bar()"), ("print()", "exit()"))
    assert diff.names == (("New York", "Boston"),)
    assert not diff.blocking


def test_a_capital_that_opens_a_sentence_is_no_name() -> None:
    assert fact_diff("Paris is nice. London too: Rome\nMadrid I'm", "").names == ()
    assert fact_diff("we met Ada Lovelace, Bob and Eve", "").names == (("Ada Lovelace", ""), ("Bob", ""), ("Eve", ""))


def test_description_is_one_line() -> None:
    assert fact_diff("30 days", "14 days, not `a\nb`").describe() == (
        "number 30 → 14; negation not b only in the candidate"
    )
    assert fact_diff("`" + "x" * 50 + "`", "").describe() == "code " + "x" * 39 + "… only in the baseline"
    assert FactDiff().describe() == ""


texts = st.lists(
    st.sampled_from(
        [
            "3",
            "1,000",
            "not",
            "can't",
            "possible",
            "impossible",
            "harmless",
            "`x`",
            "New",
            "York",
            "five",
            "hundred",
            "%",
            ".",
            ",",
            "and",
            "\n",
        ]
    ),
    max_size=12,
).map(" ".join)


@given(texts, texts)
def test_sides_swap_and_equals_agree(a: str, b: str) -> None:
    forward, backward = fact_diff(a, b), fact_diff(b, a)

    assert fact_diff(a, a) == FactDiff()
    assert forward.numbers == tuple((x, y) for y, x in backward.numbers)
    assert forward.negations == tuple((x, y) for y, x in backward.negations)
    assert forward.blocking == backward.blocking


sentences = st.lists(
    st.sampled_from(
        [
            *("3", "-3.5", "1,000", "2e3", "twenty", "five", "one", "hundred", "and", "%", "per cent", "(", "'", "-"),
            *("not", "can't", "isnt", "without", "possible", "impossible", "power", "powerless", "un", "likely", "the"),
            *("New", "York", "Dr", "I", "I'm", "A1", "x", ".", ". ", "? ", "\n", " ", " ", " "),
        ]
    ),
    max_size=12,
).map("".join)


@given(sentences, sentences, sentences, st.sampled_from(["", ".", ". "]))
def test_what_two_texts_begin_with_changes_nothing_of_what_differs(begin: str, a: str, b: str, end: str) -> None:
    """Beyond ASCII both are looked at whole."""
    ours, theirs = f"{begin}{end}{a}", f"{begin}{end}{b}"

    assert fact_diff(ours, theirs) == fact_diff(f"é. {ours}", f"é. {theirs}")


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_survived(a: str, b: str) -> None:
    assert (fact_diff(a, b).describe() == "") == (fact_diff(a, b) == FactDiff())


@given(st.integers(-(10**14), 10**14))
def test_a_number_is_itself_in_every_notation(number: int) -> None:
    assert not fact_diff(f"{number}", f"{number:,}").blocking
    assert not fact_diff(f"{number}", f"{number}.00").blocking
    assert fact_diff(f"{number}", f"{number + 1}").blocking
