"""Files of an enemy, and damaged ones, are refused by every loader in one clear line, and nothing in them runs."""

import os
import pickle
import random
import resource
import stat
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import hostile
import pytest
import torch
from hostile import CONTAINERS, legacy_file, safetensors_file, state, tensor, text, zip_file
from torch import nn

from promptgen.archives import extract
from promptgen.checkpoints import load_chain, load_tensors, save_chain, save_module, save_tensors
from promptgen.errors import CheckpointError, ModelFileError
from promptgen.flow import Flow, FlowConfig
from promptgen.generators.biggan import load_biggan
from promptgen.generators.nvae import load_nvae
from promptgen.generators.stylegan2 import StyleGAN2, StyleGAN2Config, load_stylegan2
from promptgen.generators.stylenerf_file import read_generator
from promptgen.inspection.report import inspect_file, to_text
from promptgen.perception.arcface import load_arcface
from promptgen.perception.beta import read_beta
from promptgen.perception.celeba import load_celeba
from promptgen.perception.clip import load_open_clip
from promptgen.perception.deca import load_deca
from promptgen.perception.fairface import load_fairface
from promptgen.perception.world import load_network
from promptgen.published import load_strictly, read_safetensors, read_state, read_torch, read_training
from promptgen.world.generator import load_generator

SMALL = "resnet18"
ROOT = Path(__file__).parent.parent
PAGE = b"<!DOCTYPE html><html><body>Sign in to download</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
NUMBERS = torch.arange(4.0).numpy().tobytes()

LOADERS = {
    "read_torch": read_torch,
    "read_training": read_training,
    "read_state": lambda path: read_state(path, "g_ema"),
    "stylegan2": lambda path: load_stylegan2(path, 8, latent_dim=8, mapping_layers=1),
    "biggan": lambda path: load_biggan(path, size=128),
    "nvae": load_nvae,
    "fairface": lambda path: load_fairface(path, architecture=SMALL),
    "celeba": lambda path: load_celeba(path, "glasses", architecture=SMALL, hidden=8),
    "arcface": lambda path: load_arcface(path, input_side=16, dim=8),
    "deca": lambda path: load_deca(path, SMALL, hidden=8),
    "beta": read_beta,
    "clip": lambda path: load_open_clip(path, "tiny-hostile"),
    "diffae": lambda path: read_state(path, "state_dict", read_training),
    "stylenerf": read_generator,
    "own clip": load_open_clip,
    "chain": load_chain,
    "world network": load_network,
    "world generator": load_generator,
}
every = pytest.mark.parametrize("loader", LOADERS)


@pytest.fixture(scope="module", autouse=True)
def tiny_clip(tmp_path_factory):
    """Make a small architecture known to open_clip, so that its loader has something quick to build."""
    import json

    from promptgen.perception.torchvision_ops import import_open_clip

    vision = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
    words = {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
    path = tmp_path_factory.mktemp("configs") / "tiny-hostile.json"
    path.write_text(json.dumps({"embed_dim": 8, "vision_cfg": vision, "text_cfg": words}))
    import_open_clip().add_model_config(path)


@pytest.fixture
def canary(tmp_path):
    """A file that exists only if a command has run."""
    take_back = hostile.extension()
    yield tmp_path / "canary"
    take_back()


@pytest.fixture
def path(tmp_path):
    """Where the file is; what is written there is not left behind."""
    path = tmp_path / "weights.pt"
    yield path
    if path.is_file():
        path.unlink()


def refused(loader, path, match=None):
    """Let a loader read a file, which it must refuse in one line with the path; return the line."""
    with pytest.raises((ModelFileError, CheckpointError), match=match) as caught:
        loader(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 800 + len(str(path))
    return message


class Reader(pickle.Unpickler):
    """Reads the usual way, as any program would that trusts a file."""

    def persistent_load(self, identity):
        return None


@pytest.mark.parametrize("program", hostile.programs("true"))
def test_the_programs_would_run(program, canary):
    body = hostile.programs(f"touch {canary}")[program]
    import io

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
    refused(read_training, path, "sets the state of what is not an object")
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


@every
def test_torchscript_is_refused(loader, path):
    path.write_bytes(zip_file(b"}", **{"constants.pkl": b"\x80\x02).", "code/__torch__.py": b"raise SystemExit"}))
    message = refused(LOADERS[loader], path)
    assert "TorchScript" in message or "not a safetensors file" in message or "known classes" in message


OTHER_FILES = {
    "empty": (b"", "it is empty|damaged|known classes"),
    "web page": (PAGE, "a web page.*direct link|damaged|known classes"),
    "LFS pointer": (POINTER, "git lfs pull|damaged|known classes"),
    "text": (b"weights are elsewhere", "no known format|damaged|known classes"),
    "JSON": (b'{"a": 1}', "JSON.*another model|damaged|known classes"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(64), "a picture|damaged|known classes"),
    "gzip": (b"\x1f\x8b" + bytes(64), "decompress it|damaged|known classes"),
    "random": (random.Random(0).randbytes(4096), "no known format|damaged|known classes"),
    "zeros": (bytes(4096), "no known format|broken|damaged|known classes"),
    "tar": (hostile.tar_file(("weights", {})), "tar archive.*another model|damaged|known classes"),
}


@every
def test_other_files_are_refused(loader, path):
    quick = loader in ("read_torch", "read_training", "stylenerf", "chain")  # the others build a network first
    for name in OTHER_FILES if quick else ("empty", "web page"):
        content, match = OTHER_FILES[name]
        path.write_bytes(content)
        refused(LOADERS[loader], path, match)


@every
def test_a_missing_file_and_a_folder_are_refused(loader, path):
    refused(LOADERS[loader], path, "no such file; fetch|does not exist")
    path.mkdir()
    refused(LOADERS[loader], path, "a folder|damaged|no such file")
    path.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can become somebody who may not read")
@pytest.mark.parametrize("loader", ["read_torch", "chain"])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_that_may_not_be_read_is_refused(loader, what, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    path = folder / "weights"
    torch.save({}, path)
    (path if what == "file" else folder).chmod(0)
    for parent in [tmp_path, *tmp_path.parents][:3]:
        parent.chmod(parent.stat().st_mode | stat.S_IXOTH)
    os.seteuid(65534)
    try:
        refused(LOADERS[loader], path, "permission is denied")
    finally:
        os.seteuid(0)
        folder.chmod(0o700)


def test_the_honest_file_beside_the_absurd_ones_is_read(path):
    for content in (
        zip_file(state(tensor()), {"0": NUMBERS}),
        legacy_file(state(tensor(last=b"N")), keys(), numbers=old()),
    ):
        path.write_bytes(content)
        assert torch.equal(read_torch(path)["weight"], torch.arange(4.0))
        assert inspect_file(path, {}).safe


def keys():
    return b"](" + text("0") + b"e"


def old(count=4):
    """Return the numbers of a storage as the old format has them."""
    return count.to_bytes(8, "little", signed=True) + NUMBERS


ABSURD = {
    "elements over a small storage": tensor(shape=(10**12,)),
    "elements and storage": tensor(count=10**12, shape=(10**12,)),
    "huge number": tensor(count=10**30, shape=(10**30,)),
    "negative stride": tensor(strides=(-1,)),
    "negative size": tensor(shape=(-4,)),
    "negative storage": tensor(count=-4),
    "offset beyond the end": tensor(offset=1),
    "negative offset": tensor(offset=-1),
    "one number repeated": tensor(shape=(10**12,), strides=(0,)),
    "one number repeated a little": tensor(shape=(8,), strides=(0,)),
    "stride beyond the end": tensor(shape=(2, 2), strides=(3, 1)),
    "strides of another rank": tensor(shape=(2, 2), strides=(1,)),
    "empty with a huge size": tensor(shape=(0, 10**30), strides=(1, 1)),
    "many dimensions": tensor(shape=(1,) * 100, strides=(1,) * 100),
    "another storage": tensor(key="1"),
    "path as a storage": tensor(key="../../data/0"),
    "storage of objects": tensor(kind="ObjectStorage"),
    "untyped storage": tensor(kind="UntypedStorage"),
    "made tensor": hostile.call("torch", "FloatTensor", hostile.integer(10**12)),
    "made storage": hostile.call("torch", "FloatStorage", hostile.integer(10**12)),
    "made bytes": hostile.call("builtins", "bytearray", hostile.integer(10**12)),
    "tensor without numbers": hostile.call(
        "torch._utils", "_rebuild_meta_tensor_no_storage", b"N", b")", b")", b"\x89"
    ),
    "text decoded otherwise": hostile.call("_codecs", "encode", text("a"), text("rot13")),
    "memory for a memo": b"Nr\xff\xff\xff\xff",
    "nested tuples": b")" + b"\x85" * 100_000,
    "tuples as keys": b"}" + b")" + b"q\x00h\x00h\x00\x86q\x00h\x00h\x00\x86" * 40 + b"Ns",
    "colliding keys": b"}(" + b"".join(hostile.integer(k * (2**61 - 1)) + b"N" for k in range(1, 2000)) + b"u",
    "number of many digits": tensor(shape=(1, 2)).replace(
        hostile.integer(2), b"\x8b\x10\x27\x00\x00" + b"\x7f" * 10_000
    ),
    "calls with one long tuple": b"("
    + b"N" * 10_000
    + b"tq\x00"
    + (hostile.name("torch", "device") + b"h\x00R0") * 500,
    "empty stack": b"000",
    "no mark": b"t",
    "unknown memo": b"h\x63",
    "cut off": b"}X\xff\xff\xff\x7fabc",
}


@pytest.mark.parametrize("absurd", ABSURD)
@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_absurd_claims_are_refused(absurd, container, path):
    body = state(ABSURD[absurd])
    if container == "legacy":
        body = body.replace(b"cpu\x8a\x01\x04t", b"cpu\x8a\x01\x04Nt").replace(b"cpu\x8a\x06", b"cpu\x8a\x06")
    path.write_bytes(zip_file(body, {"0": NUMBERS}) if container == "zip" else legacy_file(body, keys(), numbers=old()))
    refused(read_torch, path)
    assert not inspect_file(path, {}).safe


@pytest.mark.parametrize(
    ("given", "numbers"),
    [(b"]", b""), (b"]", old()), (keys(), old(10**12)), (keys(), old(-4)), (keys(), old()[:-1]), (keys(), b"")],
)
def test_an_old_file_must_bring_all_its_numbers(given, numbers, path):
    """torch itself would use whatever was in memory for a storage that the file leaves out."""
    path.write_bytes(legacy_file(state(tensor(last=b"N")), given, numbers=numbers))
    refused(read_torch, path, "has no numbers for the storage 0|the file has")


def test_a_zip_must_be_as_torch_writes_it(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", hostile.plain_file(state(tensor(count=1 << 26, shape=(1 << 26,)))))
        archive.writestr("x/data/0", bytes(1 << 28))
    refused(read_torch, path, "compressed or encrypted, which torch.save never does")
    twice = zip_file(b"}", **{"DATA.pkl": hostile.plain_file(hostile.programs("true")["REDUCE"])})
    path.write_bytes(twice.replace(b"x/DATA.pkl", b"x/data.pkl"))
    refused(read_torch, path, "has the member x/data.pkl twice")


@pytest.mark.parametrize(
    ("header", "numbers", "length"),
    [
        ('{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}', b"", None),
        ('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', b"1234", None),
        ('{"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}}', NUMBERS, None),
        ('{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}', NUMBERS, None),
        ('{"a":{"dtype":"F32","shape":4}}', NUMBERS, None),
        ('{"a":[]}', NUMBERS, None),
        ('{"a":{"dtype":"F32","shape":[1e400],"data_offsets":[0,16]}}', NUMBERS, None),
        ("{", b"", None),
        ('{"a": "\xff"}', b"", None),
        ("{}", b"", 1 << 43),
        ("{}", b"", (1 << 64) - 1),
        ('{"a":' * 50_000, b"", None),
        ('{"a":{"dtype":"F32","shape":[' + "9" * 4000 + ',1],"data_offsets":[0,16]}}', NUMBERS, None),
        ('{"a":{"dtype":"F32","shape":' + str([9] * 5000) + ',"data_offsets":[0,16]}}', NUMBERS, None),
    ],
)
def test_absurd_safetensors_are_refused(header, numbers, length, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors_file(header, numbers, length))
    for loader in (read_safetensors, load_tensors, load_chain, load_open_clip):
        refused(loader, path)
    assert not inspect_file(path, {}).safe


@pytest.mark.parametrize(
    "config",
    [
        {"dim": 10**9},
        {"dim": 10**30},
        {"dim": None},
        {"config": {"blocks": 10**9, "hidden": 4}},
        {"config": {"blocks": 1, "hidden": 10**12}},
        {"config": {"blocks": 1, "hidden": 4, "log_scale_bound": float("1e400")}},
        {"config": {"blocks": 1, "hidden": 4, "parts": [10**5, 10**5]}},
        {"dtype": "object"},
        {"dtype": []},
    ],
)
def test_a_chain_larger_than_its_file_is_not_built(config, tmp_path):
    path = tmp_path / "chain.safetensors"
    save_chain(path, [Flow(4, FlowConfig(blocks=1, hidden=4))], {}, {})
    tensors, whole = load_tensors(path)
    flow = whole["flows"][0] | config
    if "config" in config and config["config"].get("log_scale_bound") == float("inf"):
        flow["config"]["log_scale_bound"] = 1e308 * 1e-308 * -1
    save_tensors(path, tensors, whole | {"flows": [flow]})
    refused(load_chain, path)


@pytest.mark.parametrize(
    "config",
    [{}, {"clip": 3}, {"clip": {"vision_width": 10**9}}, {"clip": {"text_layers": 10**9}}, {"clip": {"words": [{}]}}],
)
def test_a_clip_model_larger_than_its_file_is_not_built(config, tmp_path):
    path = tmp_path / "clip.safetensors"
    save_tensors(path, {"a": torch.zeros(8)}, config)
    refused(load_open_clip, path)


@pytest.mark.parametrize(
    "config",
    [{"kind": "world-pose"}, {"kind": "world-pose", "network": {"width": 10**9}}, {"kind": "world-pose", "network": 3}],
)
def test_a_world_model_larger_than_its_file_is_not_built(config, tmp_path):
    path = tmp_path / "pose.safetensors"
    save_tensors(path, {"a": torch.zeros(8)}, config)
    refused(load_network, path)
    save_tensors(path, {"a": torch.zeros(8)}, config | {"kind": "world-generator"})
    refused(load_generator, path)


def test_a_published_network_larger_than_its_file_is_not_built(path, tmp_path):
    options = {"num_latent_scales": 1, "num_groups_per_scale": 2, "ada_groups": False, "min_groups_per_scale": 1}
    options |= {"num_latent_per_group": 2, "num_channels_dec": 1024, "num_cell_per_cond_dec": 0, "use_se": False}
    options |= {"num_preprocess_blocks": 8, "num_postprocess_blocks": 0, "num_postprocess_cells": 1}
    options |= {"num_mixture_dec": 1, "arch_instance": "res_elu"}
    torch.save({"args": options, "state_dict": {"prior_ftr0": torch.zeros(1024 << 8, 1, 1)}}, path)
    refused(load_nvae, path, "describes 68719476736 numbers or more, and holds 262144")
    torch.save({"embeddings.weight": torch.zeros(2, 2)}, path)
    config = tmp_path / "config.json"
    config.write_text('{"num_classes": 1000000000}')
    with pytest.raises(ModelFileError, match="num_classes: Input should be less than or equal to 100000"):
        load_biggan(path, config_path=config)


def test_files_of_another_size_or_network_are_refused(path):
    small = {"latent_dim": 8, "mapping_layers": 1}
    torch.save({"g_ema": StyleGAN2(StyleGAN2Config(size=8, **small)).state_dict()}, path)
    load_stylegan2(path, 8, **small)
    refused(lambda path: load_stylegan2(path, 16, **small), path, "missing: convs.2.*does the configured size belong")
    refused(lambda path: load_stylegan2(path, 8, latent_dim=4, mapping_layers=1), path, "of another shape: .*expected")
    refused(lambda path: load_deca(path, SMALL, hidden=8), path, "expected the entry 'E_flame', found .*'g_ema'")
    refused(LOADERS["fairface"], path, "is it another model's file")


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(number, tmp_path):
    state = network().state_dict()
    state["0.weight"][1, 2] = number
    with pytest.raises(ModelFileError, match=r"weights: not finite: 0\.weight; fetch it again"):
        load_strictly(network(), state, Path("weights"))
    save_module(tmp_path / "m.safetensors", network(), {})
    from promptgen.checkpoints import fill_module

    with pytest.raises(CheckpointError, match=r"not finite: 0\.weight"):
        fill_module(network(), state, tmp_path / "m.safetensors")


def test_numbers_become_finite_ones_of_the_network_or_are_refused():
    state = network().state_dict()
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    load_strictly(network(), half, Path("weights"))
    state["0.weight"] = torch.full((4, 3), 1e300, dtype=torch.float64)
    with pytest.raises(ModelFileError, match=r"not finite: 0\.weight"):
        load_strictly(network(), state, Path("weights"))
    state["0.weight"] = torch.zeros(4, 3, dtype=torch.complex64)
    with pytest.raises(ModelFileError, match=r"of no type that weights have: 0\.weight \(torch\.complex64\)"):
        load_strictly(network(), state, Path("weights"))


def test_a_mask_may_have_infinities_where_the_network_has_some():
    masked = nn.Module()
    masked.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
    load_strictly(masked, {"mask": torch.full((2, 2), -torch.inf).triu(1)}, Path("weights"))
    with pytest.raises(ModelFileError, match="not finite: mask"):
        load_strictly(masked, {"mask": torch.full((2, 2), torch.nan)}, Path("weights"))


def test_names_in_a_file_cannot_rewrite_the_terminal(path):
    path.write_bytes(zip_file(b"}" + text("a\x1b[2J") + text("os\n\x1b[31m") + text("x" * 10_000) + b"\x93s"))
    message = refused(read_torch, path, r"os\\n\\x1b\[31m")
    assert message.isprintable()
    assert "".join(to_text(inspect_file(path, {})).splitlines()).isprintable()


def sound_files(folder):
    """Write a sound file of every kind that is read; return the loader of each and what it gives."""
    content = {"model": network().state_dict(), "epoch": 3, "half": torch.zeros(5).half()}
    torch.save(content, folder / "zip.pt")
    torch.save(content, folder / "old.pt", _use_new_zipfile_serialization=False)
    save_chain(folder / "chain.safetensors", [Flow(4, FlowConfig(blocks=1, hidden=4))], {"type": "x"}, {"pass": 1})
    save_tensors(folder / "plain.safetensors", network().state_dict(), {})
    return {
        "zip.pt": load_damaged,
        "old.pt": load_damaged,
        "chain.safetensors": load_chain,
        "plain.safetensors": fill_damaged,
    }


def load_damaged(path):
    load_strictly(network(), read_state(path, "model"), path)


def fill_damaged(path):
    load_strictly(network(), read_safetensors(path), path)


@pytest.mark.parametrize("name", ["zip.pt", "old.pt", "chain.safetensors", "plain.safetensors"])
@pytest.mark.timeout(120)
def test_damage_is_refused_or_leaves_the_layout_as_it_was(name, tmp_path):
    """Cuts at many points, and flipped bits all over the file; with another error than ours, this fails."""
    loader, whole, rng = sound_files(tmp_path)[name], (tmp_path / name).read_bytes(), random.Random(name)
    path, outcomes = tmp_path / f"damaged-{name}", []
    for trial in range(90):
        content = bytearray(whole)
        if trial % 3 == 0:
            content = content[: rng.randrange(len(content))]
        for _ in range(rng.choice([1, 1, 4]) if trial % 3 else 0):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        to_text(inspect_file(path, {}))
        try:
            loader(path)
        except (ModelFileError, CheckpointError):
            outcomes.append(False)
        else:
            outcomes.append(True)
    assert not all(outcomes[::3])
    assert any(outcomes)


@pytest.mark.parametrize(
    "members",
    [
        [("../canary", {})],
        [("/canary", {})],
        [("a/../../canary", {})],
        [("link", {"type": b"2", "linkname": "/"}), ("link/canary", {})],
        [("canary", {"type": b"1", "linkname": "/etc/passwd"})],
        [("canary", {"type": b"3"})],
    ],
)
def test_archives_that_lead_out_of_their_folder_are_told(members, tmp_path):
    path = tmp_path / "weights.tar"
    path.write_bytes(hostile.tar_file(*((name, dict(attributes)) for name, attributes in members)))
    found = inspect_file(path, {})
    assert not found.safe
    assert "do not extract it" in found.verdict
    folder = tmp_path / "folder"
    folder.mkdir()
    target = folder / "target"
    for name, _ in members:
        with suppress(ModelFileError):  # where it is no file
            extract(path, name, target)
    assert [*folder.iterdir()] in ([], [target])
    assert not (tmp_path / "canary").exists()


def test_zips_that_lead_out_of_their_folder_are_told(tmp_path):
    path = tmp_path / "weights.zip"
    for name, mode in (("../canary", 0), ("/canary", 0), ("C:\\canary", 0), ("..\\canary", 0), ("link", stat.S_IFLNK)):
        with zipfile.ZipFile(path, "w") as archive:
            info = zipfile.ZipInfo(name)
            info.external_attr = (mode | 0o644) << 16
            archive.writestr(info, "/etc/passwd")
        assert "do not extract it" in inspect_file(path, {}).verdict
        if mode:
            refused(lambda path: extract(path, "link", tmp_path / "target"), path, "a link")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(1 << 24))
    assert "claims 16777216 bytes out of" in inspect_file(path, {}).verdict


def test_depth_and_repetition_cost_no_time(path):
    """Lists in lists are data, however deep; what a thousandfold call would take is not worth following."""
    path.write_bytes(zip_file(b"]" * 100_000 + b"a" * 99_999))
    assert inspect_file(path, {}).safe
    many = b"(" + b"N" * 200_000 + b"tq\x00" + (hostile.name("torch", "device") + b"h\x00R0") * 1000 + b"N"
    path.write_bytes(zip_file(many))
    refused(read_torch, path, "more arguments than it has instructions")


LIMITED = """
import resource, sys
from promptgen.__main__ import main
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
sys.exit(main(["inspect", *sys.argv[1:]]))
"""


def test_claims_cost_no_memory(tmp_path):
    """All absurd files are inspected by a process that may have one gigabyte."""
    for number, body in enumerate(ABSURD.values()):
        (tmp_path / f"{number}.pt").write_bytes(zip_file(state(body), {"0": NUMBERS}))
        (tmp_path / f"{number}.old").write_bytes(legacy_file(state(body), keys(), numbers=old()))
    (tmp_path / "a.safetensors").write_bytes(safetensors_file("{}", length=1 << 40))
    (tmp_path / "long.tar").write_bytes(
        hostile.tar_file(("x", {"type": b"L"})).replace(b"00000000007", b"77777777777", 1)
    )
    command = [sys.executable, "-c", LIMITED, *map(str, tmp_path.iterdir())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 1 << 30
    assert done.stdout.count("verdict") == len([*tmp_path.iterdir()])
    assert "safe to read" not in done.stdout
