"""Registered models: the versions of a loop's checkpoints, and that they draw wherever they are loaded."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import sys
from importlib import metadata

import mlflow
import pytest
import yaml

from promptgen.files import sha256_of
from promptgen.flows.chain_file import save_chain
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.model_files import store
from steps.recording.journal import Journal
from steps.recording.mlflow_store import ROOT, connect, tracking_uri
from steps.recording.replay import STATE_NAME, published, push
from steps.serving.registry import REQUIREMENTS, save
from tests.recording.recorded_loop import project_of, record


@pytest.fixture
def chain(root):
    """Return the checkpoint of a chain of one flow on the tiny generator."""
    path = root / "artifacts" / "tiny" / "chain.safetensors"
    path.parent.mkdir(parents=True)
    spec = {"type": "custom", "factory": "tests.tiny:TinyGenerator", "arguments": {}}
    save_chain(path, [Flow(4, FlowConfig(blocks=1, hidden=8))], spec, {})
    return path


def test_a_checkpoint_becomes_a_version_that_draws(root, chain):
    journal = Journal(project_of(root, "tiny"))
    folder = journal.path.parent
    report = root / "metrics.json"
    report.write_text("{}")
    with published(folder, root), journal.run_loop({}):
        for number, kl in enumerate([3.0, 1.0, 2.0]):
            with journal.run_pass(number, "control"):
                journal.record(record(number, kl))
                if number:
                    journal.checkpoint(number, chain)
        journal.finish("maximum of passes reached", report)
    (folder / STATE_NAME).unlink()
    push(folder, root)  # replayed: no second version of the same checkpoint
    client = connect(root)
    versions = {version.version: version for version in client.search_model_versions("name = 'tiny'")}
    assert sorted(versions) == [1, 2]
    assert client.get_model_version_by_alias("tiny", "least-biased").version == 1
    assert versions[1].tags["sha256"] == sha256_of(chain)

    mlflow.set_tracking_uri(tracking_uri(root))
    first, second, again = mlflow.pyfunc.load_model("models:/tiny@least-biased").predict(
        [{"seed": 1}, {"seed": 2}, {"seed": 1}]
    )
    assert base64.b64decode(first).startswith(b"\x89PNG")
    assert first == again != second


def test_a_model_of_ones_own_card_draws_on_any_machine(root):
    file = {"file": "mine.safetensors", "urls": ["package:world/weights/world-generator.safetensors"]}
    card = {"kind": "generator", "type": "world-generator", "files": [file], "licence": "MIT"}
    (root / "cards.yaml").write_text(yaml.safe_dump({"my-world": card}))
    weights = store.fetch("my-world", root / "models")
    spec = {"type": "world", "model": "my-world", "truncation": 1.0}
    save_chain(root / "chain.safetensors", [Flow(64, FlowConfig(blocks=1, hidden=8))], spec, {})
    saved = root.parent / "saved"
    save(saved, root / "chain.safetensors", weights, root)
    shutil.rmtree(root)
    (picture,) = mlflow.pyfunc.load_model(str(saved)).predict([{"seed": 1}])
    assert base64.b64decode(picture).startswith(b"\x89PNG")


def closure_of(packages):
    """Return the normalised names of distributions and of all that they need here, without extras."""
    found, todo = set(), list(packages)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another system
            continue
        found.add(name)
        todo += [re.match(r"[\w.-]+", each)[0] for each in needed if "extra ==" not in each]
    return found


def test_a_registered_model_draws_with_no_more_packages_than_it_names():
    needed = closure_of(REQUIREMENTS)
    others = [
        module
        for module, owners in metadata.packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & {*needed, "promptgen"}
    ]
    code = f"""
import sys
from importlib.machinery import PathFinder
class OnlyNamed:
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {set(others)!r} else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = OnlyNamed()
from pathlib import Path
import promptgen.config.build, promptgen.world
from promptgen.flows.flow import Flow
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.sampling import generate
from promptgen.world.generator import load_generator
generator = load_generator(Path(promptgen.world.__file__).with_name("weights") / "world-generator.safetensors")
chain = ChainedGenerator(generator, Flow(generator.prior.dim))
next(iter(generate(chain, 1, seed=0, stream="serve", batch=1)))
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
