"""Who watches: a real Prometheus with the files of compose.yaml, and a collector that reads OTLP as it is defined."""

import http.server
import json
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import yaml
from conftest import ROOT, free_port, status, until
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from test_manifests import dashboard, queries

DEPLOY = ROOT / "deploy"


def chat(gateway, model="gemini-2.5-flash", stream=True, headers=None):
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "one two three"}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{gateway.port}/v1/chat/completions", json.dumps(body).encode(), headers or {}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def asked(port, path, **parameters):
    url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        told = json.load(answer)
    assert told["status"] == "success", told
    return told["data"]


def test_compose_is_whole():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"gemway", "redis", "prometheus", "grafana"}
    for name, service in services.items():
        assert ("image" in service) != ("build" in service), name
        for volume in service.get("volumes", []):
            source, _, mode = volume.split(":")
            assert (DEPLOY / source).exists() and mode == "ro", volume
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is open to everybody"
        assert set(service.get("depends_on", [])) <= set(services)
    # The names by which they call each other are services.
    (target,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target == "gemway:9090"
    assert "redis://redis:6379" in (DEPLOY / "compose.toml").read_text()
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"


def test_prometheus_and_redis_as_compose_joins_them(gateways, run, tmp_path):
    """The same four files, with the addresses of this machine in place of the services' names."""
    redis, port = free_port(), free_port()
    command = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["redis"]["command"]
    run(*command, "--port", str(redis), "--bind", "127.0.0.1", "--dir", str(tmp_path))
    shared = (DEPLOY / "compose.toml").read_text().replace("redis:6379", f"127.0.0.1:{redis}")
    gateway = gateways(more=shared.replace("[limits]\n", '[limits]\nstore_timeout = "2s"\n'))
    settings = (DEPLOY / "prometheus/prometheus.yaml").read_text()
    settings = settings.replace("gemway:9090", f"127.0.0.1:{gateway.admin}").replace("15s", "1s")
    (tmp_path / "prometheus.yaml").write_text(settings)
    shutil.copy(DEPLOY / "prometheus/rules.yaml", tmp_path)
    checked = subprocess.run(["promtool", "check", "config", str(tmp_path / "prometheus.yaml")], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    run("prometheus", f"--config.file={tmp_path}/prometheus.yaml", f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error")  # fmt: skip
    until(lambda: status(port, "/-/ready") == 200)
    for _ in range(5):
        assert b"[DONE]" in chat(gateway)
        time.sleep(0.5)
    up = lambda: asked(port, "query", query='up{job="gemway"}')["result"]
    until(lambda: up() and up()[0]["value"][1] == "1")
    until(lambda: asked(port, "query", query="gemway_http_requests_total")["result"])
    # Redis has counted them.
    admitted = asked(port, "query", query="gemway_ratelimit_store_duration_seconds_count")["result"]
    assert admitted and float(admitted[0]["value"][1]) >= 1
    # What the page asks for its variable, and every panel.
    assert asked(port, "label/job/values", **{"match[]": "gemway_build_info"}) == ["gemway"]
    answered = 0
    for query in queries(dashboard()):
        answered += bool(asked(port, "query", query=query.replace("[5m]", "[10s]"))["result"])
    assert answered > 15, answered
    groups = asked(port, "rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == sum(len(g["rules"]) for g in yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())["groups"])
    until(lambda: all(rule["health"] == "ok" for g in asked(port, "rules")["groups"] for rule in g["rules"]))
    firing = [alert["labels"]["alertname"] for alert in asked(port, "alerts")["alerts"] if alert["state"] == "firing"]
    assert not firing, firing


def test_a_collector_reads_the_spans_as_otlp_defines_them(gateways, monkeypatch):
    letters = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            letters.append((self.path, self.headers["content-type"], self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    gateway = gateways(more=f'[traces]\nendpoint = "http://127.0.0.1:{server.server_port}"\n')
    trace = "0af7651916cd43dd8448eb211c80319c"
    chat(gateway, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    until(lambda: letters)
    server.shutdown()
    path, media, body = letters[0]
    assert (path, media) == ("/v1/traces", "application/json")
    # Its strict reader refuses fields and values that the definition does not have. Ids are hexadecimal in OTLP's JSON,
    # where protobuf's own has base64: 32 and 16 digits are read as 24 and 12 bytes.
    read = json_format.Parse(body, ExportTraceServiceRequest())
    (resource,) = read.resource_spans
    (scope,) = resource.scope_spans
    request, call = scope.spans
    assert json.loads(body)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"] == trace
    assert (request.kind, call.kind) == (2, 3) and call.parent_span_id == request.span_id
    assert request.start_time_unix_nano <= call.start_time_unix_nano <= call.end_time_unix_nano <= request.end_time_unix_nano
    assert abs(request.start_time_unix_nano / 1e9 - time.time()) < 60
    told = {each.key: each.value for each in request.attributes}
    assert told["gen_ai.operation.name"].string_value == "chat"
    assert told["gen_ai.usage.output_tokens"].int_value > 0
    assert told["gen_ai.request.stream"].bool_value
    assert told["gen_ai.response.time_to_first_chunk"].double_value > 0
