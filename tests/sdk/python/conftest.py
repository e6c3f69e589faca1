"""Starts the gateway for the tests: the real binary over its built-in simulator, on free loopback ports."""

import os
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
# Every secret of the suites holds these words, so that leaks can be looked for.
KEY = "sk-canary-of-a-client-0123456789"
# Where the test command looks for them; else nothing is kept.
TRACES = pathlib.Path(os.environ["GEMWAY_TEST_TRACES"]) if "GEMWAY_TEST_TRACES" in os.environ else None

CONFIG = """
[[sites]]
name = "simulator"
kind = "simulator"

[simulator]
time_to_first_token = "1ms"
tokens_per_second = 2000

[aliases]
"gpt-5.5" = "gemini-2.5-flash"
"""


@dataclass
class Gateway:
    url: str
    admin: str
    process: subprocess.Popen
    log: pathlib.Path

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=5) as page:
            return page.read().decode()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def launch(folder: pathlib.Path, **extra: str) -> Gateway:
    binary = os.environ.get("GEMWAY_BIN", str(ROOT / "target" / "debug" / "gemway"))
    port, admin = free_port(), free_port()
    unwanted = ("GEMINI_", "GOOGLE_", "GEMWAY_", "OPENAI_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    env |= {"GEMWAY_LISTEN": f"127.0.0.1:{port}", "GEMWAY_ADMIN_LISTEN": f"127.0.0.1:{admin}", **extra}
    path = TRACES / f"sdk-{os.getpid()}-{port}.log" if TRACES else folder / "gateway.log"
    with open(path, "wb") as log:
        process = subprocess.Popen([binary, "serve"], env=env, stdout=log, stderr=log, cwd=folder)
    gateway = Gateway(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}", process, path)
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"{gateway.admin}/readyz", timeout=1) as answer:
                if answer.status == 200:
                    return gateway
        except (urllib.error.URLError, OSError):
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.exit("the gateway did not start:\n" + path.read_text(), returncode=1)
        time.sleep(0.05)


def land(gateway: Gateway) -> None:
    if TRACES:
        (TRACES / f"sdk-{os.getpid()}-{gateway.process.pid}.metrics").write_text(gateway.metrics())
    gateway.process.terminate()
    try:
        code = gateway.process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        gateway.process.kill()
        raise AssertionError("the gateway did not stop on SIGTERM") from None
    assert code == 0, f"the gateway exited with {code} on SIGTERM"


@pytest.fixture(scope="session")
def gateway(tmp_path_factory):
    """As a newcomer starts it: no credential, no configuration, no client keys."""
    started = launch(tmp_path_factory.mktemp("open"))
    yield started
    land(started)


@pytest.fixture(scope="session")
def closed(tmp_path_factory):
    """With a configuration file and a client key."""
    folder = tmp_path_factory.mktemp("closed")
    (folder / "gemway.toml").write_text(CONFIG)
    started = launch(folder, GEMWAY_CONFIG=str(folder / "gemway.toml"), GEMWAY_API_KEYS=KEY)
    yield started
    land(started)


@pytest.fixture
def client(gateway):
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="canary-of-nobody", max_retries=0, timeout=30) as made:
        yield made


@pytest.fixture
def strict(gateway):
    """The SDK as it checks every reply against its own types, which it does not by default."""
    with openai.OpenAI(
        base_url=f"{gateway.url}/v1",
        api_key="canary-of-nobody",
        max_retries=0,
        timeout=30,
        _strict_response_validation=True,
    ) as made:
        yield made
