"""The pattern language."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridsim.errors import SpecError
from hybridsim.spec.pattern import compress_pattern, expand_pattern


@pytest.mark.parametrize(
    ("pattern", "letters"),
    [
        ("LLLF", "LLLF"),
        ("(LLLF)*6 LLF", "LLLF" * 6 + "LLF"),
        ("LLLF*12", "LLLF" * 12),
        (" L L\tL F ", "LLLF"),
        ("((LF)*2 D)*3", "LFLFD" * 3),
        ("D(M)*26", "D" + "M" * 26),
        ("D . E .*2", "D.E.."),
        ("L*3 F*2", "LLLFF"),
    ],
)
def test_expand(pattern: str, letters: str) -> None:
    assert expand_pattern(pattern, len(letters)) == letters


@pytest.mark.parametrize(
    ("pattern", "num_layers", "letters"),
    [
        ("(F)*", 5, "FFFFF"),
        ("D (E)*", 4, "DEEE"),
        ("DDD (E)* F", 6, "DDDEEF"),
        ("(LLLF)*", 8, "LLLFLLLF"),
        ("LLF (F)*", 3, "LLF"),
    ],
)
def test_a_bare_star_fills(pattern: str, num_layers: int, letters: str) -> None:
    assert expand_pattern(pattern, num_layers) == letters


@pytest.mark.parametrize(
    ("pattern", "num_layers", "message"),
    [
        ("LL-F", 4, r"layer_pattern=LL-F: bad character '-' .* at position 3"),
        ("LL F2", 4, r"bad character '2' .* at position 5"),
        ("(LLLF*2", 8, r"unbalanced '\(' at position 1"),
        ("LL)F", 4, r"unbalanced '\)' at position 3"),
        ("L()F", 4, r"empty group at position 2"),
        ("L*0 F", 4, r"repeat count must be at least 1, got 0 at position 2"),
        ("*3", 3, r"bad character '\*' .* at position 1"),
        ("", 4, r"empty; give one letter a layer"),
        ("   ", 4, r"empty; give one letter a layer"),
        ("LLLF", 27, r"expands to 4 letters, but num_layers is 27"),
        ("(LLLF)*", 27, r"cannot fill 27 layers: 27 remain for repeats of the 4 letters LLLF"),
        ("(L)* (F)*", 9, r"a bare '\*' may stand once .* at position 9"),
        ("((L)* F)*2", 9, r"a bare '\*' may stand once and not inside a group"),
        ("L*99999", 9, r"more than 4096 layers at position 1"),
        ("L*" + "9" * 5000, 9, r"more than 4096 layers at position 1"),
        ("L*" + "0" * 5000, 9, r"repeat count must be at least 1, got 0 at position 2"),
        ("(" * 5000, 9, r"more than 100 groups inside each other at position 101"),
    ],
)
def test_wrong_patterns_name_the_position(pattern: str, num_layers: int, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        expand_pattern(pattern, num_layers)


@given(st.text(alphabet="LFX.", min_size=1, max_size=40))
def test_compress_expands_back(letters: str) -> None:
    short = compress_pattern(letters)
    assert expand_pattern(short, len(letters)) == letters
    assert len(short.replace(" ", "")) <= len(letters)


def test_compress_finds_the_period() -> None:
    assert compress_pattern("LLLF" * 6 + "LLF") == "(LLLF)*6 LLF"
    assert compress_pattern("F" * 61) == "(F)*61"


@given(st.text(max_size=30), st.integers(1, 60))
def test_any_text_gives_letters_or_one_line(pattern: str, num_layers: int) -> None:
    try:
        letters = expand_pattern(pattern, num_layers)
    except SpecError as error:
        letters, message = "", str(error)
    assert len(letters) == num_layers or message.startswith("layer_pattern=")
