"""An audit as one HTML file that needs nothing but itself, in the look of the report of a run."""

from __future__ import annotations

from promptgen.audit import words as audit_words
from promptgen.audit.tables import tables
from promptgen.audit.words import AuditRun
from promptgen.reporting.page import environment


def render(run: AuditRun) -> str:
    """Return the page; equal audits make equal bytes."""
    return (
        environment()
        .get_template("audit.html.j2")
        .render(
            run=run,
            answer=audit_words.headline(run),
            context=audit_words.context(run),
            warnings=audit_words.doubts(run),
            found=[(audit, audit_words.verdict(audit), tables(run, audit)) for audit in run.audits],
            method=audit_words.method(run),
            perceived=audit_words.PERCEIVED,
        )
    )
