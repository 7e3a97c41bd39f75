"""The report: what a run of the loop showed, in one HTML file and one JSON file.

`records` is the schema of ``reports/metrics.json``; `settings` and `run` are what is shown beside it. `answer`,
`doubts`, `quality`, `watched` and `control` say in sentences what the numbers mean, `glossary` has a line for each of
them and `methods` how it was computed; `figures` draws; `page` puts it together. Only this package needs pandas,
seaborn and jinja2.
"""
