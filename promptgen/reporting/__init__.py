"""The report: what a run of the loop showed, in one HTML file and one JSON file.

`records` is the schema of ``reports/metrics.json``; `words` says in sentences what the numbers mean; `figures` draws;
`page` puts it together. Only this package needs pandas, seaborn and jinja2.
"""
