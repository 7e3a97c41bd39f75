"""Addresses of files on the network: how they are asked for, and how they are shown without a secret."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Mapping
from email.message import Message
from typing import IO
from urllib.parse import urlsplit

from promptgen.errors import ModelFileError

USER_AGENT = "promptgen"


def shown(url: str) -> str:
    """Return an address for logs and errors: its query, which may hold a key, is left out."""
    return url.partition("?")[0]


def hub_address(url: str) -> tuple[str, dict[str, str]]:
    """Return the web address of ``hub:OWNER/REPO/PATH`` and the headers that it needs, as the Hugging Face hub has it.

    The environment variables `HF_ENDPOINT` and `HF_TOKEN` mean what they mean to the hub's own programs.
    """
    from huggingface_hub import get_token, hf_hub_url

    owner, repository, path = url.removeprefix("hub:").split("/", 2)
    address = hf_hub_url(f"{owner}/{repository}", path, endpoint=os.environ.get("HF_ENDPOINT"))
    token = get_token()
    return address, {"Authorization": f"Bearer {token}"} if token else {}


def opener() -> urllib.request.OpenerDirector:
    """Return what opens addresses, by way of the environment's proxies."""
    return urllib.request.build_opener(_Redirects)


def request(url: str, headers: Mapping[str, str], secrets: Mapping[str, str]) -> urllib.request.Request:
    """Return a request; `secrets` are headers that no other host gets when the address redirects to one."""
    made = urllib.request.Request(url, headers={"User-Agent": USER_AGENT, **headers})
    for name, value in secrets.items():
        made.add_unredirected_header(name, value)
    return made


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to other addresses, but takes no secret to another host and never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme != "https" and (old.scheme, new.scheme) != ("http", "http"):
            raise ModelFileError(f"{shown(req.full_url)} leads to {new.scheme}:, expected https:; take another link")
        made = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if made is not None and (old.scheme, old.netloc) == (new.scheme, new.netloc):
            for name, value in req.unredirected_hdrs.items():
                if name != "Host":
                    made.add_unredirected_header(name, value)
        return made
