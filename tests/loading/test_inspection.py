"""`inspect`: what it says of every kind of file that is met, and that it is stable, quick and safe to look at."""

import argparse
import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import hostile
import numpy as np
import pytest
import torch
from hostile import text, zip_file

from promptgen.command_line import main
from promptgen.errors import ModelFileError
from promptgen.flows.chain_file import save_chain
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.loading.inspection.bounded import BoundedFile
from promptgen.loading.inspection.persistent import MADE
from promptgen.loading.inspection.pickles import scan
from promptgen.loading.inspection.report import inspect_file, to_text
from promptgen.loading.inspection.torch_files import refused_names
from promptgen.loading.published import read_safetensors
from promptgen.loading.restricted import MAKERS
from promptgen.loading.stack_machine import MAX_STEPS, PickleError
from tests.parity.persistent import EasyDict, module_tree, publishers_modules

ROOT = Path(__file__).parents[2]
WORLD = ROOT / "promptgen" / "world" / "weights"


def look(content, folder, name="file"):
    """Return what is said of a file with this content."""
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    return inspect_file(path, {})


@pytest.mark.parametrize("new", [True, False])
def test_torch_files(new, tmp_path):
    weight = torch.nn.Parameter(torch.zeros(2, 3).T)
    content = {
        "state_dict": {"a.weight": weight, "tied": weight, "half": torch.zeros(7).half()},
        "args": argparse.Namespace(size=3),
        "epoch": 3,
    }
    torch.save(content, tmp_path / "file", _use_new_zipfile_serialization=new)
    found = inspect_file(tmp_path / "file", {})
    assert found.container == ("torch zip" if new else "legacy torch pickle")
    assert found.entries == ["state_dict", "args", "epoch"]
    assert (found.tensors, found.numbers, found.dtypes) == (3, 13, {"float32": 2, "float16": 1})
    assert [(tensor.key, tensor.shape) for tensor in found.largest] == [
        ("state_dict.half", (7,)),
        ("state_dict.a.weight", (3, 2)),
    ]
    assert "argparse.Namespace" in found.allowed
    assert found.refused == []
    assert found.safe
    assert found.verdict == "safe to read: only tensors and plain containers"


def test_the_same_globals_as_torch_finds(tmp_path):
    content = {"a": torch.zeros(2), "b": torch.nn.Parameter(torch.ones(3).double()), "c": argparse.Namespace(x={1})}
    torch.save(content, tmp_path / "file")
    ours = set(inspect_file(tmp_path / "file", {}).allowed)
    theirs = set(torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "file"))
    assert theirs <= ours
    assert theirs == {"argparse.Namespace"}


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_followed(protocol):
    content = {"a": [1, 2.5, True, None, (1, (2,)), {"x"}, frozenset({3}), b"raw", "long" * 300, 1 << 80], "b": print}
    found = scan(io.BytesIO(pickle.dumps(content, protocol)))
    assert "builtins.print" in found.names
    assert list(found.root) == ["a", "b"]
    assert found.root["a"][:4] == [1, 2.5, True, None]


@pytest.mark.parametrize("program", hostile.programs("true"))
def test_all_programs_are_seen_through(program):
    assert refused_names(scan(io.BytesIO(hostile.plain_file(hostile.programs("true")[program]))))


def test_names_hidden_behind_the_stack_the_memo_and_codes_are_found():
    programs = hostile.programs("true")
    named = {name: refused_names(scan(io.BytesIO(hostile.plain_file(body)))) for name, body in programs.items()}
    for name in ("REDUCE", "INST", "STACK_GLOBAL", "memo", "BUILD", "NEWOBJ", "NEWOBJ_EX"):
        assert "os.system" in named[name]
    assert named["EXT"] == ["copyreg.extension.240"]
    assert named["names of Python 2"] == ["builtins.eval"]
    assert named["getattr chain"] == ["builtins.getattr", "importlib.import_module", "(computed)"]


def test_nested_pickles_are_noticed(tmp_path):
    found = look(hostile.plain_file(hostile.programs("true")["pickle in a pickle"]), tmp_path)
    assert found.nested == 1
    assert found.refused == ["pickle.loads", "os.system"]
    assert found.verdict == "would run pickle.loads, os.system: refused"


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_a_torch_file_of_objects_with_their_source_text_is_refused(container, tmp_path):
    """Other programs would run the text; the reader of such objects takes plain pickles alone."""
    name = "torch_utils.persistence", "_reconstruct_persistent_obj"
    body = b"}" + text("G_ema") + hostile.call(*name, b"}") + b"s"
    result = look(hostile.CONTAINERS[container](body), tmp_path)
    assert not result.safe
    assert result.refused == [".".join(name)]


@pytest.mark.parametrize("shape", [(), (0,), (1,) * 8])
def test_names_of_networks_need_no_honest_shapes(shape, tmp_path):
    keys = ("embeddings.weight", "generator.gen_z.weight_orig", "fc.weight", "conv1.weight", "resnet.conv1.weight")
    for key in (*keys, "input.input", "to_rgb1.conv.weight", "token_embedding.weight", "visual.x", "to_rgbs."):
        look(dict.fromkeys([*keys, key, "model.", "model", "."], torch.zeros(shape)), tmp_path)


def test_other_kinds_are_told_by_their_content(tmp_path):
    arrays, objects = io.BytesIO(), io.BytesIO()
    np.savez(arrays, a=np.zeros((3, 4)), b=np.arange(5))
    np.savez(objects, a=np.array([{}], dtype=object))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("celeba/Eyeglasses/best.pth", b"numbers")
    kinds = {
        "npz arrays": (arrays.getvalue(), True, "safe to read: only numbers"),
        "zip archive": (archive.getvalue(), True, "no member leaves its folder"),
        "tar archive": (hostile.tar_file(("a/b", {})), True, "no member leaves its folder"),
        "JSON": (b'{"output_dim": 128}', True, "safe to read: only text"),
        "PNG image": (b"\x89PNG\r\n\x1a\n", False, "it is a picture"),
        "HTML page": (b"\n <HTML>", False, "direct link"),
        "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", False, "git lfs pull"),
        "gzip stream": (b"\x1f\x8b\x08", False, "decompress it first"),
        "plain pickle": (pickle.dumps({"a": 1}), False, "save its tensors as safetensors"),
        "empty file": (b"", False, "it is empty"),
        "unknown": (b"what is this", False, "no known format"),
        "damaged archive": (b"PK\x03\x04", False, "damaged zip archive"),
    }
    for kind, (content, safe, words) in kinds.items():
        found = look(content, tmp_path)
        assert (found.container, found.safe) == (kind, safe)
        assert words in found.verdict
    assert look(arrays.getvalue(), tmp_path).numbers == 17
    assert "a pickle of objects" in look(objects.getvalue(), tmp_path).verdict


NETWORKS = {
    "StyleGAN2 of 16 pixels": {
        "g_ema": {"input.input": 0, "to_rgb1.conv.weight": 0, "to_rgbs.0.bias": 0, "to_rgbs.1.bias": 0}
    },
    "StyleGAN2 of 8 pixels": {
        "state_dict": {
            f"model._orig_mod.g_ema.{key}": 0 for key in ("input.input", "to_rgb1.conv.weight", "to_rgbs.0.bias")
        }
    },
    "BigGAN-deep with 10 classes": {"embeddings.weight": (2, 10), "generator.gen_z.weight_orig": 0},
    "NVAE": {"args": 0, "state_dict": {"prior_ftr0": 0}},
    "diffusion autoencoder, with its latent network": {"state_dict": {"ema_model.latent_net.layers.0.weight": 0}},
    "latent codes of a diffusion autoencoder": {"conds": 0, "conds_mean": 0, "conds_std": 0},
    "FairFace, 18 outputs": {"conv1.weight": 0, "fc.weight": (18, 2)},
    "a CelebA attribute": {"model": {"resnet.conv1.weight": 0, "fc.weight": (1, 2)}},
    "ArcFace": {"input_layer.0.weight": 0, "output_layer.3.weight": 0},
    "DECA": {"E_flame": {"encoder.conv1.weight": 0}},
    "fitted multipliers of race, age": {"module.class_type2lambda.race": 0, "module.class_type2lambda.age": 0},
    "CLIP with open_clip's names, text width 3": {"visual.conv1.weight": 0, "token_embedding.weight": (5, 3)},
}


def filled(node):
    """Return tensors in place of shapes."""
    if isinstance(node, dict):
        return {key: filled(value) for key, value in node.items()}
    return torch.zeros(node or (1,))


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_are_known_by_their_keys(network, tmp_path):
    assert look(filled(NETWORKS[network]), tmp_path).network == network


def test_a_trainings_own_objects_are_left_out_by_the_reader_of_autoencoders_alone(tmp_path):
    key = text("state_dict")
    weight = b"}" + text("ema_model.time_embed.weight") + hostile.tensor() + b"s"
    callbacks = text("callbacks") + hostile.call("lightning.callbacks", "Checkpoint")
    numbers = {"0": torch.zeros(4).numpy().tobytes()}
    found = look(zip_file(b"}(" + key + weight + callbacks + b"u", numbers), tmp_path)
    assert found.safe
    assert found.refused == ["lightning.callbacks.Checkpoint"]
    assert "by its own reader alone, which leaves out lightning.callbacks.Checkpoint" in found.verdict
    assert not look(zip_file(b"}(" + key + b"}" + callbacks + b"u"), tmp_path).safe


LAYERS = {
    "StyleNeRF pickle of 16 pixels": ["mapping.fc0.weight", "synthesis.fg_nerf.fc_in.weight", "synthesis.b8.weight"],
    "StyleGAN3 pickle of 16 pixels": ["mapping.fc0.weight", "synthesis.input.weight", "synthesis.L0_36_8.weight"],
    "StyleGAN2-ADA pickle of 16 pixels": ["mapping.fc0.weight", "synthesis.b4.const", "synthesis.b8.conv0.weight"],
    "a pickle of objects with their own source text": ["encoder.weight"],
}


@pytest.mark.parametrize("family", LAYERS)
@pytest.mark.parametrize("entry", ["G_ema", "G"])
def test_generators_saved_with_their_source_text_are_told_apart(family, entry, tmp_path):
    """By their modules; those of no known family have no reader here."""
    generator = module_tree(dict.fromkeys(LAYERS[family], torch.zeros(2)))
    generator.state["img_resolution"] = 16
    with publishers_modules(), (tmp_path / "file.pkl").open("wb") as file:
        pickle.dump({entry: generator, "training_set_kwargs": EasyDict(resolution=8)}, file, protocol=3)
    result = inspect_file(tmp_path / "file.pkl", {})
    assert result.network == family
    assert result.refused == []
    assert result.safe == family.endswith("of 16 pixels")
    assert ("by its own reader alone" if result.safe else "refused: no reader here") in result.verdict


@pytest.mark.parametrize("resolution", [0, -1, True, 1 << 40, "16", None, [16]])
def test_an_absurd_resolution_is_not_repeated(resolution, tmp_path):
    generator = module_tree({"synthesis.b4.const": torch.zeros(2)})
    generator.state["img_resolution"] = resolution
    with publishers_modules(), (tmp_path / "file.pkl").open("wb") as file:
        pickle.dump({"G_ema": generator}, file, protocol=3)
    assert inspect_file(tmp_path / "file.pkl", {}).network == "StyleGAN2-ADA pickle"


def test_a_stylenerf_that_names_anything_else_is_refused(tmp_path):
    generator = module_tree({"synthesis.fg_nerf.fc_in.weight": torch.zeros(2)})
    with publishers_modules(), (tmp_path / "file.pkl").open("wb") as file:
        pickle.dump({"G_ema": generator, "other": print}, file, protocol=3)
    result = inspect_file(tmp_path / "file.pkl", {})
    assert (result.safe, result.refused) == (False, ["builtins.print"])


@pytest.mark.parametrize(
    ("module", "name", "family"),
    [
        ("R3GAN.Networks", "Other", "a pickle of R3GAN's classes"),
        ("BaselineGAN.Networks", "Other", "a pickle of R3GAN's classes"),
        ("dnnlib.tflib.network", "Network", "a StyleGAN pickle for TensorFlow"),
    ],
)
def test_pickles_of_other_packages_are_named_and_refused(module, name, family, tmp_path):
    result = look(hostile.plain_file(b"}" + text("G_ema") + hostile.call(module, name) + b"s"), tmp_path)
    assert (result.network, result.safe, result.refused) == (family, False, [f"{module}.{name}"])


FIXTURES = Path(__file__).parents[1] / "fixtures" / "parity"
SAMPLES = {
    "stylenerf/layout_sample.pkl": "StyleNeRF pickle of 32 pixels",
    "stylegan2-ada-64/layout_sample.pkl": "StyleGAN2-ADA pickle of 16 pixels",
    "stylegan2-ada-cond-32/layout_sample.pkl": "StyleGAN2-ADA pickle of 16 pixels, 3 classes",
    "stylegan3-t-64/layout_sample.pkl": "StyleGAN3 pickle of 16 pixels",
    "stylegan3-r-64/layout_sample.pkl": "StyleGAN3 pickle of 16 pixels",
    "r3gan-64/layout_sample.pkl": "R3GAN pickle of 16 pixels",
    "r3gan-64/layout_sample_old_names.pkl": "R3GAN pickle of 16 pixels, with the names of its early code",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_files_in_the_published_layouts_are_told_apart(name):
    result = inspect_file(FIXTURES / name, {})
    assert (result.network, result.safe, result.refused) == (SAMPLES[name], True, [])
    assert "by its own reader alone" in result.verdict


def test_what_a_stylenerf_may_name_is_what_its_reader_takes():
    assert MAKERS.keys() == MADE


def test_own_files_tell_their_config_and_their_cards(tmp_path):
    path = tmp_path / "chain.safetensors"
    save_chain(path, [Flow(4, FlowConfig(blocks=1, hidden=4))], {"type": "world", "truncation": 0.7}, {})
    network = inspect_file(path, {}).network
    assert network == 'a chain of 1 flow of this library on the generator {"truncation": 0.7, "type": "world"}'
    shipped = inspect_file(WORLD / "world-clip.safetensors")
    assert shipped.cards == {"world-clip": "by its sha256"}
    assert shipped.network.startswith("a small CLIP model of this library")
    other = tmp_path / "world-clip.safetensors"
    other.write_bytes(path.read_bytes())
    assert inspect_file(other).cards == {"world-clip": "by its name; the sha256 differs"}


def test_the_text_is_stable_and_tells_everything(tmp_path):
    torch.save({"weight": torch.zeros(2, 3), "bias": torch.zeros(3)}, tmp_path / "file.pt")
    found = inspect_file(tmp_path / "file.pt", {})
    lines = to_text(found).splitlines()
    assert lines[0] == str(tmp_path / "file.pt")
    assert [line[2:12].strip() for line in lines[1:]] == [
        *("container", "sha256", "entries", "tensors", "largest", "", "allowed", "", "", "verdict"),
    ]
    assert "  tensors     2 with 9 numbers (float32)" in lines
    assert to_text(inspect_file(tmp_path / "file.pt", {})) == to_text(found)


def test_the_command_has_three_exit_statuses(tmp_path, capsys):
    safe, evil = tmp_path / "safe.pt", tmp_path / "evil.pt"
    torch.save({"a": torch.zeros(1)}, safe)
    evil.write_bytes(zip_file(hostile.programs("true")["REDUCE"]))
    assert main(["inspect", str(safe)]) == 0
    assert main(["inspect", str(safe), str(evil)]) == 1
    assert "would run os.system: refused" in capsys.readouterr().out
    assert main(["inspect", str(evil), str(tmp_path / "none"), "--json"]) == 2
    out, err = capsys.readouterr()
    assert err == f"{tmp_path / 'none'}: no such file\n"
    (record,) = json.loads(out)
    assert (record["path"], record["safe"], record["refused"]) == (str(evil), False, ["os.system"])
    assert main(["inspect", str(tmp_path)]) == 2


def test_torch_is_not_needed_to_inspect():
    code = """
import sys
from promptgen.command_line import main
status = main(["inspect", sys.argv[1]])
assert "torch" not in sys.modules
sys.exit(status)
"""
    subprocess.run([sys.executable, "-c", code, WORLD / "world-pose.safetensors"], cwd=ROOT, check=True, stdout=-3)


def test_a_pickle_without_end_is_given_up():
    with pytest.raises(PickleError, match="more than 2000000 steps"):
        scan(io.BytesIO(b"\x80\x02" + b"N0" * (MAX_STEPS // 2) + b"N."))


def test_a_read_never_asks_for_more_than_there_is(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    with (tmp_path / "file").open("rb") as file:
        bounded = BoundedFile(file, largest=8)
        assert bounded.read(4) == b"0123"
        assert bounded.read(1 << 60) == b"456789"
        assert bounded.read(1 << 60) == b""
        bounded.seek(0)
        with pytest.raises(OSError, match="asks for 10 bytes at once"):
            bounded.read()


def test_a_folder_cannot_be_inspected(tmp_path):
    with pytest.raises(ModelFileError, match="not a file but a folder"):
        inspect_file(tmp_path, {})


@pytest.mark.parametrize("bracket", ["{", "["])
def test_the_length_of_a_header_may_look_like_a_bracket(tmp_path, bracket):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    header += " " * ((ord(bracket) - len(header)) % 256)
    path = tmp_path / "short.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + struct.pack("<f", 2.5))
    assert inspect_file(path).safe
    assert read_safetensors(path)["a"].tolist() == [2.5]
