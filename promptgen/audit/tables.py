"""Results of an audit as tables of text, for the page and the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from promptgen.audit.figures import Audit, Comparison
from promptgen.audit.groups import MARGIN, Groups
from promptgen.audit.words import PERCEIVED, AuditRun, context, doubts, method, verdict
from promptgen.metrics.bias import DISTANCES
from promptgen.metrics.estimate import Difference, Estimate
from promptgen.metrics.reference import Reference
from promptgen.reporting.text.formats import (
    count,
    number,
    number_range,
    p_number,
    percent,
    percent_range,
    points,
    wanted,
)

MEASURES = {
    "kl": ("KL to the target, nats", "How much an image surprises someone who expects the target, on average."),
    "total_variation": (
        "Total variation",
        "Fraction of the images that would have to change class to meet the target.",
    ),
    "discrepancy": ("Discrepancy", "Euclidean distance of shares and target (fairness discrepancy)."),
}
"""Title and meaning of each distance."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: the number or name.
        small: text in small print beside it, such as an interval.
    """

    text: str
    small: str = ""


@dataclass(frozen=True)
class Table:
    """A table and the meaning of its numbers.

    Attributes:
        title: title of the table.
        head: column titles.
        rows: the rows; the first cell is the title of the row.
        meanings: one sentence per column or measure, in plain words.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    meanings: Sequence[str]


def tables(run: AuditRun, audit: Audit) -> list[Table]:
    """Return all tables of one attribute."""
    sections = [_shares(run, audit), _distances(audit)]
    if audit.comparison and run.other:
        sections.append(_comparison(run, audit, audit.comparison))
    if audit.groups:
        sections.append(_groups(audit, audit.groups))
        if audit.groups.references and run.other:
            sections.append(_references(run.other.name, audit, audit.groups.references))
    return sections


def _shares(run: AuditRun, audit: Audit) -> Table:
    counted = "assigned to this class" if run.classifier else "with this label"
    columns: dict[str, tuple[Sequence[Estimate], str]] = {
        "Share": (audit.bias.shares, f"fraction of the {count(audit.bias.n)} images {counted}")
    }
    if audit.judge:
        columns["Judge"] = (audit.judge.shares, f"the same, as {run.judge} perceives the same images")
    if audit.soft:
        columns["Mean probability"] = (audit.soft.shares, "the same, with doubtful images counted fractionally")
    if audit.corrected:
        meaning = "the share without the classifier's errors, if they are as frequent as in its confusion table"
        columns["Corrected"] = (audit.corrected, meaning)
    rows = [
        [Cell(label), Cell(wanted(goal)), *(_share(estimates[i]) for estimates, _ in columns.values())]
        for i, (label, goal) in enumerate(zip(audit.labels, audit.bias.target, strict=True))
    ]
    meanings = [f"{title}: {meaning}." for title, (_, meaning) in columns.items()]
    return Table("Shares", [audit.attribute, "Target", *columns], rows, meanings)


def _distances(audit: Audit) -> Table:
    others = {"Judge": audit.judge, "By mean probabilities": audit.soft}
    shown = {"Value": audit.bias} | {title: bias for title, bias in others.items() if bias}
    rows = [
        [
            Cell(MEASURES[name][0]),
            *(_plain(getattr(bias, name)) for bias in shown.values()),
            Cell(number(audit.bias.noise_floors[name], 4)),
        ]
        for name in DISTANCES
    ]
    meanings = [": ".join(MEASURES[name]) for name in DISTANCES]
    chance = f"By chance alone: what {count(audit.bias.n)} images made exactly to the target show on average."
    return Table("Distance to the target", ["Measure", *shown, "By chance alone"], rows, [*meanings, chance])


def _comparison(run: AuditRun, audit: Audit, comparison: Comparison) -> Table:
    assert run.other is not None
    titles = [f"{run.images.name}, N = {count(audit.bias.n)}", f"{run.other.name}, N = {count(comparison.n)}"]
    rows = [
        [Cell(label), _share(share), _share(other), _points(difference), Cell(p_number(difference.p_value))]
        for label, share, other, difference in zip(
            audit.labels, audit.bias.shares, comparison.shares, comparison.differences, strict=True
        )
    ]
    for name, difference in comparison.distances.items():
        value: Estimate = getattr(audit.bias, name)
        ends = (Cell(number(value.value, 4)), Cell(number(value.value - difference.value, 4)))
        change = Cell(number(difference.value, 4), f"{number(difference.low, 4)} to {number(difference.high, 4)}")
        rows.append([Cell(MEASURES[name][0]), *ends, change, Cell(p_number(difference.p_value))])
    rows.append([Cell("All shares together"), *[Cell("")] * 3, Cell(p_number(comparison.p_value))])
    meanings = [
        "Difference: first set minus second set; for shares, in percentage points.",
        "p: probability of at least as large a difference by chance alone.",
    ]
    return Table("Compared", [audit.attribute, *titles, "Difference", "p"], rows, meanings)


def _groups(audit: Audit, groups: Groups) -> Table:
    rows = [[Cell(name), Cell(count(groups.n[name])), *map(_share, shares)] for name, shares in groups.shares.items()]
    rows.append([Cell("Mean over groups"), Cell(""), *(Cell(percent(mean)) for mean in groups.mean)])
    for title, spreads in (("Spread over groups", groups.deviation), ("Spread by chance alone", groups.chance)):
        rows.append([Cell(title), Cell(""), *(Cell(points(spread).lstrip("+")) for spread in spreads)])
    meanings = [
        "Mean over groups: all groups have equal weight, whatever their number of images.",
        "Spread over groups: standard deviation of the shares, in percentage points.",
        "Spread by chance alone: expected spread of as many images if all groups had the same shares.",
    ]
    return Table("By group", ["Group", "N", *audit.labels], rows, meanings)


def _references(other: str, audit: Audit, references: Sequence[Reference]) -> Table:
    rows = [
        [Cell(label), *(_share(part) for part in (reference.amplified, reference.reflected, reference.mitigated))]
        for label, reference in zip(audit.labels, references, strict=True)
    ]
    meanings = [
        f"Fractions of the {references[0].groups} groups in both sets. Reflected: the shares differ by at most "
        f"{100 * MARGIN:g} percentage points. Amplified: of the others, those further from the target in the first "
        "set. Mitigated: the rest.",
        "Sampling error within a group is ignored, so each group needs enough images.",
    ]
    head = [audit.attribute, "Amplified", "Reflected", "Mitigated"]
    return Table(f"Bias relative to {other}", head, rows, meanings)


def _share(share: Estimate) -> Cell:
    return Cell(percent(share.value), percent_range(share.low, share.high))


def _plain(value: Estimate) -> Cell:
    return Cell(number(value.value, 4), number_range(value.low, value.high, 4))


def _points(difference: Difference) -> Cell:
    return Cell(points(difference.value), f"{points(difference.low)} to {points(difference.high)}")


def text(run: AuditRun) -> str:
    """Return the whole audit for a terminal."""
    lines = [context(run), *(f"! {doubt}" for doubt in doubts(run)), ""]
    for audit in run.audits:
        lines += [audit.attribute, f"  {verdict(audit)}", ""]
        for table in tables(run, audit):
            lines += [f"  {line}" for line in (f"{table.title}:", *_lines(table))]
            lines += [*(f"    {meaning}" for meaning in table.meanings), ""]
    return "\n".join([*lines, *method(run), PERCEIVED])


def _lines(table: Table) -> Iterator[str]:
    """Yield the lines of a table, its columns aligned."""
    rows = [table.head, *([f"{cell.text}  {cell.small}".rstrip() for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
