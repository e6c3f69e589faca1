"""Clients that everybody has, at every kind of listener: curl, openssl, and the official SDK over a Unix socket."""

import shutil
import ssl
import subprocess

import httpx
import openai
import pytest
from conftest import KEY, scrape, until

ASK = {"model": "gemini-2.5-flash", "messages": [{"role": "user", "content": "Hello"}]}


def run(*command, text=None):
    return subprocess.run(command, capture_output=True, text=True, input=text, timeout=30)


def authority(folder, name):
    """A self-signed authority."""
    made = run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", f"/CN={name}", "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt",
    )
    assert made.returncode == 0, made.stderr


def certificate(folder, name, signer, subject):
    """A certificate for localhost."""
    ask = run(
        "openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={subject}",
        "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.csr",
    )
    assert ask.returncode == 0, ask.stderr
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    made = run(
        "openssl", "x509", "-req", "-in", f"{folder}/{name}.csr", "-CA", f"{folder}/{signer}.crt", "-CAkey",
        f"{folder}/{signer}.key", "-CAcreateserial", "-days", "2", "-extfile", f"{folder}/names", "-out", f"{folder}/{name}.crt",
    )
    assert made.returncode == 0, made.stderr


@pytest.fixture
def secured(gateways, tmp_path):
    for tool in ("curl", "openssl"):
        assert shutil.which(tool), f"{tool} is needed; scripts/test installs it"
    authority(tmp_path, "ours")
    authority(tmp_path, "clients")
    certificate(tmp_path, "server", "ours", "first")
    certificate(tmp_path, "client", "clients", "team-a")
    more = (
        f'[tls]\ncert = "{tmp_path}/server.crt"\nkey = "{tmp_path}/server.key"\nclient_ca = "{tmp_path}/clients.crt"\n'
    )
    return gateways(more=more)


def curl(gateway, folder, *more):
    url = f"https://localhost:{gateway.port}/v1/models"
    command = ["curl", "-sS", "--noproxy", "*", "--cacert", f"{folder}/ours.crt", "-o", "/dev/null"]
    return run(*command, "-w", "%{http_code} %{http_version}", *more, url)


def test_curl_and_openssl_meet_tls(secured, tmp_path):
    mine = ["--cert", f"{tmp_path}/client.crt", "--key", f"{tmp_path}/client.key"]
    assert curl(secured, tmp_path, *mine).stdout == "200 2"
    assert curl(secured, tmp_path, *mine, "--http1.1").stdout == "200 1.1"
    assert curl(secured, tmp_path).returncode != 0, "let in without a certificate"
    strange = ["--cert", f"{tmp_path}/server.crt", "--key", f"{tmp_path}/server.key"]
    assert curl(secured, tmp_path, *strange).returncode != 0, "let in with a certificate of another authority"

    def shown(*more):
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{secured.port}", "-CAfile", f"{tmp_path}/ours.crt"]
        return run(*command, "-alpn", "h2", *more, text="").stdout

    for version in ("-tls1_2", "-tls1_3"):
        told = shown(version)
        assert "Verify return code: 0" in told and "ALPN protocol: h2" in told, told
    assert "Cipher is (NONE)" in shown("-tls1_1")
    # Another certificate, and the gateway is told.
    assert "CN = first" in shown() or "CN=first" in shown()
    certificate(tmp_path, "server", "ours", "second")
    secured.reload()
    until(lambda: "CN = second" in shown() or "CN=second" in shown())
    assert curl(secured, tmp_path, *mine).stdout == "200 2"


def test_the_sdk_shows_its_certificate(secured, tmp_path):
    context = ssl.create_default_context(cafile=f"{tmp_path}/ours.crt")
    context.load_cert_chain(f"{tmp_path}/client.crt", f"{tmp_path}/client.key")
    with httpx.Client(verify=context) as http:
        client = openai.OpenAI(base_url=f"https://localhost:{secured.port}/v1", api_key=KEY, http_client=http)
        chunks = list(client.chat.completions.create(**ASK, stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_the_sdk_and_curl_over_a_unix_socket(gateways, tmp_path):
    path = tmp_path / "gemway.sock"
    gateway = gateways(listen=f"unix:{path}")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as http:
        client = openai.OpenAI(base_url="http://localhost/v1", api_key=KEY, http_client=http)
        assert client.chat.completions.create(**ASK).choices[0].message.content
        assert list(client.chat.completions.create(**ASK, stream=True))[-1].choices[0].finish_reason == "stop"
    done = run("curl", "-sS", "--unix-socket", str(path), "-w", "%{http_code}", "-o", "/dev/null", "http://localhost/v1/models")
    assert done.stdout == "200", done.stderr
    assert "gemway_http_requests_total" in scrape(gateway.admin)
    gateway.terminate()
    assert gateway.process.wait(timeout=30) == 0 and not path.exists()
