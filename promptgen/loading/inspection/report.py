"""`promptgen inspect`: describe files, as text or JSON, without changing or running anything."""

from __future__ import annotations

import io
import json
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from promptgen.errors import ModelFileError
from promptgen.files import sha256_of
from promptgen.loading.inspection.bounded import BoundedFile, visible
from promptgen.loading.inspection.containers import PLAIN_PICKLE, SAFETENSORS, look_into
from promptgen.loading.inspection.networks import name_network
from promptgen.loading.inspection.persistent import CLASSES, FAMILIES, MADE, PLAIN_NAMES
from promptgen.loading.inspection.pickles import Scan, scan
from promptgen.loading.inspection.torch_files import LEGACY, ZIP, Contents, TensorEntry, refused_names
from promptgen.loading.stack_machine import PickleError, Record
from promptgen.model_files.cards import Card, load_cards

SHOWN = 5
WIDTH, LONGEST = 100, 600
"""Characters per line, and per item."""

READ, REFUSED, UNREADABLE = 0, 1, 2
"""Exit statuses: all files are readable; a file would be refused; a file could not be inspected."""

OWN_ENTRY = "state_dict.ema_model."
"""Prefix of the weights of a diffusion autoencoder, whose reader ignores the objects of its training."""

SAFE = {
    **dict.fromkeys((ZIP, LEGACY), "only tensors and plain containers"),
    SAFETENSORS: "only numbers and text",
    "npz arrays": "only numbers",
    "JSON": "only text",
    **dict.fromkeys(("zip archive", "tar archive"), "no member leaves its folder; inspect the extracted files as well"),
}
"""Why a container without faults is safe to read."""


@dataclass(frozen=True)
class Inspection:
    """Description of a file.

    Attributes:
        path: path of the file.
        size: size in bytes.
        sha256: checksum of the whole file.
        container: name of its format.
        entries: names at the top level.
        tensors: number of tensors.
        numbers: total number of elements; a tensor with several keys counts once.
        dtypes: number of tensors by type.
        largest: the tensors with the most elements.
        allowed: functions and classes that its pickles name and that are allowed.
        refused: functions and classes that its pickles name and that are refused.
        nested: number of pickles inside its pickle.
        network: description of the network; None if it is not recognised.
        cards: the matching model cards, with the reason.
        safe: whether this library can read the file safely.
        verdict: the same as a sentence.
    """

    path: str
    size: int
    sha256: str
    container: str
    entries: list[str]
    tensors: int
    numbers: int
    dtypes: dict[str, int]
    largest: list[TensorEntry]
    allowed: list[str]
    refused: list[str]
    nested: int
    network: str | None
    cards: dict[str, str]
    safe: bool
    verdict: str


def inspect_file(path: Path, cards: Mapping[str, Card] | None = None) -> Inspection:
    """Describe a file.

    Args:
        path: the file.
        cards: model cards to compare the file with; None means the cards of this package.

    Raises:
        ConfigError: a card of this package is invalid.
        ModelFileError: the file is missing, is not a regular file, or cannot be read.
    """
    try:
        if not path.is_file():
            raise ModelFileError(f"{path}: {'not a file but a folder' if path.is_dir() else 'no such file'}")
        with path.open("rb") as file:
            contents = look_into(file)
        digest, size = sha256_of(path), path.stat().st_size
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    inner = list(_inner_scans(contents.scan)) if contents.scan else []
    scans = [contents.scan, *inner] if contents.scan else []
    network = name_network(contents)
    objects = contents.container == PLAIN_PICKLE and network is not None
    read_as_records = CLASSES | MADE | PLAIN_NAMES if objects else ()
    refused = dict.fromkeys(name for one in scans for name in refused_names(one) if name not in read_as_records)
    safe, verdict = _judge(contents, list(refused), network or "")
    root = contents.scan.root if contents.scan else None
    names = root.items if isinstance(root, Record) else root if isinstance(root, dict) else {}
    distinct = [tensor for tensor in contents.tensors if not tensor.again]
    return Inspection(
        path=str(path),
        size=size,
        sha256=digest,
        container=contents.container,
        entries=[str(name)[:80] for name in names] or contents.entries or [tensor.key for tensor in contents.tensors],
        tensors=len(contents.tensors),
        numbers=sum(tensor.count for tensor in distinct),
        dtypes=dict(Counter(tensor.dtype for tensor in contents.tensors)),
        largest=sorted(distinct, key=lambda tensor: (-tensor.count, tensor.key))[:SHOWN],
        allowed=[name for name in dict.fromkeys(name for one in scans for name in one.names) if name not in refused],
        refused=list(refused),
        nested=len(inner),
        network=network,
        cards=_matching(load_cards() if cards is None else cards, path, digest),
        safe=safe,
        verdict=verdict,
    )


def _inner_scans(outer: Scan, depth: int = 3) -> Iterator[Scan]:
    """Yield the scans of the pickles embedded as bytes in a pickle, recursively down to `depth`."""
    for piece in outer.embedded if depth else ():
        stream = BoundedFile(io.BytesIO(piece))
        while stream.tell() < stream.size:
            try:
                inner = scan(stream)
            except PickleError:  # the rest is numbers, or only began like a pickle
                break
            yield inner
            yield from _inner_scans(inner, depth - 1)


def _judge(contents: Contents, refused: list[str], network: str) -> tuple[bool, str]:
    """Return whether a file is safe to read, and the reason."""
    own_reader = contents.container == ZIP and any(tensor.key.startswith(OWN_ENTRY) for tensor in contents.tensors)
    if refused and not own_reader:
        return False, f"would run {_some(refused)}: refused"
    if contents.faults:
        return False, f"refused: {_some(contents.faults, '; ')}; {contents.way_out}"
    if refused:
        return True, f"safe to read by its own reader alone, which leaves out {_some(refused)}; others would run them"
    if contents.container in SAFE:
        return True, f"safe to read: {SAFE[contents.container]}"
    if network.startswith(tuple(f"{family} pickle" for family in FAMILIES)):
        return True, "safe to read by its own reader alone, which runs nothing of it, nor source text in it"
    return False, "refused: no reader here supports such a pickle; save its tensors as safetensors"


def _matching(cards: Mapping[str, Card], path: Path, digest: str) -> dict[str, str]:
    """Return the cards that match a file, by its sha256 or else by its name, with the reason."""
    content = [name for name, card in cards.items() if digest in {wanted.sha256 for wanted in card.files}]
    if content:
        return dict.fromkeys(content, "by its sha256")
    named = {name: card for name, card in cards.items() if path.name in {wanted.file for wanted in card.files}}
    if path.parent.name in named:  # the folder in which `fetch` puts the model's files
        named = {path.parent.name: named[path.parent.name]}
    with_sha256 = {wanted.file for card in named.values() for wanted in card.files if wanted.sha256}
    return dict.fromkeys(named, "by its name; the sha256 differs" if path.name in with_sha256 else "by its name alone")


def to_text(result: Inspection) -> str:
    """Return the description of a file for a terminal, with control characters escaped."""
    several = len(result.dtypes) > 1
    dtypes = ", ".join(f"{count} {dtype}" if several else dtype for dtype, count in result.dtypes.items())
    rows = {
        "container": [f"{result.container}, {result.size:,} bytes"],
        "sha256": [result.sha256],
        "entries": [_some(result.entries)],
        "tensors": [f"{result.tensors:,} with {result.numbers:,} numbers ({dtypes})" if result.tensors else ""],
        "largest": [f"{tensor.key}  {tuple(tensor.shape)}" for tensor in result.largest],
        "allowed": result.allowed,
        "refused": result.refused,
        "nested": [f"{result.nested} pickles inside the pickle" if result.nested else ""],
        "looks like": [result.network or ""],
        "cards": [_some(f"{name} ({reason})" for name, reason in result.cards.items())],
        "verdict": [result.verdict],
    }
    lines = [visible(result.path)]
    for name, texts in rows.items():
        wrapped = [line for text in texts for line in textwrap.wrap(visible(text, LONGEST), WIDTH)]
        lines += [f"  {'' if number else name:<12}{line}" for number, line in enumerate(wrapped)]
    return "\n".join(lines)


def _some(items: Iterable[str], separator: str = ", ") -> str:
    """Return the first items and the number of those omitted."""
    listed = list(items)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return separator.join(listed[:SHOWN]) + more


def main(paths: list[Path], as_json: bool) -> int:
    """Print a description of each file; return the exit status, the worst over all files."""
    status, results, cards = READ, [], load_cards(Path.cwd() / "models")
    for path in paths:
        try:
            results.append(inspect_file(path, cards))
        except ModelFileError as error:
            print(visible(str(error)), file=sys.stderr)
            status = UNREADABLE
    if not all(result.safe for result in results):
        status = max(status, REFUSED)
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    elif results:
        print("\n\n".join(map(to_text, results)))
    return status
