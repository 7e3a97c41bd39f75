"""How templates become pages; without the figures of the report, whose packages are large."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from promptgen.reporting.text import formats
from promptgen.reporting.text.glossary import MEANINGS

FILTERS = (
    *("brief", "class_name", "count", "duration", "number", "number_range", "p_value", "percent", "percent_range"),
    *("points", "wanted"),
)


def environment() -> Environment:
    """Return the Jinja environment: all text is escaped, and an undefined name is an error."""
    jinja = Environment(
        loader=PackageLoader("promptgen.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters.update({name: getattr(formats, name) for name in FILTERS})
    jinja.globals["meanings"] = MEANINGS
    return jinja
