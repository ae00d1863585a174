"""`lightning serve` as a process: its address, curl, SIGTERM; and mistakes on its command line."""

import json
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from benchmarks.serving_throughput import serving
from c2c_lightning.cli import main
from tests.serving.served import ask
from tests.serving.test_model_catalogue import save


@pytest.fixture(scope="module")
def fuser(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("pair"), "sharer")


def refused(capsys: pytest.CaptureFixture[str], code: int, *args: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["serve", *args])
    assert end.value.code == code
    return " ".join(capsys.readouterr().err.split())


def test_mistakes_are_one_message(fuser: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "fuser" in refused(capsys, 2)
    assert "batch_window_ms" in refused(capsys, 2, "--fuser", fuser, "--batch_window_ms", "-1")
    assert "{topic}" in refused(capsys, 1, "--fuser", fuser, "--message_prompt", "{topic}")
    assert "/nowhere/fuser" in refused(capsys, 1, "--fuser", "/nowhere/fuser")
    assert "cannot listen on 127.0.0.1:99999" in refused(capsys, 1, "--fuser", fuser, "--port", "99999")


def test_a_port_in_use_is_told_before_models_are_loaded(fuser: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for command in (["serve", "--fuser", fuser], ["sharer", "--model", "embedded:sharer"]):
            with pytest.raises(SystemExit):
                main([*command, "--port", port])
            said = capsys.readouterr().err
            assert f"cannot listen on 127.0.0.1:{port}" in said
            assert "loading" not in said


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.slow
def test_curl_reads_an_answer_and_a_stream(fuser: str) -> None:
    with serving("--fuser", fuser) as (url, _):
        body = {"model": "c2c", "messages": ask("What is the capital of Nepi?"), "max_tokens": 8}
        whole = json.loads(curl(url, body))["choices"][0]["message"]["content"]
        lines = [line for line in curl(url, {**body, "stream": True}).splitlines() if line]
        assert lines[-1] == "data: [DONE]"
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
        assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == whole
        assert chunks[-1]["usage"]["completion_tokens"] > 0


def curl(url: str, body: dict[str, object]) -> str:
    command = ["curl", "-sSN", f"{url}/v1/chat/completions", "-H", "Content-Type: application/json"]
    return subprocess.run([*command, "-d", json.dumps(body)], check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_sigterm_ends_within_ten_seconds_and_running_answers_are_told(fuser: str) -> None:
    with serving("--fuser", fuser, "--max_tokens", "480") as (url, process):
        lines: list[str] = []
        body = {"model": "c2c", "messages": ask("Hi"), "max_tokens": 480, "stream": True, "n": 16, "temperature": 2}
        reader = threading.Thread(target=lambda: lines.extend(stream(url, body)))
        reader.start()
        while not lines:
            time.sleep(0.01)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert time.monotonic() - start < 10
        reader.join(5)
    assert lines[-1] == "data: [DONE]"
    reasons = [json.loads(line.removeprefix("data: "))["choices"][0]["finish_reason"] for line in lines[:-1]]
    assert sum(reason is not None for reason in reasons) == 16


def stream(url: str, body: dict[str, object]) -> Iterator[str]:
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as response:
        yield from (line for line in response.iter_lines() if line)


@pytest.mark.slow
def test_a_thousand_connections_that_say_nothing_keep_nobody_out(fuser: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1100:
        pytest.skip(f"only {hard} files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with serving("--fuser", fuser) as (url, process):
        host, port = url.removeprefix("http://").split(":")
        silent = [socket.create_connection((host, int(port)), timeout=20) for _ in range(1000)]
        for number, connection in enumerate(silent):
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"[: 1 + number % 40])
        body = {"model": "c2c", "messages": ask("Hi"), "max_tokens": 4}
        for _ in range(3):
            assert httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30).status_code == 200
        for connection in silent:
            connection.close()
        assert httpx.get(f"{url}/health", timeout=30).json()["running"] == 0
        assert process.poll() is None
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
