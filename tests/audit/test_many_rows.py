"""Tables of many rows: what an audit of them takes, and what becomes of columns with another label in each row."""

from __future__ import annotations

import pytest

from promptgen.audit.figures import Sampling
from promptgen.audit.label_file import DIFFERENT
from promptgen.audit.request import Request
from promptgen.csv_column import MOST_LABELS
from promptgen.csv_file import read_csv
from promptgen.errors import DataError
from steps.audit import run
from tests.measure_audit import cost

ROWS = MOST_LABELS + 1000
QUICK = Sampling(resamples=20)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    rows = (f"{i}.jpg,{'Male' if i % 4 else 'Female'},{i % 300},{i % (ROWS - 9)}.5" for i in range(ROWS))
    path.write_text("\n".join(["file,gender,street,score", *rows]))
    return path


def test_columns_of_too_many_labels_are_left_out_by_name(table, tmp_path):
    found = run(Request(table, sampling=QUICK), tmp_path)
    (gender,) = found.audits
    assert (gender.attribute, gender.bias.n, found.images.n) == ("gender", ROWS, ROWS)
    assert found.not_counted == {"street": "300 labels", "file": DIFFERENT, "score": "measured numbers"}
    with pytest.raises(DataError, match=f"file has {ROWS} different labels, expected at most {MOST_LABELS}"):
        run(Request(table, attributes=["gender", "file"], sampling=QUICK), tmp_path)


def test_a_column_is_kept_up_to_so_many_labels(table):
    columns = dict(zip(("file", "gender", "street", "score"), read_csv(table).columns, strict=True))
    assert {name: column.different for name, column in columns.items()} == {
        "file": ROWS, "gender": 2, "street": 300, "score": ROWS - 9,
    }  # fmt: skip
    assert [name for name, column in columns.items() if column.is_kept] == ["gender", "street"]
    street = columns["street"]
    assert [street.cells[code] for code in street.codes[298:302]] == ["298", "299", "0", "1"]


def test_empty_rows_at_the_end_are_no_rows(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["gender,age", "Male,old", ",", "Female,young", *[","] * 1000]))
    assert read_csv(path).rows == [["Male", "old"], ["", ""], ["Female", "young"]]


@pytest.mark.slow
def test_rows_take_little_memory():
    """A million rows may take 300 MiB in all, and take 60 s."""
    (few, _), (many, seconds) = cost(1_000), cost(200_000)
    assert many - few < 40
    assert many < 300
    assert seconds < 30
