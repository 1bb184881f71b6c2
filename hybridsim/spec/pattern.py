"""The pattern language: one letter a layer, with groups and repetition.

    pattern  = item+
    item     = run-of-letters [repeat] | "(" pattern ")" [repeat] | "." [repeat]
    repeat   = "*" COUNT | "*"          a bare "*" repeats until the layers are full

Spaces are ignored. A repeat applies to what stands before it: a group, or the whole run of
letters, so `LLLF*12` is 48 layers and `D(M)*26` is one D and 26 M. `.` stands for "nothing here"
and is a letter of its own (a layer without a feed-forward in a feed-forward pattern).
"""

from __future__ import annotations

from functools import lru_cache

from hybridsim.errors import SpecError

NOTHING = "."
MAX_LAYERS = 4096
MAX_DEPTH = 100  # of groups in groups

# An expanded pattern, or one that still has a place to fill: (letters before, unit, letters after)
_Fill = tuple[str, str, str]


@lru_cache(maxsize=65536)
def expand_pattern(pattern: str, num_layers: int, key: str = "layer_pattern") -> str:
    """Return one letter per layer.

    Args:
        pattern: text in the pattern language.
        num_layers: how many letters the result must have.
        key: the name of the spec field, for messages.

    Raises:
        SpecError: a character, a group or a count is wrong (with its position, counted from 1),
            or the length is not `num_layers`.
    """
    letters = _Parser(pattern, num_layers, key).parse()
    if len(letters) != num_layers:
        raise SpecError(
            f"{key}={pattern}: expands to {len(letters)} letters, but num_layers is {num_layers}"
            " (a bare `*` after a group repeats it until the layers are full)"
        )
    return letters


class _Parser:
    """Recursive descent over one pattern; positions in messages count from 1."""

    def __init__(self, pattern: str, num_layers: int, key: str) -> None:
        self.text = pattern
        self.num_layers = num_layers
        self.key = key
        self.at = 0
        self.fill: _Fill | None = None

    def error(self, position: int, what: str) -> SpecError:
        return SpecError(f"{self.key}={self.text}: {what} at position {position + 1}")

    def peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at] if self.at < len(self.text) else ""

    def parse(self) -> str:
        if not self.text.strip():
            raise SpecError(
                f"{self.key}={self.text!r}: empty; give one letter a layer, e.g. LLLF*12"
            )
        letters = self.sequence(depth=0)
        if self.fill is None:
            return letters
        before, unit, after = self.fill
        rest = self.num_layers - len(before) - len(after)
        if rest < 0 or rest % len(unit):
            raise SpecError(
                f"{self.key}={self.text}: cannot fill {self.num_layers} layers:"
                f" {max(rest, 0)} remain for repeats of the {len(unit)} letters {unit}"
            )
        return before + unit * (rest // len(unit)) + after

    def sequence(self, depth: int) -> str:
        """Parse items up to the end or a closing parenthesis."""
        letters = ""
        while (char := self.peek()) and char != ")":
            start = self.at
            unit = self.item(char, depth)
            letters = self.repeated(letters, unit, start, depth)
            if len(letters) > MAX_LAYERS:
                raise self.error(start, f"more than {MAX_LAYERS} layers")
        if depth == 0 and char == ")":
            raise self.error(self.at, "unbalanced ')'")
        if depth == 0 and self.fill is not None:
            before, unit, _ = self.fill
            self.fill = (before, unit, letters[len(before) :])
        return letters

    def item(self, char: str, depth: int) -> str:
        """Parse one run of letters, or one group without its repeat."""
        if char == "(":
            return self.group(depth)
        if char == NOTHING:
            self.at += 1
            return NOTHING
        if not (char.isascii() and char.isalpha()):
            raise self.error(
                self.at,
                f"bad character {char!r}"
                " (allowed: letters A-Z a-z, '.', parentheses, '*' and a count)",
            )
        run = ""
        while (char := self.peek()) and char.isascii() and char.isalpha():
            run += char
            self.at += 1
        return run

    def group(self, depth: int) -> str:
        start = self.at
        if depth == MAX_DEPTH:
            raise self.error(start, f"more than {MAX_DEPTH} groups inside each other")
        self.at += 1
        inside = self.sequence(depth + 1)
        if self.peek() != ")":
            raise self.error(start, "unbalanced '('")
        self.at += 1
        if not inside:
            raise self.error(start, "empty group")
        return inside

    def repeated(self, letters: str, unit: str, start: int, depth: int) -> str:
        """Append `unit` as often as the repeat that follows it says."""
        if self.peek() != "*":
            return letters + unit
        star = self.at
        self.at += 1
        digits = ""
        while (char := self.peek()) and char.isascii() and char.isdigit():
            digits += char
            self.at += 1
        if not digits:
            if depth or self.fill is not None:
                raise self.error(
                    star, "a bare '*' may stand once and not inside a group; give a count"
                )
            self.fill = (letters, unit, "")
            return letters
        digits = digits.lstrip("0")
        if not digits:
            raise self.error(star, "a repeat count must be at least 1, got 0")
        if len(digits) > len(str(MAX_LAYERS)) or len(unit) * int(digits) > MAX_LAYERS:
            raise self.error(start, f"more than {MAX_LAYERS} layers")
        return letters + unit * int(digits)


def compress_pattern(letters: str) -> str:
    """Return a short pattern that expands to `letters`; periodic parts become groups.

    Finds, among all ways to write the letters as single letters and repeated units, one with the
    fewest characters (dynamic programming over positions, cubic in the number of layers).
    """
    best: list[str] = [""]
    for end in range(1, len(letters) + 1):
        candidates = [best[end - 1] + letters[end - 1]]
        for size in range(1, end // 2 + 1):
            unit = letters[end - size : end]
            count = 1
            while (
                letters[end - (count + 1) * size : end - count * size] == unit
                and end >= (count + 1) * size
            ):
                count += 1
                candidates.append(f"{best[end - count * size]}({unit})*{count}")
        best.append(min(candidates, key=lambda text: (len(text.replace(" ", "")), text.count("("))))
    return _spaced(best[-1])


def _spaced(text: str) -> str:
    """Set groups off from what follows them, for the eye: `(LLLF)*6 LLF`."""
    out = ""
    for index, char in enumerate(text):
        if index and text[index - 1].isdigit() and not char.isdigit():
            out += " "
        out += char
    return out
