"""Tables of labels as people export them: what is read, what is left out by name, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from promptgen.audit.figures import Sampling
from promptgen.audit.label_file import label_file
from promptgen.audit.request import Request
from promptgen.audit.spelling import alike, is_missing, spelling
from promptgen.audit.words import doubts
from promptgen.csv_file import read_csv
from promptgen.errors import ConfigError, DataError
from steps.audit import run

QUICK = Sampling(resamples=50)
GENDERS = ["Male"] * 30 + ["Female"] * 10
PLAIN = ["file,gender,age", *(f"{i}.jpg,{gender},{'old' if i % 4 else 'young'}" for i, gender in enumerate(GENDERS))]


@pytest.fixture
def write(tmp_path):
    def written(lines, name="labels.csv", encoding="utf-8", end="\n"):
        path = tmp_path / name
        path.write_bytes((end.join(lines) + end).encode(encoding))
        return path

    return written


def read_labels(path):
    return label_file(path, read_csv(path))


def audited(path, **options):
    return run(Request(path, sampling=QUICK, **options), path.parent / "out")


def shares(found, attribute="gender"):
    (audit,) = (each for each in found.audits if each.attribute == attribute)
    return dict(zip(audit.labels, (share.value for share in audit.bias.shares), strict=True))


def replaced(lines, old, new):
    return [line.replace(old, new) for line in lines]


WAYS = {
    "semicolons": replaced(PLAIN, ",", ";"),
    "tabs": replaced(PLAIN, ",", "\t"),
    "bars": replaced(PLAIN, ",", "|"),
    "a line that tells": ["sep=;", *replaced(PLAIN, ",", ";")],
    "a line that tells commas": ["sep=,", *PLAIN],
    "quotes": [",".join(f'"{cell}"' for cell in line.split(",")) for line in PLAIN],
    "quotes and semicolons": [";".join(f'"{cell}"' for cell in line.split(",")) for line in PLAIN],
    "pandas' index": [f"{i or ''},{line}" for i, line in enumerate(PLAIN)],
    "pandas' index of joined tables": [f"{i % 9 if i else ''},{line}" for i, line in enumerate(PLAIN)],
    "pandas' unnamed index": [f"{i or 'Unnamed: 0'},{line}" for i, line in enumerate(PLAIN)],
    "commas at the ends": [f"{line},," for line in PLAIN],
    "commas at the ends of rows": [PLAIN[0], *(f"{line},," for line in PLAIN[1:])],
    "commas at the end of the header": [PLAIN[0] + ",,", *PLAIN[1:]],
    "blank lines": [each for line in PLAIN for each in (line, "", "  ")],
    "blank last rows": [*PLAIN, ",,", " , , ", ",,,,"],
    "blanks around cells": [line.replace(",", " , ") for line in PLAIN],
    "a note that few have": [PLAIN[0] + ",note", *(f"{line}," for line in PLAIN[1:-1]), PLAIN[-1] + ",odd"],
    "scores": [PLAIN[0] + ",scores", *(f'{line},"[0.1 0.{i // 2}\n 0.2]"' for i, line in enumerate(PLAIN[1:]))],
    "a score": [PLAIN[0] + ",score", *(f"{line},0.{i // 2}" for i, line in enumerate(PLAIN[1:]))],
    "different line ends": [f"{line}\r" if i % 2 else line for i, line in enumerate(PLAIN)],
    "labels with commas": [f"{line.replace(',', ';')};\"a, b; c\"" for line in PLAIN],
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_is_read_however_it_is_exported(write, way, end):
    found = audited(write(WAYS[way], end=end))
    assert [each.attribute for each in found.audits] == ["gender", "age"]
    assert found.images.n == 40
    assert shares(found) == {"Female": 0.25, "Male": 0.75}
    assert shares(found, "age") == {"old": 0.75, "young": 0.25}
    assert found.images.missing == {}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_are_told_by_their_mark(write, encoding):
    path = write(replaced(PLAIN, "gender", "genre perçu"), encoding=encoding)
    assert shares(audited(path), "genre perçu") == {"Female": 0.25, "Male": 0.75}


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (["gender"], {}, "no rows"),
        ([], {}, "no rows"),
        (["gender", "", "  "], {}, "no rows"),
        (["gender,gender", "Male,Female"], {}, "a name of its own"),
        (["gender,age", "Male,old", "Female"], {}, "line 3 has 1 of 2 cells"),
        (["gender,age", "", "Male,old", "Female,old,odd"], {}, "line 4 has 3 of 2 cells"),
        (["file,,age", "a,Male,old", "b,Male,old"], {}, "column 2 of 3 has no name"),
        ([",age", "Male,old", "Male,old"], {}, "column 1 of 2 has no name"),
        (["gender", '"Male'], {}, "in line 2"),
        (["name,gender", '"a \\"b\\" 0",Male'], {}, "in line 2"),
        (["gender;age,group", "Male;old,a", "Female;old,b"], {}, "commas or semicolons"),
        (["gender age", "Male old", "Female young"], {}, 'add the line "sep= "'),
        (["Male Young", "0.jpg -1  1", "1.jpg  1  1"], {}, 'add the line "sep= "'),
        (["sep= ", "file gender", "a Male", "b"], {}, "line 4 has 1 of 2 cells"),
        (["3", "Male Young", "0.jpg -1  1", "1.jpg  1  1"], {}, "first line says 3 rows, it has 2"),
        (["2", "file,Male", "0.jpg,1"], {}, "first line says 2 rows, it has 1"),
        (["2", "Male Young", "0.jpg -1  1", "0.jpg  1"], {}, "line 4 has 2 of 3 cells"),
        (["gender", "Ma\0le"], {}, "line 2 has a zero byte"),
        (PLAIN, {"encoding": "utf-16-le"}, "line 1 has a zero byte"),
        (["genre perçu", "Homme"], {"encoding": "latin-1"}, "give a CSV file in UTF-8"),
    ],
)
def test_tables_that_can_be_misread_are_refused(write, lines, options, message):
    with pytest.raises(DataError, match=message):
        read_labels(write(lines, **options))


def test_the_separator_is_that_which_fits_all_rows(write):
    rows = ["file;score,100;gender", "a;0,5;Male", "b;0,25;Female", "c;1;Female"]
    assert read_csv(write(rows)).names == ["file", "score,100", "gender"]
    assert read_csv(write(["file,note; more,gender", "a,x,Male"])).names == ["file", "note; more", "gender"]


CELEBA = ["4", "Male Young ", "0.jpg -1  1", "1.jpg  1  1", "2.jpg -1 -1", "3.jpg -1  1"]


@pytest.mark.parametrize(
    "lines",
    [
        CELEBA,
        ["", *CELEBA, "", " "],
        ["4", "file Male Young", *CELEBA[2:]],
        ["sep= ", *CELEBA[1:]],
        ['"sep= "', "Male\tYoung", *replaced(CELEBA[2:], " ", "\t ")],
        ["4", "file,Male,Young", *(",".join(line.split()) for line in CELEBA[2:])],
        ["4", "\tMale\tYoung", *("\t".join(line.split()) for line in CELEBA[2:])],
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lists_of_attributes_as_of_celeba_are_read(write, lines, end):
    found = audited(write(lines, "list_attr_celeba.txt", end=end))
    assert [each.attribute for each in found.audits] == ["Male", "Young"]
    assert found.images.n == 4
    assert shares(found, "Male") == {"-1": 0.75, "1": 0.25}
    assert shares(found, "Young") == {"-1": 0.25, "1": 0.75}


def test_words_between_blanks_stay_together_in_quotes_and_in_one_column(write):
    quoted = read_labels(write(["sep= ", "gender race", 'Male "South  Asian"', 'Female "East Asian"'])).labels
    assert quoted.attributes["race"] == ("East Asian", "South Asian")
    assert read_labels(write(["hair", "long hair", "short hair"])).labels.attributes["hair"] == (
        "long hair",
        "short hair",
    )
    assert read_labels(write(["1", "-1", "1", "1"])).labels.attributes["1"] == ("-1", "1")


MISSING = ["", "nan", "NaN", "NA", "N/A", "n/a", "null", "NULL", "None", "none", "<NA>", "#N/A", " ", "\u200b"]


@pytest.mark.parametrize("cell", MISSING)
def test_a_missing_label_is_left_out_of_its_attribute_counted_and_named(write, cell):
    assert is_missing(cell)
    lines = [*PLAIN, *(f"more-{i}.jpg,{cell},old" for i in range(8))]
    found = audited(write(lines), attributes=["gender", "age", "gender x age"])
    assert shares(found) == {"Female": 0.25, "Male": 0.75}
    assert [each.bias.n for each in found.audits] == [40, 48, 40]
    assert shares(found, "age")["old"] == pytest.approx(38 / 48)
    assert found.images.missing == {"gender": list(range(42, 50))}
    sentence = "without a label of gender: lines 42, 43, 44, 45, 46 and 3 more."
    assert [doubt for doubt in doubts(found) if doubt.startswith("Left out 8 rows") and doubt.endswith(sentence)]
    content = json.loads((write([], "x").parent / "out" / "audit.json").read_text())
    assert content["images"]["missing"] == {"gender": list(range(42, 50))}


def test_a_label_that_a_target_names_is_no_missing_one(write):
    path = write(["glasses", *["none"] * 6, *["some"] * 2, "NaN"])
    (glasses,) = audited(path, targets=["glasses: none=0.5, some=0.5"]).audits
    assert (glasses.labels, glasses.bias.n) == (("none", "some"), 8)


def test_a_missing_group_is_no_group(write):
    lines = ["gender,job", *["Male,baker", "Female,baker", "Male,clerk", "Male,clerk", "Female,", ",pilot"]]
    found = audited(write(lines), groups="job")
    assert found.audits[0].groups.n == {"baker": 2, "clerk": 2}
    assert found.audits[0].groups.empty == ("pilot",)
    assert found.audits[0].bias.n == 5
    assert found.images.missing == {"gender": [7], "job": [6]}
    assert any(doubt.startswith("No image of pilot has a label of gender") for doubt in doubts(found))


SPELLINGS = ["Male"] * 5 + ["male "] * 2 + ["Male\u200b", "MALE", "Female", "fe\u00admale", "Female\u00a0", "Female"]


def test_labels_that_differ_only_in_spelling_are_named_or_made_one(write):
    path = write(["gender", *SPELLINGS])
    found = audited(path)
    assert found.alike == {"gender": [("Female", "fe\u00admale"), ("MALE", "Male", "Male\u200b", "male")]}
    (sentence,) = (doubt for doubt in doubts(found) if "MALE" in doubt)
    assert '"Male\\u200b"' in sentence
    merged = audited(path, normalise=True)
    assert shares(merged) == {"Female": pytest.approx(4 / 13), "Male": pytest.approx(9 / 13)}
    assert doubts(merged) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Middle_Eastern", "middle eastern"),
        ("20–29", "20-29"),
        ("1", "1.0"),
        ("é", "e\u0301"),
        ("Ａ", "a"),
        ("ß", "SS"),
    ],
)
def test_spellings_of_one_label(one, other):
    assert alike([one, other, "else"]) == [tuple(sorted((one, other)))]


@pytest.mark.parametrize(("one", "other"), [("-1", "1"), ("0-2", "02"), ("70+", "70"), ("man", "men"), ("x=1", "x=2")])
def test_other_labels(one, other):
    assert spelling(one) != spelling(other)


def test_spellings_in_two_files_are_compared(write):
    here, there = write(["gender", "Male", "Male", "Female"]), write(["gender", "male", "Female", "Female"], "b.csv")
    assert audited(here, compare=there).alike == {"gender": [("Male", "male")]}
    merged = audited(here, compare=there, normalise=True)
    assert [share.value for share in merged.audits[0].comparison.shares] == pytest.approx([2 / 3, 1 / 3])
    assert (merged.alike, merged.one_sided) == ({}, {})


@pytest.mark.parametrize("lines", [PLAIN[1:], [line.partition(",")[2].upper() for line in PLAIN[1:]] + ["male,old"]])
def test_a_table_without_a_header_is_doubted(write, lines):
    found = audited(write(lines))
    assert len(found.images.headless) == 2
    assert any("if the file has no header, its first row is lost" in doubt for doubt in doubts(found))
    assert audited(write(PLAIN)).images.headless == []


def test_columns_that_are_no_labels_are_left_out_by_name_unless_asked_for(write):
    lines = [PLAIN[0] + ",vector,score,many,set,few"]
    lines += [f"{i}-{line},[{i % 30}],{i % 9}.5,{i % 51},val,{i % 50}" for i, line in enumerate(PLAIN[1:] * 3)]
    found = audited(write(lines))
    assert [each.attribute for each in found.audits] == ["gender", "age", "few"]
    reasons = {"vector": "lists", "score": "measured numbers", "many": "51 labels", "set": "always val"}
    assert {name: found.not_counted[name] for name in reasons} == reasons
    assert found.not_counted.keys() - reasons.keys() == {"file"}
    (sentence,) = (doubt for doubt in doubts(found) if doubt.startswith("Not counted"))
    assert "vector (lists), score (measured numbers), many (51 labels) and set (always val)" in sentence
    asked = audited(write(lines), attributes=["many", "score"])
    assert [len(each.labels) for each in asked.audits] == [51, 9]
    assert asked.not_counted == {}


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["0.5", "1", "0"], "measured numbers"),
        (['"0,5"', "1", '"0,25"'], "measured numbers"),
        (["12.5%", "50 %", "3%"], "measured numbers"),
        (["1e-3", "inf", "-inf"], "measured numbers"),
        (["0.5 0.5", "0.1 0.9", "1 0"], "lists"),
        (['"(0.5, 0.5)"', '"(0, 1)"', '"0.2; 0.8"'], "lists"),
        (["tensor([0.5])", "tensor([1])", "array([2])"], "lists"),
        (["{'a': 1}", "{}", "{'a': 2}"], "lists"),
        (['"(0, 2)"', '"(25, 32)"', '"(4, 6)"'], None),
        (["0.0", "1.0", "2"], None),
        (["1", "-1", "+3"], None),
        (["50%", "25%", "100 %"], None),
        (["0-2", "20-29", "70+"], None),
        (["Asian (East)", "(unknown)", "male(1)"], None),
    ],
)
def test_scores_are_no_classes_however_they_are_written(write, cells, reason):
    lines = ["gender,score", *(f"{label},{cell}" for cell in cells for label in ("Male", "Female"))]
    found = audited(write(lines))
    assert found.not_counted == ({} if reason is None else {"score": reason})
    assert len(found.audits) == (2 if reason is None else 1)


def test_a_column_that_one_side_never_fills_is_left_out_or_refused_by_name(write):
    here = write(["gender,age", *["Male,old", "Female,young"] * 2])
    there = write(["gender,age", *["Male,", "Female,nan"] * 2], "b.csv")
    found = audited(here, compare=there)
    assert found.not_counted == {"age": f"no labels in {there}"}
    assert [each.attribute for each in found.audits] == ["gender"]
    for attribute in ("age", "gender x age"):
        with pytest.raises(DataError, match=rf"b\.csv: no row has a label of {attribute}"):
            audited(here, compare=there, attributes=[attribute])


def test_a_product_of_one_side_is_compared_with_a_column_of_the_other(write):
    column = write(["race x gender,note", *["A x Male,"] * 3, "B x Female,"])
    factors = write(["race,gender", *["A,Male", "B,Female"] * 2, "B,Male", "A,", ",Male"], "b.csv")
    for here, there in ((column, factors), (factors, column)):
        found = audited(here, compare=there, attributes=["race x gender"])
        (audit,) = found.audits
        assert audit.labels == ("A x Male", "B x Female", "B x Male")
        by_file = {here: audit.bias.shares, there: audit.comparison.shares}
        assert [share.value for share in by_file[column]] == [0.75, 0.25, 0]
        assert [share.value for share in by_file[factors]] == [0.4, 0.4, 0.2]
        assert found.one_sided == {"race x gender": {str(factors): ["B x Male"]}}


def test_labels_of_one_side_are_named(write):
    here = write(["gender,age,job", *["Male,old,a", "Female,young,b"] * 4])
    there = write(["gender,job", *["Male,a", "unsure,b", "Male,b"]], "b.csv")
    found = audited(here, compare=there)
    assert found.one_sided == {"gender": {str(here): ["Female"], str(there): ["unsure"]}}
    assert any(f"Only {there} has the label unsure of gender" in doubt for doubt in doubts(found))
    assert found.not_counted == {"age": f"no column of {there}"}
    with pytest.raises(ConfigError, match=r"b\.csv: unknown attribute 'age'"):
        audited(here, compare=there, attributes=["age"])


def test_a_column_may_be_named_like_a_product(write):
    lines = ["gender,race x gender", *["Male,a x b", "Female,c", "Male,c", "Male,c"]]
    found = audited(write(lines), attributes=["race x gender", "gender", "gender x race x gender"])
    assert shares(found, "race x gender") == {"a x b": 0.25, "c": 0.75}
    assert shares(found, "gender x race x gender")["Male x c"] == 0.5
    assert shares(audited(write(lines), targets=["race x gender: a x b=0.5, c=0.5"]), "race x gender")["c"] == 0.75


def test_minus_one_is_a_label(write):
    found = audited(write(["Male", *["-1"] * 3, "1"]), targets=["-1=0.5, 1=0.5"])
    assert shares(found, "Male") == {"-1": 0.75, "1": 0.25}


def test_a_constant_column_can_be_counted_with_its_classes_in_a_target(write):
    path = write(["gender,age", "Male,old", "Male,young", "Male,young"])
    assert [each.attribute for each in audited(path).audits] == ["age"]
    found = audited(path, targets=["gender: Male=0.5, Female=0.5"])
    assert shares(found) == {"Female": 0, "Male": 1}


def test_labels_can_be_extended_and_are_counted(write):
    labels = read_labels(write(["file,hair", "a.png, long", " b.png,short", "", "c.png,long", "d.png,"])).labels
    assert labels.attributes["hair"] == ("long", "short")
    assert labels.counts("hair").tolist() == [2, 1]
    assert (labels.n, labels.repeated()) == (4, ["hair"])
    more = labels.extended({"hair": ["bald"], "age": ["old"]})
    assert more.attributes["hair"] == ("bald", "long", "short")
    assert more.counts("hair").tolist() == [0, 2, 1]
    assert np.array_equal(more.indices["hair"], [1, 2, 1, -1])
