"""Render an audit as one self-contained HTML file, in the style of a run's report."""

from __future__ import annotations

from promptgen.audit import words as audit_words
from promptgen.audit.tables import tables
from promptgen.audit.words import AuditRun
from promptgen.reporting.text.environment import environment


def render(run: AuditRun) -> str:
    """Return the page; equal audits give equal bytes."""
    return (
        environment()
        .get_template("audit.html.j2")
        .render(
            run=run,
            answer=audit_words.headline(run),
            context=audit_words.context(run),
            warnings=audit_words.doubts(run),
            sections=[(audit, audit_words.verdict(audit), tables(run, audit)) for audit in run.audits],
            method=audit_words.method(run),
            perceived=audit_words.PERCEIVED,
        )
    )
