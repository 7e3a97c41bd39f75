"""Files that claim what they do not hold are refused, and cost neither time nor memory."""

import io
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import hostile
import pytest
import torch
from hostile import legacy_file, safetensors_file, state, tensor, text, zip_file

from promptgen.flows.chain_file import load_chain
from promptgen.loading.inspection.report import inspect_file
from promptgen.loading.own_files import load_tensors
from promptgen.loading.published import read_safetensors, read_state, read_torch, read_training
from promptgen.perception.clip import load_open_clip
from tests.loading.hostile_files.loaders import refused

ROOT = Path(__file__).parents[3]
NUMBERS = torch.arange(4.0).numpy().tobytes()


def keys():
    return b"](" + text("0") + b"e"


def old(count=4):
    """Return the numbers of a storage as the old format has them."""
    return count.to_bytes(8, "little", signed=True) + NUMBERS


def test_the_honest_file_beside_the_absurd_ones_is_read(path):
    for content in (
        zip_file(state(tensor()), {"0": NUMBERS}),
        legacy_file(state(tensor(last=b"N")), keys(), numbers=old()),
    ):
        path.write_bytes(content)
        assert torch.equal(read_torch(path)["weight"], torch.arange(4.0))
        assert inspect_file(path, {}).safe


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
    "pairs as keys": b"}(K\x01K\x02\x86K\x03u",
    "list as a key": b"}]K\x01s",
    "tuples in a set": hostile.call("builtins", "set", b"])\x85a"),
    "set of what is no list": hostile.call("builtins", "set", b"K\x01"),
    "pairs of three": hostile.call("collections", "OrderedDict", b"](" + text("a") + b"K\x01K\x02ee"),
    "nested tuples in pairs": hostile.call("collections", "OrderedDict", b"])\x85K\x01\x86a"),
    "count of tuples": hostile.call("collections", "Counter", b"])\x85a"),
    "a shape of booleans": tensor().replace(b"(" + hostile.integer(4) + b"t", b"(\x88t"),
    "state of a dict": b"}}b",
    "items of a set": b"\x8fK\x01K\x02s",
    "state of a tensor": tensor() + b"}" + text("a") + b"K\x01sb",
    "two states": hostile.name("argparse", "Namespace") + b")\x81}" + text("__class__") + b"Nsb}b",
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
    refused(read_torch, path, "compressed or encrypted")
    twice = zip_file(b"}", **{"DATA.pkl": hostile.plain_file(hostile.programs("true")["REDUCE"])})
    path.write_bytes(twice.replace(b"x/DATA.pkl", b"x/data.pkl"))
    refused(read_torch, path, "has the member x/data.pkl twice")


@pytest.mark.parametrize("other", ["y/data.pkl", "X/DATA.pkl", "data.pkl", "x/Data/0"])
def test_a_zip_with_a_second_pickle_or_folder_is_refused(other, path):
    """torch reads the folder of the first member, whatever its case: it might not be the one that is looked at."""
    whole = zip_file(state(tensor()), {"0": NUMBERS})
    for first in (True, False):
        with zipfile.ZipFile(path, "w") as archive, zipfile.ZipFile(io.BytesIO(whole)) as honest:
            parts = [(member, honest.read(member)) for member in honest.namelist()]
            evil = (other, hostile.plain_file(hostile.programs("true")["REDUCE"]))
            for name, content in [evil, *parts] if first else [*parts, evil]:
                archive.writestr(name, content)
        refused(read_torch, path)
        refused(read_training, path)
        assert not inspect_file(path, {}).safe


@pytest.mark.timeout(20)
def test_a_key_of_wrappers_alone_costs_no_time(tmp_path):
    path, key = tmp_path / "weights.safetensors", "model." * 2_000_000
    path.write_bytes(safetensors_file(f'{{"{key}":{{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}}}', NUMBERS))
    read_state(path)
    assert inspect_file(path, {}).safe


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
        ('{"a":{"dtype":"F32","shape":[true,4],"data_offsets":[0,16]}}', NUMBERS, None),
        ('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0.0,16.0]}}', NUMBERS, None),
        ('{"a":{"dtype":"Q9","shape":[4],"data_offsets":[0,16]}}', NUMBERS, None),
        ("{}", NUMBERS, None),
    ],
)
def test_absurd_safetensors_are_refused(header, numbers, length, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors_file(header, numbers, length))
    for loader in (read_safetensors, load_tensors, load_chain, load_open_clip):
        refused(loader, path)
    assert not inspect_file(path, {}).safe


def ranges(*bounds):
    """Return the header of tensors a, b, ... of 32-bit numbers, each over a range of bytes."""
    entries = (
        f'"{chr(97 + n)}":{{"dtype":"F32","shape":[{(end - start) // 4}],"data_offsets":[{start},{end}]}}'
        for n, (start, end) in enumerate(bounds)
    )
    return "{" + ",".join(entries) + "}"


@pytest.mark.parametrize(
    ("bounds", "fact"),
    [
        ([(0, 16), (0, 16)], "b overlap"),
        ([(0, 12), (8, 16)], "b overlap"),
        ([(8, 16), (0, 12)], "a overlap"),
        ([(0, 16), (4, 8)], "b overlap"),
        ([(0, 8), (12, 16)], "b leave a gap of 4 bytes"),
        ([(4, 16)], "a leave a gap of 4 bytes"),
        ([(0, 8)], "claim 8 bytes, the file has 16"),
        ([(0, 32)], "claim 32 bytes, the file has 16"),
        ([(0, 16), (16, 20)], "claim 20 bytes, the file has 16"),
    ],
)
def test_tensors_of_safetensors_fill_their_file_exactly(bounds, fact, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors_file(ranges(*bounds), NUMBERS))
    refused(read_safetensors, path, fact)
    refused(load_tensors, path)
    result = inspect_file(path, {})
    assert not result.safe
    assert fact in result.verdict
    path.write_bytes(safetensors_file(ranges((8, 16), (0, 8), (8, 8), (16, 16)), NUMBERS))
    assert inspect_file(path, {}).safe
    assert torch.equal(read_safetensors(path)["a"], torch.tensor([2.0, 3.0]))


def test_a_key_twice_in_safetensors_is_refused(tmp_path):
    path, entry = tmp_path / "weights.safetensors", '"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'
    path.write_bytes(safetensors_file(f"{{{entry},{entry}}}", NUMBERS))
    refused(read_safetensors, path, "twice")
    assert not inspect_file(path, {}).safe


def test_depth_and_repetition_cost_no_time(path):
    """Lists in lists are data, however deep; what a thousandfold call would take is not worth following."""
    path.write_bytes(zip_file(b"]" * 100_000 + b"a" * 99_999))
    assert inspect_file(path, {}).safe
    many = b"(" + b"N" * 200_000 + b"tq\x00" + (hostile.name("torch", "device") + b"h\x00R0") * 1000 + b"N"
    path.write_bytes(zip_file(many))
    refused(read_torch, path, "more arguments than it has instructions")


LIMITED = """
import resource, sys
from promptgen.command_line import main
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
