"""Pickles that would run something: refused by every loader, named by `inspect`, and never run."""

import io
import pickle
import subprocess
from contextlib import suppress

import hostile
import pytest
import torch
from hostile import CONTAINERS, legacy_file, text, zip_file

from promptgen.errors import ModelFileError
from promptgen.generators.stylenerf.file import read_generator
from promptgen.loading.inspection.report import inspect_file, to_text
from promptgen.loading.published import read_torch, read_training
from tests.loading.hostile_files.loaders import LOADERS, every, refused


class Reader(pickle.Unpickler):
    """Reads the usual way, as any program would that trusts a file."""

    def persistent_load(self, identity):
        return None


@pytest.mark.parametrize("program", hostile.programs("true"))
def test_the_programs_would_run(program, canary):
    body = hostile.programs(f"touch {canary}")[program]
    result = Reader(io.BytesIO(hostile.plain_file(body))).load()
    if isinstance(result, subprocess.Popen):
        result.wait()
    assert canary.exists()


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("program", hostile.programs("true"))
def test_no_program_runs(program, container, canary, path):
    path.write_bytes(CONTAINERS[container](hostile.programs(f"touch {canary}")[program]))
    refused(read_torch, path)
    with suppress(ModelFileError):  # what is not numbers is left out
        read_training(path)
    found = inspect_file(path, {})
    assert not found.safe
    assert "refused" in found.verdict
    assert not canary.exists()


@pytest.mark.parametrize("program", hostile.programs("true"))
def test_no_program_runs_in_a_plain_pickle_of_a_generator(program, canary, path):
    body = hostile.programs(f"touch {canary}")[program]
    path.write_bytes(hostile.plain_file(b"}" + text("G_ema") + body + b"s"))
    refused(read_generator, path)
    assert not canary.exists()


@every
@pytest.mark.parametrize("container", ["zip", "legacy", "plain"])
def test_no_loader_runs_a_program(loader, container, canary, path):
    program = b"}" + text("g_ema") + hostile.programs(f"touch {canary}")["REDUCE"] + b"s"
    path.write_bytes(CONTAINERS[container](program))
    if loader != "read_training":
        refused(LOADERS[loader], path)
    assert not canary.exists()


def test_what_would_run_is_named(path):
    path.write_bytes(zip_file(hostile.programs("true")["REDUCE"]))
    assert "would run os.system" in refused(read_torch, path) or "would run posix.system" in refused(read_torch, path)
    path.write_bytes(legacy_file(hostile.programs("true")["getattr chain"]))
    refused(read_torch, path, "would run builtins.getattr, importlib.import_module")


def test_options_are_data_and_nothing_else(path):
    """A namespace may have attributes, and can be given nothing that acts when more is put into it."""
    path.write_bytes(zip_file(hostile.name("argparse", "Namespace") + b")\x81}" + text("a") + b"K\x01sb"))
    assert read_torch(path).a == 1
    evil = hostile.name("argparse", "Namespace") + b")\x81"
    for given in (text("__setstate__") + hostile.name("torch", "device"), text("__class__") + b"N"):
        path.write_bytes(zip_file(evil + b"}" + given + b"sb"))
        refused(read_torch, path, "sets more than the attributes of argparse.Namespace")
    path.write_bytes(zip_file(evil + b"N}" + text("__class__") + hostile.name("torch", "Size") + b"s\x86b"))
    refused(read_torch, path, "sets more than the attributes")


def test_a_file_of_a_training_cannot_change_what_rebuilds_tensors(path):
    rebuild = hostile.name("torch._utils", "_rebuild_tensor_v2")
    path.write_bytes(zip_file(b"}" + text("a") + rebuild + b"N}" + text("__defaults__") + b"Ns\x86b" + b"s"))
    before = torch._utils._rebuild_tensor_v2.__defaults__
    refused(read_training, path, "gives attributes to a Reference")
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


def test_states_of_a_trainings_own_objects_are_left_out(path):
    """Objects of other programs may be given a state, which nothing here keeps; tensors and functions may not."""
    thing = hostile.call("lightning.callbacks", "Checkpoint") + b"}" + text("best") + b"K\x01sb"
    body = b"}(" + text("callbacks") + thing + text("a") + hostile.tensor() + b"u"
    path.write_bytes(zip_file(body, {"0": bytes(16)}))
    assert torch.equal(read_training(path)["a"], torch.zeros(4))
    refused(read_torch, path, r"lightning\.callbacks\.Checkpoint")
    for target in (hostile.tensor(), b"}", hostile.tensor()[hostile.tensor().index(b"(X") :].partition(b"Q")[0] + b"Q"):
        path.write_bytes(zip_file(b"}" + text("a") + target + b"}" + text("b") + b"K\x01sbs", {"0": bytes(16)}))
        refused(read_training, path)


@every
def test_torchscript_is_refused(loader, path):
    path.write_bytes(zip_file(b"}", **{"constants.pkl": b"\x80\x02).", "code/__torch__.py": b"raise SystemExit"}))
    message = refused(LOADERS[loader], path)
    assert "TorchScript" in message or "not a safetensors file" in message or "known classes" in message


def test_names_in_a_file_cannot_rewrite_the_terminal(path):
    path.write_bytes(zip_file(b"}" + text("a\x1b[2J") + text("os\n\x1b[31m") + text("x" * 10_000) + b"\x93s"))
    message = refused(read_torch, path, r"os\\n\\x1b\[31m")
    assert message.isprintable()
    assert "".join(to_text(inspect_file(path, {})).splitlines()).isprintable()
