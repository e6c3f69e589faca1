"""What the deployment tests share: the binary, free ports, and processes that end with their test."""

import http.client
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Where the test command looks for secrets; `canary` is in every one of them.
TRACES = pathlib.Path(os.environ["GEMWAY_TEST_TRACES"]) if "GEMWAY_TEST_TRACES" in os.environ else None
KEY = "sk-canary-of-a-client-0123"
BINARY = os.environ.get("GEMWAY_BIN", str(ROOT / "target/debug/gemway"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def status(port, path):
    """The status of a GET, or None where nobody answers."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        return page.read().decode()


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come to pass in time")


class Gateway:
    """One gemway over its simulator. `more` is the rest of its configuration."""

    def __init__(self, folder, pace="100", ttft="50ms", min_drain="1500ms", more="", listen=None):
        self.port, self.admin = free_port(), free_port()
        self.listen = listen or f"127.0.0.1:{self.port}"
        self.config = folder / f"gemway-{self.port}.toml"
        self.config.write_text(
            f'[server]\nmin_drain = "{min_drain}"\n[simulator]\n'
            f'time_to_first_token = "{ttft}"\ntokens_per_second = {pace}\n{more}'
        )
        self.name = TRACES / f"deploy-{os.getpid()}-{self.port}" if TRACES else folder / f"gemway-{self.port}"
        self.log = open(f"{self.name}.log", "ab")
        self.process = None
        self.start()

    def start(self):
        arguments = ["serve", "--config", str(self.config)]
        arguments += ["--listen", self.listen, "--admin-listen", f"127.0.0.1:{self.admin}"]
        environment = {"PATH": os.environ["PATH"]}
        self.process = subprocess.Popen([BINARY, *arguments], env=environment, stdout=self.log, stderr=self.log)
        until(lambda: status(self.admin, "/readyz") == 200)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def kill(self):
        if self.process.poll() is None:
            if TRACES:
                pathlib.Path(f"{self.name}.metrics").write_text(scrape(self.admin))
            self.process.kill()
        self.process.wait()
        self.log.close()


@pytest.fixture
def gateways(tmp_path):
    """Makes gateways that end with the test."""
    made = []

    def make(**settings):
        made.append(Gateway(tmp_path, **settings))
        return made[-1]

    yield make
    for gateway in made:
        gateway.kill()


@pytest.fixture
def run(tmp_path):
    """Starts servers that end with the test."""
    started = []

    def start(*command):
        log = open(tmp_path / "server.log", "ab")
        started.append(subprocess.Popen(command, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=10)
