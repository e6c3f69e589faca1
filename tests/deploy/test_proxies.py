"""Real proxies in front: streams pass as they come, and a rolling restart behind HAProxy fails nobody."""

import http.client
import json
import shutil
import threading
import time

import pytest
import yaml
from conftest import ROOT, free_port, status, until
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManager

PROXIES = ROOT / "deploy/proxies"
WORDS = "one two three four five six seven eight nine ten eleven twelve"


def stream(port, timeout=30, words=WORDS):
    """One streamed chat: when its events came, and whether it ended as it should."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    body = {"model": "gemini-2.5-flash", "stream": True, "messages": [{"role": "user", "content": words}]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    times, seen = [], b""
    while chunk := response.read1(65536):
        times.append(time.monotonic())
        seen += chunk
    connection.close()
    return response.status, times, seen


def complete(status_, _, seen):
    assert status_ == 200 and seen.endswith(b"data: [DONE]\n\n"), (status_, seen[-200:])


def check(status_, times, seen):
    complete(status_, times, seen)
    # Twelve words at twenty a second: what is held back would come at once.
    assert len(times) >= 6 and times[-1] - times[0] > 0.3, f"{len(times)} reads"


def config_with_ports(name, tmp_path, ports):
    text = (PROXIES / name).read_text()
    for old, new in ports.items():
        assert str(old) in text
        text = text.replace(str(old), f"<{old}>")
    for old, new in ports.items():
        text = text.replace(f"<{old}>", str(new))
    path = tmp_path / name
    path.write_text(text)
    return path


def test_nginx_holds_nothing_back(gateways, run, tmp_path):
    gateway, port = gateways(pace="20"), free_port()
    site = config_with_ports("nginx.conf", tmp_path, {8080: gateway.port, 8081: port})
    whole = tmp_path / "whole.conf"
    whole.write_text(
        f"daemon off; pid {tmp_path}/nginx.pid; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;\n"
        f"fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;\n"
        f"include {site};\n}}\n"
    )
    run(shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin"), "-c", str(whole))
    until(lambda: status(port, "/") == 200)
    check(*stream(port))


def test_envoy_would_take_its_file():
    """No Envoy is at hand: the file is read with its own definitions, which know every field and every word."""
    whole = yaml.safe_load((PROXIES / "envoy.yaml").read_text())
    filters = []

    def plain(value):
        if isinstance(value, dict):
            filters.append(value["typed_config"]) if "typed_config" in value else None
            return {key: plain(each) for key, each in value.items() if key != "typed_config"}
        return [plain(each) for each in value] if isinstance(value, list) else value

    kinds = {"HttpConnectionManager": HttpConnectionManager, "Router": Router}
    Bootstrap.from_dict(plain(whole))
    seen = []
    while filters:
        config = filters.pop()
        name = config["@type"].rsplit(".", 1)[1]
        kinds[name].from_dict(plain({key: value for key, value in config.items() if key != "@type"}))
        seen.append(name)
    assert sorted(seen) == ["HttpConnectionManager", "Router"]
    whole["static_resources"]["clusters"][0]["lb_polcy"] = "LEAST_REQUEST"
    with pytest.raises(KeyError):
        Bootstrap.from_dict(plain(whole))


def test_haproxy_holds_nothing_back_and_a_rolling_restart_fails_nobody(gateways, run, tmp_path, capsys):
    pair, port = [gateways(pace="20"), gateways(pace="20")], free_port()
    ports = {8080: pair[0].port, 9090: pair[0].admin, 8082: pair[1].port, 9092: pair[1].admin, 8081: port}
    config = config_with_ports("haproxy.cfg", tmp_path, ports)
    run(shutil.which("haproxy", path="/usr/sbin:/usr/bin"), "-f", str(config), "-db")
    until(lambda: status(port, "/") == 200)
    check(*stream(port))

    stop, served, failed = threading.Event(), {"short": 0, "long": 0}, []

    def client(number):
        # One in four asks for a stream of some five seconds, which outlasts the gateway that it begins on.
        length, words = ("long", " ".join([WORDS] * 8)) if number % 4 == 0 else ("short", WORDS)
        while not stop.is_set():
            try:
                # How the events are spread is the other test's; a busy machine bunches them.
                complete(*stream(port, words=words))
                served[length] += 1
            except Exception as error:  # Whatever goes wrong is what the test counts.
                failed.append(repr(error))

    clients = [threading.Thread(target=client, args=[number]) for number in range(20)]
    for each in clients:
        each.start()
    for gateway in pair * 2:
        time.sleep(1)
        gateway.terminate()
        assert gateway.process.wait(timeout=30) == 0
        gateway.start()
        # HAProxy has to notice that it is back before the other one goes.
        time.sleep(1.5)
    stop.set()
    for each in clients:
        each.join()
    with capsys.disabled():
        print(f"\nfour restarts: {served['short']} short streams and {served['long']} long ones served, {len(failed)} failed")
    assert not failed, failed[:3]
    assert served["short"] > 100 and served["long"] > 5, served
