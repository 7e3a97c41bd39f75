"""Made-up cards of models, and the content of their files."""

from __future__ import annotations

import hashlib

from promptgen.model_files.downloads import Patience

CONTENT = bytes(range(256)) * 400
OTHER = bytes(reversed(CONTENT))
QUICK = Patience(timeout=5.0, tries=2, pause=0.0)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file(*urls: str, **changes: object) -> dict:
    return {"file": "some.bin", "urls": list(urls), **changes}


def pinned(*urls: str, **changes: object) -> dict:
    return file(*urls, sha256=sha256(CONTENT), size=len(CONTENT), **changes)


def card(*files: dict, **changes: object) -> dict:
    return {"kind": "classifier", "type": "some", "files": list(files), "licence": "CC0", **changes}
