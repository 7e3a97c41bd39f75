"""Transfers over http that survive a bad line: they go on where they broke off, try again, and refuse what is no file.

A part goes on only if the server says by ETag or Last-Modified (RFC 9110, If-Range) that the file is still the same
one, so that two versions of a file are never put together.
"""

from __future__ import annotations

import email.utils
import http
import http.client
import itertools
import logging
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from promptgen.errors import ChecksumError, DataError, ModelFileError
from promptgen.files import read_json, require_space, storage_error, write_json
from promptgen.model_files.addresses import opener, request, shown
from promptgen.progress import Bar

logger = logging.getLogger("promptgen")

_CHUNK = 1 << 20
_PAGE_STARTS = (b"<!doctype html", b"<html")
_REMEDIES: Mapping[int, str] = {
    http.HTTPStatus.UNAUTHORIZED: "; it needs a log-in (for the hub, set HF_TOKEN)",
    http.HTTPStatus.FORBIDDEN: "; it needs a permission (for the hub, accept the model's terms and set HF_TOKEN)",
    http.HTTPStatus.NOT_FOUND: "; the link is dead",
    http.HTTPStatus.GONE: "; the link is dead",
}


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        timeout: seconds without a byte after which a connection counts as dead.
        tries: attempts in a row that bring less than 1 MB. Faults of the connection, the status 429 and those from 500
            are tried again; a dead link is not.
        pause: seconds before the second attempt; they double with every further one.
        longest_pause: seconds; where a server asks for a longer pause, the transfer is given up.
    """

    timeout: float = 60.0
    tries: int = 5
    pause: float = 1.0
    longest_pause: float = 120.0


PATIENCE = Patience()


def download(
    url: str,
    folder: Path,
    title: str,
    *,
    size: int | None = None,
    secrets: Mapping[str, str] | None = None,
    patience: Patience = PATIENCE,
) -> Path:
    """Return the path of the whole file at `url`, in `folder`; what an earlier call has left there is gone on with.

    Args:
        url: an http or https address.
        folder: of this address alone, and not in use by another process.
        title: what the file is called in logs.
        size: bytes that the file must have; None where nobody knows.
        secrets: headers for the host of `url` alone.
        patience: how long the server is waited for.

    Raises:
        ModelFileError: the server does not give it, or gives a web page instead.
        ChecksumError: it is of another size.
        StorageError: it cannot be written, or the disk has no room; what has come so far stays for the next call.
    """
    part = _Part(folder)
    failures = furthest = 0
    while not part.is_whole():
        try:
            _attempt(request(url, part.wish(), secrets or {}), part, title, size, patience.timeout)
        except _PassingError as fault:
            failures = 1 if part.length() >= furthest + _CHUNK else failures + 1
            furthest = max(furthest, part.length())
            pause = max(fault.pause, patience.pause * 2 ** (failures - 1))
            if failures >= patience.tries or fault.pause > patience.longest_pause:
                when = f", when {fault.pause:.0f} s have passed" if fault.pause else ""
                raise ModelFileError(f"{shown(url)}: {fault}; run again to go on{when}") from fault
            logger.warning("%s: %s; trying again in %.0f s", shown(url), fault, pause)
            time.sleep(pause)
    return part.path


def looks_like_page(start: bytes) -> bool:
    """Return whether a file that begins so is a web page, which is what many a dead link gives."""
    return start.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith(_PAGE_STARTS)


class _PassingError(Exception):
    """A fault that may be gone at the next attempt.

    Attributes:
        pause: seconds that the server asks to wait.
    """

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class _Part:
    """A file in transfer, and what the server said of the whole: its version, and its bytes in total."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "content"
        self._facts = folder / "facts.json"

    def length(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def facts(self) -> dict[str, Any]:
        try:
            return dict(read_json(self._facts))
        except DataError:
            return {}

    def is_whole(self) -> bool:
        return bool(self.length()) and self.facts().get("total") == self.length()

    def wish(self) -> dict[str, str]:
        """Return the headers that ask for what is missing; none where only the whole can be asked for."""
        version = self.facts().get("version")
        return {"Range": f"bytes={self.length()}-", "If-Range": version} if version and self.length() else {}

    def begin(self, version: str | None, total: int | None) -> None:
        """Drop what is there before the new facts are written, so that they never stand beside another file's bytes."""
        self.drop()
        write_json(self._facts, {"version": version, "total": total})

    def end(self) -> None:
        """Note that the file is whole where the server did not say how long it is."""
        write_json(self._facts, {**self.facts(), "total": self.length()})

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self._facts.unlink(missing_ok=True)


def _attempt(asked: urllib.request.Request, part: _Part, title: str, size: int | None, timeout: float) -> None:
    """Bring as much of the file as one connection gives."""
    url = shown(asked.full_url)
    with _open(asked, part, timeout) as response:
        have = part.length() if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        version, total = _version(response), _total(response)
        if have and not _goes_on(response, part, version, total):
            part.drop()
            raise _PassingError("the file has changed since the transfer began")
        _require_size(url, total, size)
        chunks = _chunks(response, timeout)
        first = next(chunks, b"")
        if not have:
            _require_file(url, response, first, total)
            part.begin(version, total)
        require_space(part.path, (total or size or 0) - have)
        with _appended(part.path) as file, Bar(title, unit="B") as bar:
            bar.progress(have, total or size)
            for chunk in itertools.chain([first], chunks):
                file.write(chunk)
                have += len(chunk)
                bar.progress(have, total or size)
                if size is not None and have > size:
                    raise ChecksumError(f"{url} has more than the expected {size} bytes")
    if total is not None and part.length() < total:
        raise _PassingError(f"broke off after {part.length() / 1e6:.1f} MB of {total / 1e6:.1f} MB")
    _require_size(url, part.length(), size)
    part.end()


def _open(asked: urllib.request.Request, part: _Part, timeout: float) -> http.client.HTTPResponse:
    """Return the response; faults that may pass are told from those that stay."""
    url = shown(asked.full_url)
    try:
        response: http.client.HTTPResponse = opener().open(asked, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"{error.code} {error.reason}"
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.drop()
            raise _PassingError("the file has changed since the transfer began") from error
        if error.code == http.HTTPStatus.TOO_MANY_REQUESTS or error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _PassingError(reason, _seconds(error.headers.get("Retry-After"))) from error
        raise ModelFileError(f"{url}: {reason}{_REMEDIES.get(error.code, '')}") from error
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLCertVerificationError | http.client.InvalidURL):
            raise ModelFileError(f"{url}: {cause}") from error
        raise _PassingError(f"no answer ({cause})") from error
    return response


def _seconds(wanted: str | None) -> float:
    """Return the pause that a Retry-After asks for: seconds, or a date."""
    if wanted is None:
        return 0.0
    if wanted.isdecimal():
        return float(wanted)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(wanted).timestamp() - time.time())
    except ValueError:
        return 0.0


def _version(response: http.client.HTTPResponse) -> str | None:
    """Return what tells this version of the file from others; a weak ETag may stand for several."""
    tag: str | None = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _total(response: http.client.HTTPResponse) -> int | None:
    """Return the bytes of the whole file, as far as the server knows."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        text = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _goes_on(response: http.client.HTTPResponse, part: _Part, version: str | None, total: int | None) -> bool:
    """Return whether what comes is the rest of the same file; some servers know ranges, but not If-Range."""
    starts = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    same = part.facts() == {"version": version, "total": total}
    return same and starts is not None and int(starts[1]) == part.length()


def _require_size(url: str, found: int | None, size: int | None) -> None:
    if found is not None and size is not None and found != size:
        raise ChecksumError(f"{shown(url)} has {found} bytes, expected {size}")


def _require_file(url: str, response: http.client.HTTPResponse, start: bytes, total: int | None) -> None:
    if looks_like_page(start) or response.headers.get_content_type() == "text/html":
        raise ModelFileError(
            f"{url}: a web page came instead of the file; the link is dead, needs a log-in or is over its quota: "
            "open it in a browser to see which"
        )
    if not start and not total:
        raise ModelFileError(f"{url}: the file is empty")


def _chunks(response: http.client.HTTPResponse, timeout: float) -> Iterator[bytes]:
    """Yield what comes, as soon as it comes."""
    try:
        while chunk := response.read1(_CHUNK):
            yield chunk
    except TimeoutError as error:
        raise _PassingError(f"nothing came for {timeout:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError(f"broke off ({error})") from error


@contextmanager
def _appended(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("ab") as file:
            yield file
    except OSError as error:
        raise storage_error(path, error) from error
