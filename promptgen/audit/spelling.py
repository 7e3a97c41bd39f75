"""Labels that stand for nothing, and labels that differ only in spelling."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping

MISSING = frozenset({"", "nan", "-nan", "na", "n/a", "#n/a", "#na", "<na>", "nat", "null", "none"})
"""What programs write for a missing value, in lower case."""

DASHES = re.compile(r"[\u2010-\u2015\u2212]")
BETWEEN = re.compile(r"(?<=\w)[\s_-]+(?=\w)")


def is_missing(label: str) -> bool:
    """Return whether a cell holds no label.

    Example:
        >>> [is_missing(label) for label in ("NaN", "N/A", " ", "no")]
        [True, True, True, False]
    """
    return _seen(label).casefold() in MISSING


def spelling(label: str) -> str:
    """Return what labels that differ only in spelling have in common.

    They may differ in case, blanks, invisible characters, composed and decomposed letters, and in blanks, hyphens and
    underscores between words. Numbers are equal if their values are.

    Example:
        >>> spelling("Middle_Eastern") == spelling(" middle eastern\u200b"), spelling("1") == spelling("1.0")
        (True, True)
        >>> spelling("-1") == spelling("1")
        False
    """
    text = BETWEEN.sub(" ", DASHES.sub("-", _seen(label)).casefold())
    try:
        return repr(float(text))
    except ValueError:
        return text


def alike(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of different labels that differ only in spelling, each sorted.

    Example:
        >>> alike(["Male", "male", "Female"])
        [('Male', 'male')]
    """
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for label in labels:
        groups[spelling(label)].add(label)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def one_spelling(counts: Mapping[str, int]) -> dict[str, str]:
    """Return the most frequent spelling of each label, by label.

    Example:
        >>> one_spelling({"Male": 3, "male": 5, "Female": 1})
        {'Male': 'male', 'male': 'male', 'Female': 'Female'}
    """
    chosen: dict[str, str] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        chosen.setdefault(spelling(label), label)
    return {label: chosen[spelling(label)] for label in counts}


def visible(label: str) -> str:
    """Return a label with characters that cannot be seen escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in label)


def _seen(label: str) -> str:
    """Return a label in compatible letters, without invisible characters and with single blanks."""
    letters = unicodedata.normalize("NFKC", label)
    shown = (letter for letter in letters if letter.isspace() or unicodedata.category(letter) not in ("Cf", "Cc"))
    return " ".join("".join(shown).split())
