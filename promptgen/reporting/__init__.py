"""The report of a run, in one HTML file and one JSON file.

It shows the record of a run, `promptgen.records.Metrics`, and computes no statistics of its own; `settings` and `run`
hold its other inputs. `sections` describes the numbers in sentences, `text` holds the glossary and the number formats,
`drawing` draws the figures, `csv_tables` writes the numbers for other programs, and `page` assembles the page.
Only this package needs pandas, seaborn and jinja2.
"""
