"""A host of one's own: the unit is what systemd takes, and the steps of deploy/README.md work as they are written."""

import os
import re
import shutil
import subprocess

import pytest
from conftest import BINARY, ROOT, TRACES, free_port, scrape, status, until

DEPLOY = ROOT / "deploy"
CANARY = "canary-of-google-0123456789"


def blocks(title):
    """The shell blocks below a heading of deploy/README.md."""
    text = (DEPLOY / "README.md").read_text()
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.M | re.S).group(1)
    return re.findall(r"```sh\n(.*?)```", section, re.S)


def unit(tmp_path, text):
    path = tmp_path / "gemway.service"
    path.write_text(text.replace("/usr/local/bin/gemway", BINARY))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True)
    # What it does not understand is a warning to systemd, and its exit code does not tell.
    return done.returncode, [line for line in done.stderr.splitlines() if "gemway.service" in line]


def test_systemd_takes_the_unit_and_finds_it_closed(tmp_path):
    assert shutil.which("systemd-analyze"), "systemd is needed; scripts/test installs it"
    text = (DEPLOY / "systemd/gemway.service").read_text()
    assert unit(tmp_path, text) == (0, [])
    for right, wrong in [("NoNewPrivileges", "NoNewPrivilegez"), ("TimeoutStopSec=630", "TimeoutStopSec=long")]:
        assert unit(tmp_path, text.replace(right, wrong))[1], wrong
    unit(tmp_path, text)
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager"]
    done = subprocess.run([*command, str(tmp_path / "gemway.service")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-400:] + done.stderr


def test_the_machine_of_the_readme(tmp_path):
    """Its very commands, below a root of the test's own and without systemctl; then what the unit would start."""
    root = tmp_path / "root"
    for folder in ("etc/systemd/system", "usr/local/bin", "run/credentials/gemway.service"):
        (root / folder).mkdir(parents=True)
    (block,) = blocks("A machine")
    script, starts = block.replace("target/release/gemway", BINARY), "systemctl enable --now gemway"
    assert starts in script
    script = re.sub(r"(?<=[\s/])/?(etc|usr/local)/", lambda found: f"{root}/{found.group(1)}/", script.replace(starts, "true"))
    script = script.replace(f" && {starts}", "").replace(" /etc", f" {root}/etc")
    environment = {"PATH": os.environ["PATH"], "GEMINI_API_KEY": CANARY}
    done = subprocess.run(["bash", "-euc", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    key = root / "etc/gemway/api-key"
    assert key.read_text().strip() == CANARY and key.stat().st_mode & 0o777 == 0o600
    # "and edit it": the site takes the credential that the unit hands over, the rest goes.
    config = root / "etc/gemway/gemway.toml"
    assert "[[sites]]" in config.read_text()
    credential = "/run/credentials/gemway.service/api-key"
    assert credential in (DEPLOY / "README.md").read_text()
    config.write_text(f'[[sites]]\nname = "studio"\nkind = "gemini_api"\napi_key = "file:{root}{credential}"\n')
    shutil.copy(key, f"{root}{credential}")
    installed = (root / "etc/systemd/system/gemway.service").read_text()
    (start,) = re.findall(r"^ExecStart=(.*)$", installed, re.M)
    command = [word.replace("/usr/local", f"{root}/usr/local").replace("/etc", f"{root}/etc") for word in start.split()]
    port, admin = free_port(), free_port()
    listen = {"GEMWAY_LISTEN": f"127.0.0.1:{port}", "GEMWAY_ADMIN_LISTEN": f"127.0.0.1:{admin}"}
    log = open((TRACES or tmp_path) / f"machine-{port}.log", "ab")
    process = subprocess.Popen(command, env={**environment, **listen}, cwd=tmp_path, stderr=log)
    try:
        until(lambda: status(admin, "/readyz") == 200)
        # ExecReload, as the unit has it.
        (reload,) = re.findall(r"^ExecReload=(.*)$", installed, re.M)
        subprocess.run(reload.replace("$MAINPID", str(process.pid)).split(), check=True)
        taken = 'gemway_config_reloads_total{result="taken"} 1'
        until(lambda: taken in scrape(admin))
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("title", ["A sidecar", "A fleet"])
def test_what_the_readme_applies_exists(title):
    (block,) = blocks(title)
    for path in re.findall(r"(?:apply -k|install gemway) (\S+)", block):
        assert (ROOT / path).is_dir(), path
    made = set(re.findall(r"--from-literal=([a-z-]+)=", block))
    where = "sidecar" if title == "A sidecar" else "fleet"
    wanted = set(re.findall(r"file:/etc/gemway-secret/([a-z-]+)", (DEPLOY / f"k8s/{where}/gemway.toml").read_text()))
    assert made == wanted
