"""Downloads over HTTP that resume after an interruption, retry, and reject web pages in place of files.

A transfer resumes only if the server confirms by ETag or Last-Modified (RFC 9110, If-Range) that the file has not
changed, so that parts of two versions are never combined.
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

from promptgen.errors import ChecksumError, DataError, ModelFileError, UnreachableError
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
    """Timeouts and retries of a download.

    Attributes:
        timeout: seconds without data after which a connection counts as dead.
        tries: number of consecutive attempts that may fail with less than 1 MB received. Connection faults, the status
            429 and statuses from 500 are retried; dead links are not.
        pause: seconds before the second attempt; doubled before every further one.
        longest_pause: longest pause that a server may ask for, seconds; the download fails if it asks for more.
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
    """Download the file at `url` into `folder`, resuming an earlier download; return its path.

    Args:
        url: an http or https address.
        folder: a folder for this address alone, which no other process uses.
        title: name of the file in logs.
        size: expected size of the file, bytes; None if unknown.
        secrets: headers that only the host of `url` receives.
        patience: timeouts and retries.

    Raises:
        ModelFileError: the server does not deliver the file, or delivers a web page instead.
        UnreachableError: the server does not answer, or breaks off again and again.
        ChecksumError: the file does not have the expected size.
        StorageError: the file cannot be written, or the disk has no room; a later call resumes the download.
    """
    part = _Part(folder)
    failures = furthest = 0
    while not part.is_whole():
        try:
            _attempt(request(url, part.range_headers(), secrets or {}), part, title, size, patience.timeout)
        except _PassingError as fault:
            failures = 1 if part.length() >= furthest + _CHUNK else failures + 1
            furthest = max(furthest, part.length())
            pause = max(fault.pause, patience.pause * 2 ** (failures - 1))
            if failures >= patience.tries or fault.pause > patience.longest_pause:
                when = f", when {fault.pause:.0f} s have passed" if fault.pause else ""
                raise UnreachableError(f"{shown(url)}: {fault}; run again to continue{when}") from fault
            logger.warning("%s: %s; trying again in %.0f s", shown(url), fault, pause)
            time.sleep(pause)
    return part.path


def looks_like_page(start: bytes) -> bool:
    """Return whether these first bytes of a file are those of a web page, which many dead links return."""
    return start.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith(_PAGE_STARTS)


class _PassingError(Exception):
    """A fault that a retry may resolve.

    Attributes:
        pause: seconds that the server asks to wait.
    """

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class _Part:
    """A partial download, with the version and the size in bytes that the server stated for the whole file."""

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

    def range_headers(self) -> dict[str, str]:
        """Return the headers that request the missing rest; empty if only the whole file can be requested."""
        version = self.facts().get("version")
        return {"Range": f"bytes={self.length()}-", "If-Range": version} if version and self.length() else {}

    def begin(self, version: str | None, total: int | None) -> None:
        """Start again: delete the old content before writing the new facts, so that they never describe other bytes."""
        self.drop()
        write_json(self._facts, {"version": version, "total": total})

    def end(self) -> None:
        """Record the size of the whole file, which the server may not have stated."""
        write_json(self._facts, {**self.facts(), "total": self.length()})

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self._facts.unlink(missing_ok=True)


def _attempt(query: urllib.request.Request, part: _Part, title: str, size: int | None, timeout: float) -> None:
    """Download as much of the file as one connection delivers."""
    url = shown(query.full_url)
    with _open(query, part, timeout) as response:
        have = part.length() if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        version, total = _version(response), _total(response)
        if have and not _is_rest(response, part, version, total):
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
        raise _PassingError(f"interrupted after {part.length() / 1e6:.1f} MB of {total / 1e6:.1f} MB")
    _require_size(url, part.length(), size)
    part.end()


def _open(query: urllib.request.Request, part: _Part, timeout: float) -> http.client.HTTPResponse:
    """Return the response; raise `_PassingError` for a fault that a retry may resolve."""
    url = shown(query.full_url)
    try:
        response: http.client.HTTPResponse = opener().open(query, timeout=timeout)
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


def _seconds(retry_after: str | None) -> float:
    """Return the pause in a Retry-After header, which holds seconds or a date; in seconds."""
    if retry_after is None:
        return 0.0
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return 0.0


def _version(response: http.client.HTTPResponse) -> str | None:
    """Return the identifier of the file's version; a weak ETag is ignored, since it may cover several versions."""
    tag: str | None = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _total(response: http.client.HTTPResponse) -> int | None:
    """Return the size of the whole file, bytes; None if the server does not state it."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        text = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _is_rest(response: http.client.HTTPResponse, part: _Part, version: str | None, total: int | None) -> bool:
    """Return whether the response is the rest of the same file; some servers support ranges, but not If-Range."""
    starts = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    same = part.facts() == {"version": version, "total": total}
    return same and starts is not None and int(starts[1]) == part.length()


def _require_size(url: str, total: int | None, size: int | None) -> None:
    if total is not None and size is not None and total != size:
        raise ChecksumError(f"{shown(url)} has {total} bytes, expected {size}")


def _require_file(url: str, response: http.client.HTTPResponse, start: bytes, total: int | None) -> None:
    if looks_like_page(start) or response.headers.get_content_type() == "text/html":
        raise ModelFileError(
            f"{url}: got a web page instead of the file; the link is dead, needs a log-in or is over its quota: "
            "open it in a browser to find out"
        )
    if not start and not total:
        raise ModelFileError(f"{url}: the file is empty")


def _chunks(response: http.client.HTTPResponse, timeout: float) -> Iterator[bytes]:
    """Yield the data of a response as soon as it arrives."""
    try:
        while chunk := response.read1(_CHUNK):
            yield chunk
    except TimeoutError as error:
        raise _PassingError(f"no data for {timeout:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError(f"interrupted ({error})") from error


@contextmanager
def _appended(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("ab") as file:
            yield file
    except OSError as error:
        raise storage_error(path, error) from error
