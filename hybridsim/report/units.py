"""Numbers for people: exact figures with separators, large ones with a unit."""

from __future__ import annotations

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
_DECIMAL = ("", "k", "M", "G", "T", "P", "E")


def exact(value: int | None) -> str:
    """Return an integer with thousands separators, a dash for none."""
    return "-" if value is None else f"{value:,}"


def bytes_text(value: float | None) -> str:
    """Return bytes in a binary unit, three significant digits."""
    if value is None:
        return "-"
    step = 0
    while abs(value) >= 1024 and step < len(_BINARY) - 1:
        value, step = value / 1024, step + 1
    return (
        f"{value:.0f} B"
        if step == 0
        else f"{value:.3g} {_BINARY[step]}"
        if value < 1000
        else f"{value:.0f} {_BINARY[step]}"
    )


def decimal_text(value: float | None, unit: str = "") -> str:
    """Return a figure in a decimal unit, e.g. 27.1 TFLOP."""
    if value is None:
        return "-"
    step = 0
    while abs(value) >= 1000 and step < len(_DECIMAL) - 1:
        value, step = value / 1000, step + 1
    return f"{value:.3g} {_DECIMAL[step]}{unit}".rstrip()


def seconds_text(value: float | None) -> str:
    """Return a time in s, ms or us."""
    if value is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size:
            digits = value / size
            return f"{digits:.0f} {unit}" if digits >= 100 else f"{digits:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def tokens_text(value: int | None) -> str:
    """Return a context length: 4k for 4,096, 1M for 1,048,576, else the number."""
    if value is None:
        return "-"
    for size, unit in ((1 << 20, "M"), (1 << 10, "k")):
        if value >= size and value % size == 0:
            return f"{value // size}{unit}"
    return f"{value:,}"
