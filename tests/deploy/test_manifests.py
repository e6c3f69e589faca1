"""Every file under deploy/ is what its reader takes: Kubernetes' schemas, Helm, promtool, the gateway itself."""

import json
import os
import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.prometheus_operator import v1 as prometheus
from conftest import BINARY, ROOT

DEPLOY = ROOT / "deploy"
TOOLS = os.environ.get("GEMWAY_KUBE_TOOLS", "")
VERSIONS = ["1.30", "1.37"]


def tool(name):
    found = shutil.which(name, path=f"{TOOLS}:{os.environ['PATH']}")
    assert found, f"{name} is needed; scripts/test installs it"
    return found


def out(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def rendered(kind):
    if kind.startswith("helm"):
        flags = ["--set", "podMonitor.enabled=true", "--set", "redis.enabled=true"] if "full" in kind else []
        text = out(tool("helm"), "template", "release", str(DEPLOY / "helm/gemway"), *flags)
    else:
        text = out(tool("kubectl"), "kustomize", str(DEPLOY / "k8s" / kind))
    return [each for each in yaml.safe_load_all(text) if each]


def monitored(manifest):
    """What the Prometheus operator's own types take; what they do not know falls out on the way."""
    read = prometheus.PodMonitor.model_validate(manifest).model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert read == manifest


def of_kind(objects, kind):
    return [each for each in objects if each["kind"] == kind]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["fleet", "example", "helm", "helm full"])
def test_kubernetes_takes_them(kind, version):
    objects = rendered(kind)
    assert of_kind(objects, "Deployment")
    for each in objects:
        if each["kind"] == "PodMonitor":
            monitored(each)
        else:
            kubernetes_validate.validate(each, version, strict=True)
    for name in ["redis.yaml"]:
        for each in yaml.safe_load_all((DEPLOY / "k8s/fleet" / name).read_text()):
            kubernetes_validate.validate(each, version, strict=True)


def test_a_wrong_manifest_would_be_noticed():
    wrong = of_kind(rendered("fleet"), "Deployment")[0]
    wrong["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_the_pod_monitor_is_one():
    (plain,) = yaml.safe_load_all((DEPLOY / "k8s/fleet/podmonitor.yaml").read_text())
    monitored(plain)
    (charted,) = of_kind(rendered("helm full"), "PodMonitor")
    ports = {port["name"] for each in of_kind(rendered("helm full"), "Deployment")
             for port in each["spec"]["template"]["spec"]["containers"][0]["ports"]}
    assert {each["port"] for each in charted["spec"]["podMetricsEndpoints"]} <= ports
    for wrong in [{"podMetricsEndpointz": []}, {"podMetricsEndpoints": [{"port": 5}]}]:
        with pytest.raises((AssertionError, ValueError)):
            monitored({**plain, "spec": {**plain["spec"], **wrong}})


def test_the_chart_and_the_kustomization_run_the_same():
    def pods(kind):
        deployment = of_kind(rendered(kind), "Deployment")[0]
        spec = deployment["spec"]["template"]["spec"]
        container = dict(spec["containers"][0])
        container.pop("imagePullPolicy", None)
        return container, spec["securityContext"], spec["terminationGracePeriodSeconds"]

    assert pods("helm") == pods("fleet")


def test_the_chart_refuses_unknown_values():
    done = subprocess.run(
        [tool("helm"), "template", "r", str(DEPLOY / "helm/gemway"), "--set", "replicass=3"], capture_output=True
    )
    assert done.returncode != 0


def test_the_sidecar_is_native_and_closed():
    spec = of_kind(rendered("example"), "Deployment")[0]["spec"]["template"]["spec"]
    sidecar = spec["initContainers"][0]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"] and sidecar["readinessProbe"] and sidecar["livenessProbe"]
    assert "127.0.0.1:8080" in sidecar["args"]
    assert not any("subPath" in mount for mount in sidecar["volumeMounts"])


@pytest.mark.parametrize("kind", ["fleet", "example", "helm full"])
def test_pods_are_locked_down(kind):
    for deployment in of_kind(rendered(kind), "Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"] + spec.get("initContainers", []):
            pod, own = spec.get("securityContext", {}), container["securityContext"]
            assert own["readOnlyRootFilesystem"] and own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert own.get("runAsNonRoot", pod.get("runAsNonRoot")) is True
            assert own.get("seccompProfile", pod.get("seccompProfile")) == {"type": "RuntimeDefault"}
            assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize(
    "path", ["k8s/fleet/gemway.toml", "k8s/sidecar/gemway.toml", "compose.toml", "config.example.toml"]
)
def test_configurations_are_right(path, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("a-secret-of-some-length-for-a-test")
    text = (DEPLOY / path).read_text()
    text = re.sub(r"file:/etc/gemway-secret/[a-z-]+", f"file:{secret}", text)
    config = tmp_path / "gemway.toml"
    config.write_text(text)
    environment = {"GEMINI_API_KEY": "x", "TEAM_A_KEY": "a-client-key-of-some-length"}
    done = subprocess.run([BINARY, "check", "--config", str(config)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_the_charts_configuration_is_the_fleets():
    values = yaml.safe_load((DEPLOY / "helm/gemway/values.yaml").read_text())
    plain = (DEPLOY / "k8s/fleet/gemway.toml").read_text()
    kept = [line for line in plain.splitlines() if line.strip() and not line.startswith("#")]
    assert [line for line in values["config"].splitlines() if line.strip()] == kept


def test_rules_fire_and_stay_quiet():
    folder = DEPLOY / "prometheus"
    out(tool("promtool"), "check", "rules", str(folder / "rules.yaml"))
    out(tool("promtool"), "test", "rules", str(folder / "rules.test.yaml"))
    rules = yaml.safe_load((folder / "rules.yaml").read_text())
    runbook = (ROOT / "docs/runbook.md").read_text()
    tested = (folder / "rules.test.yaml").read_text()
    for rule in rules["groups"][1]["rules"]:
        assert f"## {rule['alert']}\n" in runbook, rule["alert"]
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert tested.count(f"alertname: {rule['alert']}\n") >= 2, rule["alert"]


def known_metrics():
    readme = (ROOT / "README.md").read_text()
    names = set(re.findall(r"^\| `([a-z_]+)` \| (?:counter|gauge|histogram) \|", readme, re.M))
    assert len(names) > 15
    process = {f"process_{end}" for end in ("open_fds", "max_fds", "resident_memory_bytes", "cpu_seconds_total")}
    return names | process | {"up"}


def named(expression):
    words = re.sub(r'"[^"]*"', "", re.sub(r"\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)", "", expression))
    found = re.findall(r"\b(?:gemway|gen_ai|process|tokio)_[a-z_]+", words)
    return {re.sub(r"_bucket$", "", name) for name in found}


def dashboard():
    return json.loads((DEPLOY / "grafana/dashboard.json").read_text())


def queries(board):
    """Every query of a dashboard, those of its variables included, as Prometheus would be asked."""
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            (metric,) = re.fullmatch(r"label_values\((.+), *[a-z_]+\)", variable["query"]).groups()
            asked.append(metric)
    for every in board.get("annotations", {}).get("list", []):
        asked += [every["expr"]] if "expr" in every else []
    names = {f"${each['name']}" for each in board["templating"]["list"]}
    for each in asked:
        assert set(re.findall(r"\$[a-z_]+", each)) <= names | {"$__rate_interval"}, each
    return [each.replace("$__rate_interval", "5m").replace("$job", ".*") for each in asked]


def test_dashboard_and_rules_name_metrics_that_exist(tmp_path):
    board = dashboard()
    assert board["uid"] and board.get("id") is None and board["schemaVersion"]
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in board["panels"])
    # No data source but the one that is chosen on the page.
    sources = [panel["datasource"]["uid"] for panel in board["panels"]]
    assert set(sources) == {"${datasource}"}
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in board["panels"]})
    plain = queries(board)
    rules = {"groups": [{"name": "dashboard", "rules": [{"record": f"r{n}", "expr": e} for n, e in enumerate(plain)]}]}
    (tmp_path / "dashboard.yaml").write_text(yaml.safe_dump(rules))
    out(tool("promtool"), "check", "rules", str(tmp_path / "dashboard.yaml"))
    for group in yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())["groups"]:
        plain += [rule["expr"] for rule in group["rules"]]
    used = set().union(*(named(each) for each in plain))
    assert len(used) > 15
    assert used <= known_metrics(), used - known_metrics()
    # A metric that nobody looks at is not wrong; the list is worth a look.
    print("neither on the dashboard nor in a rule:", sorted(known_metrics() - used))


def test_prometheus_takes_the_scrape(gateways):
    import urllib.request

    gateway = gateways()
    body = b'{"model":"gemini-2.5-flash","messages":[{"role":"user","content":"a"}],"stream":true}'
    urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/v1/chat/completions", body).read()
    scrape = urllib.request.urlopen(f"http://127.0.0.1:{gateway.admin}/metrics").read()
    done = subprocess.run([tool("promtool"), "check", "metrics"], input=scrape, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    shown = set(re.findall(r"^# TYPE (\S+)", scrape.decode(), re.M))
    ours = {name for name in shown if not name.startswith("process_")}
    assert ours <= known_metrics(), ours - known_metrics()


def test_every_yaml_parses():
    for path in DEPLOY.rglob("*.yaml"):
        if "templates" not in path.parts:
            list(yaml.safe_load_all(path.read_text()))
