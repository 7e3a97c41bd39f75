"""`promptgen inspect`: says what files are, for people and for programs; it changes and runs nothing."""

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
from promptgen.loading.inspection.persistent import CLASSES, MADE, PERSISTENT, PLAIN_NAMES, STYLENERF
from promptgen.loading.inspection.pickles import Scan, scan
from promptgen.loading.inspection.torch_files import LEGACY, ZIP, Contents, TensorEntry, refused_names
from promptgen.loading.stack_machine import PickleError, Record
from promptgen.model_files.cards import Card, load_cards

SHOWN = 5
WIDTH, LONGEST = 100, 600
"""Characters of a line, and of all lines of one item."""

READ, REFUSED, UNREADABLE = 0, 1, 2
"""Exit statuses: all files can be read; one would be refused; one could not be inspected."""

OWN_ENTRY = "state_dict.ema_model."
"""Where a diffusion autoencoder has its weights, whose reader leaves out the objects of its training."""

SAFE = {
    **dict.fromkeys((ZIP, LEGACY), "tensors and plain containers alone"),
    SAFETENSORS: "numbers and text alone",
    "npz arrays": "numbers alone",
    "JSON": "text alone",
    **dict.fromkeys(("zip archive", "tar archive"), "nothing leaves its folder; inspect what comes out of it as well"),
}
"""Why a container without faults is safe."""


@dataclass(frozen=True)
class Inspection:
    """What a file is.

    Attributes:
        path: the file.
        size: bytes.
        sha256: of the whole file.
        container: name of its format.
        entries: names at its top level.
        tensors: number of its tensors.
        numbers: how many numbers they hold, each tensor counted once.
        dtypes: how many tensors there are of each type.
        largest: the tensors with the most numbers.
        allowed: functions and classes that reading its pickles names, and that are let through.
        refused: those that are not.
        nested: number of pickles inside its pickle.
        network: what its network looks like, if it is known.
        cards: names of the cards it belongs to, and why.
        safe: whether this library reads such a file.
        verdict: the same in a sentence.
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
    """Say what a file is.

    Args:
        path: the file.
        cards: the cards that it is looked for in; None means those of this package.

    Raises:
        ConfigError: a card of this package is not one.
        ModelFileError: it is missing, is not a file, or may not be read.
    """
    try:
        if not path.is_file():
            raise ModelFileError(f"{path}: {'not a file but a folder' if path.is_dir() else 'no such file'}")
        with path.open("rb") as file:
            found = look_into(file)
        digest, size = sha256_of(path), path.stat().st_size
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    inner = list(_inner_scans(found.scan)) if found.scan else []
    scans = [found.scan, *inner] if found.scan else []
    objects = found.container == PLAIN_PICKLE and PERSISTENT in scans[0].names
    read_as_records = CLASSES | MADE | PLAIN_NAMES if objects else ()
    refused = dict.fromkeys(name for one in scans for name in refused_names(one) if name not in read_as_records)
    network = name_network(found)
    safe, verdict = _judge(found, list(refused), network or "")
    root = found.scan.root if found.scan else None
    names = root.items if isinstance(root, Record) else root if isinstance(root, dict) else {}
    distinct = [tensor for tensor in found.tensors if not tensor.again]
    return Inspection(
        path=str(path),
        size=size,
        sha256=digest,
        container=found.container,
        entries=[str(name)[:80] for name in names] or found.entries or [tensor.key for tensor in found.tensors],
        tensors=len(found.tensors),
        numbers=sum(tensor.count for tensor in distinct),
        dtypes=dict(Counter(tensor.dtype for tensor in found.tensors)),
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
    """Yield what the pickles would do that lie as bytes inside a pickle, and those inside them, down to a depth."""
    for piece in outer.embedded if depth else ():
        stream = BoundedFile(io.BytesIO(piece))
        while stream.tell() < stream.size:
            try:
                inner = scan(stream)
            except PickleError:  # numbers follow, or it only began like a pickle
                break
            yield inner
            yield from _inner_scans(inner, depth - 1)


def _judge(found: Contents, refused: list[str], network: str) -> tuple[bool, str]:
    """Say whether a file is read, and why, or why not."""
    own_reader = found.container == ZIP and any(tensor.key.startswith(OWN_ENTRY) for tensor in found.tensors)
    if refused and not own_reader:
        return False, f"would run {_some(refused)}: refused"
    if found.faults:
        return False, f"refused: {_some(found.faults, '; ')}; {found.way_out}"
    if refused:
        return True, f"safe to read by its own reader alone, which leaves out {_some(refused)}; others would run that"
    if found.container in SAFE:
        return True, f"safe to read: {SAFE[found.container]}"
    if network.startswith(STYLENERF):
        return True, "safe to read by its own reader alone: the source text in it is never run"
    return False, "refused: no reader here takes such a pickle; save its tensors as safetensors"


def _matching(cards: Mapping[str, Card], path: Path, digest: str) -> dict[str, str]:
    """Return the cards that a file belongs to, with the reason: its content is known, or only its name is."""
    content = [name for name, card in cards.items() if digest in {wanted.sha256 for wanted in card.files}]
    if content:
        return dict.fromkeys(content, "by its sha256")
    named = {name: card for name, card in cards.items() if path.name in {wanted.file for wanted in card.files}}
    if path.parent.name in named:  # the folder in which `fetch` puts the model's files
        named = {path.parent.name: named[path.parent.name]}
    known = {wanted.file for card in named.values() for wanted in card.files if wanted.sha256}
    return dict.fromkeys(named, "by its name; the sha256 is another" if path.name in known else "by its name alone")


def to_text(result: Inspection) -> str:
    """Return what a file is as lines for a terminal; control characters in its names are made visible."""
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


def _some(words: Iterable[str], separator: str = ", ") -> str:
    """Return the first words, and how many more there are."""
    listed = list(words)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return separator.join(listed[:SHOWN]) + more


def main(paths: list[Path], as_json: bool) -> int:
    """Print what each file is; return the exit status, the worst of all files."""
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
