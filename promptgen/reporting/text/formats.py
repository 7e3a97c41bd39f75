"""Formats of numbers and classes, in one place so that they look the same everywhere."""

from __future__ import annotations

import math

from promptgen.words import class_name as class_name
from promptgen.words import listing as listing

THIN = "\u202f"  # narrow no-break space, between a number and its unit
MINUS = "\u2212"
ABSENT = "–"


def number(value: float | None, digits: int = 3) -> str:
    """Return `value` with `digits` decimals and a true minus sign; a dash for None."""
    if value is None:
        return ABSENT
    text = f"{value:.{digits}f}"
    zero = float(text) == 0
    return text.lstrip("-") if zero else text.replace("-", MINUS)


def brief(value: float, max_decimals: int = 3) -> str:
    """Return `value` with three significant digits and at most `max_decimals` decimals: "220", "7.67" or "0.011"."""
    decimals = 2 - math.floor(math.log10(abs(value))) if value else max_decimals
    return number(value, min(max(decimals, 0), max_decimals))


def percent(share: float, digits: int = 1) -> str:
    """Return a share in [0, 1] as a percentage, such as "50.6 %"."""
    return f"{100 * share:.{digits}f}{THIN}%"


def wanted(share: float) -> str:
    """Return a chosen share, such as a target, without needless decimals: "50 %", "16.7 %"."""
    return f"{100 * share:.1f}".removesuffix(".0") + f"{THIN}%"


def points(difference: float) -> str:
    """Return a difference of two shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", MINUS)


def percent_range(low: float, high: float) -> str:
    """Return the ends of an interval of shares, such as "48.4 – 52.8 %"."""
    return f"{100 * low:.1f}{THIN}–{THIN}{100 * high:.1f}{THIN}%"


def number_range(low: float | None, high: float | None, digits: int = 3) -> str:
    """Return the ends of an interval of plain numbers, such as "0.001 – 0.004"."""
    return f"{number(low, digits)}{THIN}–{THIN}{number(high, digits)}"


def duration(seconds: float) -> str:
    """Return a readable time: "0.4 s", "75 s" or "12 min 30 s"."""
    if seconds < 10:
        return f"{seconds:.1f}{THIN}s"
    if seconds < 100:
        return f"{seconds:.0f}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}{THIN}min\u00a0{rest}{THIN}s"


def p_value(p: float) -> str:
    """Return a p-value with its name, such as "p = 0.31" or "p < 0.001", on one line."""
    text = p_number(p)
    return f"p {text if text.startswith('<') else f'= {text}'}".replace(" ", "\u00a0")


def p_number(p: float) -> str:
    """Return a p-value with its significant digits, such as "0.31" or "< 0.001"."""
    return "< 0.001" if p < 0.001 else number(p, 3 if p < 0.1 else 2)


def count(value: int) -> str:
    """Return a whole number with a thousands separator, such as "12 345"."""
    return f"{value:,}".replace(",", THIN)
