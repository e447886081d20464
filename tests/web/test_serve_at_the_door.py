"""`loraloom serve` as it is typed: what it refuses, the one line that it prints, and its end."""

from __future__ import annotations

import http.cookiejar
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from growing import GrowingRun

from loraloom.cli.main import main


@pytest.mark.parametrize("kind", ["nothing there", "a file"])
def test_a_folder_that_cannot_be_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    place = tmp_path / "runs"
    if kind == "a file":
        place.write_text("")
    assert main(["serve", str(place), "--port", "0"]) == 2
    assert "next:" in capsys.readouterr().err


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["serve", str(tmp_path), "--port", str(other.getsockname()[1])]) == 2
    err = capsys.readouterr().err
    assert "is taken" in err and "--port 0" in err


@pytest.mark.skipif(os.name != "posix", reason="needs the signals of POSIX")
def test_one_address_is_printed_and_ctrl_c_is_no_fault(run: GrowingRun, root: Path) -> None:
    run.start("t000")
    command = [sys.executable, "-m", "loraloom", "serve", str(root), "--port", "0", "--read-only"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as server:
        assert server.stdout is not None and server.stderr is not None
        address = server.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:") and "/?token=" in address
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        with urllib.request.build_opener(jar).open(address, timeout=60) as page:
            assert "read only" in page.read().decode()
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
        assert (server.stdout.read(), server.stderr.read()) == ("", "")
