"""Web addresses of model files: requests, redirects, and display without secrets."""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import Mapping
from email.message import Message
from typing import IO
from urllib.parse import urlsplit

from promptgen.errors import ModelFileError

USER_AGENT = "promptgen"


def shown(url: str) -> str:
    """Return an address for logs and errors, without its query and user, which may contain a key or a password."""
    return re.sub(r"(?<=://)[^/]*@", "", url.partition("?")[0])


def hub_address(url: str) -> tuple[str, dict[str, str]]:
    """Return the web address of ``hub:OWNER/REPO/PATH`` on the Hugging Face hub, and its headers.

    The environment variables `HF_ENDPOINT` and `HF_TOKEN` apply, as in the hub's own programs.
    """
    from huggingface_hub import get_token, hf_hub_url

    owner, repository, path = url.removeprefix("hub:").split("/", 2)
    address = hf_hub_url(f"{owner}/{repository}", path, endpoint=os.environ.get("HF_ENDPOINT"))
    token = get_token()
    return address, {"Authorization": f"Bearer {token}"} if token else {}


def opener() -> urllib.request.OpenerDirector:
    """Return an opener of addresses that uses the proxies of the environment."""
    return urllib.request.build_opener(_Redirects)


def request(url: str, headers: Mapping[str, str], secrets: Mapping[str, str]) -> urllib.request.Request:
    """Return a request; the headers in `secrets` are not sent to other hosts after a redirect."""
    prepared = urllib.request.Request(url, headers={"User-Agent": USER_AGENT, **headers})
    for name, value in secrets.items():
        prepared.add_unredirected_header(name, value)
    return prepared


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but sends no secret to another host and never goes from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme != "https" and (old.scheme, new.scheme) != ("http", "http"):
            raise ModelFileError(f"{shown(req.full_url)} leads to {new.scheme}:, expected https:; use another link")
        redirected = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if redirected is not None and (old.scheme, old.netloc) == (new.scheme, new.netloc):
            for name, value in req.unredirected_hdrs.items():
                if name != "Host":
                    redirected.add_unredirected_header(name, value)
        return redirected
