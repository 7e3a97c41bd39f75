"""The report: what a run of the loop showed, in one HTML file and one JSON file.

It shows the record of a run, `promptgen.records.Metrics`, and computes no statistics of its own; `settings` and `run`
are what stands beside the numbers. `sections` says in sentences what they mean, `text` holds the glossary and the
number formats, `drawing` draws, `csv_tables` has the numbers for other programs, and `page` puts the page together.
Only this package needs pandas, seaborn and jinja2.
"""
