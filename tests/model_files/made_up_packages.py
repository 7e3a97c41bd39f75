"""Made-up packages, and an index of PyPI's and a registry of npm's that list them, played by a web server."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping

from tests.web import Answer, Web


def wheel(name: str, files: Mapping[str, bytes], version: str = "1.0", requires: str = "") -> bytes:
    """Return a wheel; `requires` is further text of its METADATA."""
    facts = f"{name.replace('-', '_')}-{version}.dist-info"
    parts = {
        **files,
        f"{facts}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}".encode(),
        f"{facts}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*parts, f"{facts}/RECORD"])
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        for path, data in {**parts, f"{facts}/RECORD": record.encode()}.items():
            made.writestr(path, data)
    return content.getvalue()


def tarball(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """Return an npm archive; `links` are symbolic ones."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as made:
        for path, data in files.items():
            info = tarfile.TarInfo(f"package/{path}")
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
        for path, target in (links or {}).items():
            info = tarfile.TarInfo(f"package/{path}")
            info.type, info.linkname = tarfile.SYMTYPE, target
            made.addfile(info)
    return content.getvalue()


def serve_pypi(web: Web, name: str, archives: Mapping[str, bytes]) -> None:
    """Serve archives as those of a package of PyPI."""
    links = "".join(f'<a href="/files/{file}">{file}</a>\n' for file in archives)
    page = Answer(f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), headers={"Content-Type": "text/html"})
    web.serve(f"/simple/{name}/", page)
    for file, content in archives.items():
        web.serve(f"/files/{file}", Answer(content))


def serve_npm(web: Web, name: str, archive: bytes, *answers: Answer, **changes: object) -> str:
    """Serve an archive as version 1.0.0 of a package of npm's registry; return its address.

    Args:
        web: the server.
        name: name of the package.
        archive: what the registry states the checksum of.
        answers: what requests for the archive get, if not the archive.
        changes: of the archive's entry in the registry.
    """
    path = f"/{name}/-/tiny-1.0.0.tgz"
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    dist = {"tarball": web.url + path, "integrity": integrity, **changes}
    entry = {"name": name, "version": "1.0.0", "dist": dist}
    listing = {"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": entry}}
    page = Answer(json.dumps(listing).encode(), headers={"Content-Type": "application/json"})
    web.serve(f"/{name.replace('/', '%2f')}", page)
    return web.serve(path, *(answers or (Answer(archive),)))
