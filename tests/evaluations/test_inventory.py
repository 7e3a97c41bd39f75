"""The command that says what stores hold."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from promptgen.evaluations.config import FOLDER_NAME
from promptgen.evaluations.evaluator import Slope
from promptgen.evaluations.store import EvaluationStore
from tests.commands import typed
from tests.evaluations.small import Coordinates, normal

WHO = {"generator": json.dumps({"type": "world", "truncation": 1.0}), "world/weights.safetensors": "ab" * 32}


def first(sample):
    return sample.image.flatten(1)[:, :1]


def keep(artifacts, experiment="faces", outputs=("text@1",), n=300, *, gradient=False, who=WHO, seed=0):
    folder = artifacts / experiment / FOLDER_NAME / "0123"
    store = EvaluationStore(Coordinates(), dict.fromkeys(outputs, first), folder=folder, identity=who)
    slope = Slope("text", lambda read: read["text@1"], torch.ones(n, 1)) if gradient else None
    store.evaluate(normal(n, seed=seed), slope=slope)
    return folder


def listed(capsys, artifacts, *words):
    assert typed("store", "--artifacts", str(artifacts), "--json", *words) == 0
    return json.loads(capsys.readouterr().out)


def test_it_counts_records_gradients_and_outputs(tmp_path, capsys):
    folder = keep(tmp_path, n=300)
    keep(tmp_path, n=40, gradient=True, seed=1)
    keep(tmp_path, outputs=("text@1", "classifier@2"), n=7, seed=2)
    (content,) = listed(capsys, tmp_path)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert content == {
        "folder": folder.as_posix(), "generator": WHO, "evaluations": 347, "gradients": 40,
        "outputs": {"classifier@2": 7, "text@1": 347}, "shards": 4, "damaged": 0, "size": size,
    }  # fmt: skip


def test_the_page_names_everything(tmp_path, capsys):
    folder = keep(tmp_path, n=1500)
    assert typed("store", "--artifacts", str(tmp_path)) == 0
    page = capsys.readouterr().out
    for part in (str(folder), "type: world, truncation: 1.0", "ab" * 8, "1,500", "text@1", "MB in 6 files"):
        assert part in page


def test_an_experiment_is_chosen_by_name(tmp_path, capsys):
    keep(tmp_path)
    other = keep(tmp_path, "dogs")
    assert [content["folder"] for content in listed(capsys, tmp_path, "dogs")] == [other.as_posix()]
    assert len(listed(capsys, tmp_path)) == 2
    assert typed("store", "--artifacts", str(tmp_path), "cats") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cats" in line
    assert "dogs, faces" in line


def test_nothing_kept_is_no_error(tmp_path, capsys):
    assert listed(capsys, tmp_path / "missing") == []
    assert typed("store", "--artifacts", str(tmp_path)) == 0
    assert "no evaluations" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, None], ids=["empty", "foreign", "cut off"])
def test_a_damaged_shard_is_counted_as_such(tmp_path, capsys, damage):
    folder = keep(tmp_path, n=300)
    path = max(folder.glob("*.safetensors"), key=lambda shard: shard.stat().st_size)
    path.write_bytes(path.read_bytes()[:-5] if damage is None else damage)
    (content,) = listed(capsys, tmp_path)
    assert (content["shards"], content["damaged"], content["evaluations"]) == (2, 1, 44)
    assert typed("store", "--artifacts", str(tmp_path)) == 0
    assert "damaged" in capsys.readouterr().out


def test_a_damaged_description_is_named(tmp_path, capsys):
    folder = keep(tmp_path)
    (folder / "store.json").write_text("[]")
    assert typed("store", "--artifacts", str(tmp_path)) == 2
    assert str(folder) in capsys.readouterr().err


def test_it_needs_no_torch(tmp_path):
    keep(tmp_path)
    code = (
        "import sys; from promptgen.command_line import main; "
        f"main(['store', '--artifacts', {str(tmp_path)!r}]); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
