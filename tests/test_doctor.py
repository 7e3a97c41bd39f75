"""The doctor: what it says of healthy and of broken machines."""

from __future__ import annotations

import http.server
import os
import threading
from pathlib import Path

import pytest

from promptgen.command_line import main
from promptgen.commands import doctor


@pytest.fixture
def versions(monkeypatch):
    """Pretend that packages have other versions; None is not installed."""
    table = {}
    real = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: table[name] if name in table else real(name))
    return table


def test_this_installation_is_well(tmp_path):
    wrong = [finding for finding in doctor.examine(tmp_path) if finding.remedy and not finding.name.startswith("port")]
    assert wrong == []


def test_every_requirement_is_looked_for():
    lines = (Path(__file__).parent.parent / "requirements.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    assert pinned == {*doctor.LIBRARY, *doctor.WORKFLOW}


def test_known_bad_pairs_are_named_with_the_way_out(versions):
    versions.update(prefect="3.8.8", fastapi="0.151.0", sqlalchemy="2.1.0b1")
    remedies = [finding.remedy for finding in doctor.bad_pairs()]
    assert remedies == [
        "with prefect 3.8.8, every flow dies at its start: pip install 'fastapi<0.151'",
        "with prefect 3.8.8, scheduled runs are never created: pip install 'sqlalchemy<2.1'",
    ]
    versions.update(fastapi="0.150.9", sqlalchemy="2.0.58")
    assert not any(finding.remedy for finding in doctor.bad_pairs())


def test_a_torchvision_for_another_torch_is_wrong(versions):
    assert not doctor.torch_pair().remedy
    versions["torch"] = "2.12.1+cpu"
    assert "is built for torch 2.1" in doctor.torch_pair().remedy
    versions["torch"] = None
    assert doctor.torch_pair().remedy


def test_a_python_without_pip_is_wrong_and_a_machine_without_npm_is_not(versions, monkeypatch):
    versions["pip"] = None
    assert doctor.pip().remedy.endswith("-m ensurepip")
    monkeypatch.setenv("PATH", "")
    assert (doctor.npm().state.partition(";")[0], doctor.npm().remedy) == ("not installed", "")


def test_a_missing_package_is_wrong(versions):
    versions["mlflow"] = None
    (finding,) = doctor.packages(("mlflow",), "`make repro` needs it")
    assert (finding.state, finding.remedy) == (
        "not installed",
        "`make repro` needs it: pip install -r requirements.txt",
    )


def test_a_file_in_place_of_a_folder_is_wrong(tmp_path):
    (tmp_path / "models").touch()
    assert "move" in doctor.folder(tmp_path / "models").remedy
    assert not doctor.folder(tmp_path / "not" / "yet" / "there").remedy


def test_a_folder_without_permission_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the superuser may write anywhere
    assert "change the owner" in doctor.folder(tmp_path / "reports").remedy


def test_a_read_only_disk_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_is_read_only", lambda path: True)
    assert "another disk" in doctor.folder(tmp_path / "reports").remedy


def test_little_disk_or_memory_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "MIN_DISK_GB", 1e6)
    monkeypatch.setattr(doctor, "MIN_MEMORY_GB", 1e6)
    assert doctor.disk(tmp_path).remedy
    assert doctor.memory().remedy


@pytest.mark.parametrize(("status", "state"), [(200, "Prefect runs there"), (404, "used by another program")])
def test_a_port_in_use_says_by_whom(status, state):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        finding = doctor.port(server.server_port, "Prefect", "/api/health")
        server.shutdown()
        thread.join()
    assert finding.state == state
    assert bool(finding.remedy) == (status != 200)
    assert doctor.port(server.server_port, "Prefect", "/api/health").state == "free for Prefect"


def test_the_command_ends_with_1_when_something_is_wrong(tmp_path, capsys):
    (tmp_path / "reports").touch()
    assert main(["doctor", "--root", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "WRONG reports/" in printed
    assert "-> move" in printed


def test_a_virtual_environment_that_was_moved_is_wrong(tmp_path):
    scripts = tmp_path / "new" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "python").touch()
    assert not doctor.environment(scripts).remedy  # no script beside it
    (scripts / "dvc").write_text(f"#!{scripts}/python\nimport dvc\n")
    assert not doctor.environment(scripts).remedy
    (scripts / "dvc").write_text(f"#!{tmp_path}/old/bin/python3\nimport dvc\n")
    assert f"delete {tmp_path / 'new'}" in doctor.environment(scripts).remedy
    (scripts / "dvc").write_text(f'#!/bin/sh\n\'\'\'exec\' "{tmp_path}/a long name/bin/python" "$0" "$@"\n')
    assert f"{tmp_path}/a long name/bin/python" in doctor.environment(scripts).state


def test_versions_are_compared_as_numbers():
    assert doctor.numbers("2.13.0+cpu") == (2, 13, 0)
    assert doctor.numbers("0.9.1") < doctor.numbers("0.151")
    assert doctor.numbers("unknown") == ()
