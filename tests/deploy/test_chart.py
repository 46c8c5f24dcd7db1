"""The chart and the manifests: what Kubernetes would refuse is refused here, and the two are the same."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helm_python import Chart, HelmError, HelmRenderError, lint

from deployment_files import CHART, MANIFESTS, ROOT, VALUES, Object, image_of, manifests, pods, rendered
from loramill.settings import Settings

KUBERNETES = ["1.29", "1.35"]
OTHERS_KINDS = {"ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PodMonitor", "Kustomization"}
"""Kinds that Kubernetes itself does not know, so that no schema of it can check them."""

OF_A_POD = {"LORAMILL_HOME", "API_PORT", "UI_PORT", "INFERENCE_PORT", "REDIS_PORT"}
"""Settings that are the same in every pod: its image's folder and ports."""

SOURCES = {"manifests": manifests, **{name: lambda name=name: rendered(name) for name in VALUES}}


@pytest.fixture(params=SOURCES)
def found(request: pytest.FixtureRequest) -> tuple[Object, ...]:
    objects: tuple[Object, ...] = SOURCES[request.param]()
    assert len(objects) > 20
    return objects


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_every_object(found: tuple[Object, ...], version: str) -> None:
    for one in found:
        if one["kind"] not in OTHERS_KINDS:
            kubernetes_validate.validate(one, version, strict=True)


def test_a_wrong_object_would_be_noticed() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"selectors": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES[0], strict=True)


@pytest.mark.parametrize("values", VALUES)
def test_helm_has_no_complaint(values: str) -> None:
    report = lint(CHART, yaml.safe_load((CHART / values).read_text(encoding="utf-8")), strict=True)
    serious = [message for message in report["messages"] if message["severity"] >= 2]
    assert (serious, report["errors"]) == ([], [])


def test_the_manifests_are_what_the_chart_renders() -> None:
    spec = importlib.util.spec_from_file_location("render_manifests", ROOT / "scripts" / "render_manifests.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    written = {file.name: file.read_text(encoding="utf-8") for file in MANIFESTS.glob("*.yaml")}
    assert {name: text for name, text in written.items() if name not in script.BY_HAND} == script.render_manifests()
    listed = yaml.safe_load(written["kustomization.yaml"])["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(written)


def test_an_upload_has_room_in_the_pods_that_it_goes_through(found: tuple[Object, ...]) -> None:
    """The page holds the file as a whole; the API reads two at a time, of a million rows say, in 1.1 GB each."""
    config = next(one["data"] for one in found if one["metadata"]["name"] == "loramill-config")
    limits = {name: pod["containers"][0]["resources"]["limits"]["memory"] for name, pod in pods(found).items()}
    assert int(limits["loramill-ui"].removesuffix("Gi")) * 1024 >= 2 * int(config["LORAMILL_UPLOAD_LIMIT_MB"])
    assert int(limits["loramill-api"].removesuffix("Gi")) >= 3


def test_pods_are_restricted(found: tuple[Object, ...]) -> None:
    """The "restricted" profile of Kubernetes' pod security standards, and a root file system that is read-only."""
    for pod in pods(found).values():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
        assert all(set(volume) & {"persistentVolumeClaim", "emptyDir"} for volume in pod.get("volumes", []))
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_pods_have_no_identity_and_no_variables_named_after_services(found: tuple[Object, ...]) -> None:
    """A service called api would set API_PORT to an address, and every command would refuse to start."""
    for pod in pods(found).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
    accounts = [one for one in found if one["kind"] == "ServiceAccount"]
    assert [account["automountServiceAccountToken"] for account in accounts] == [False]


def test_every_container_says_what_it_needs_and_how_it_is(found: tuple[Object, ...]) -> None:
    for name, pod in pods(found).items():
        (container,) = pod["containers"]
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        if "migrate" not in name:
            assert {"startupProbe", "readinessProbe"} <= container.keys()
            assert ("livenessProbe" in container) == ("worker" not in name)


def test_each_pod_gets_the_secrets_that_it_needs_and_no_other(found: tuple[Object, ...]) -> None:
    stores = {"DATABASE_URL", "REDIS_URL"}
    wanted = {
        "loramill-api": stores | {"JWT_SECRET", "LORAMILL_AUDIT_KEY", "LORAMILL_ADMIN_PASSWORD"},
        "loramill-ui": set(),
        "loramill-worker": stores,
        "loramill-worker-gpu": stores,
        "loramill-inference": {"DATABASE_URL", "JWT_SECRET", "LORAMILL_INFERENCE_KEY"},
        "loramill-redis": {"REDIS_PASSWORD"},
        "loramill-postgres": {"POSTGRES_PASSWORD"},
    }
    if published(found):
        wanted["loramill-api"] |= {"LORAMILL_METRICS_KEY"}
    for name, pod in pods(found).items():
        variables = pod["containers"][0].get("env", [])
        secrets = {one["name"] for one in variables if "valueFrom" in one}
        assert secrets == wanted.get(name, {"DATABASE_URL"}), name


def published(found: tuple[Object, ...]) -> bool:
    """Whether others than pods reach the API, so that network policies say no longer who reads its metrics."""
    return any(one["kind"] == "Ingress" for one in found)


def test_metrics_of_an_api_that_others_reach_need_a_key_which_prometheus_has(found: tuple[Object, ...]) -> None:
    (api,) = pods(found)["loramill-api"]["containers"]
    key = {"name": "loramill", "key": "LORAMILL_METRICS_KEY"}
    assert ({"name": key["key"], "valueFrom": {"secretKeyRef": key}} in api["env"]) == published(found)
    for monitor in found:
        if monitor["kind"] == "ServiceMonitor" and monitor["metadata"]["name"] == "loramill-api":
            assert monitor["spec"]["endpoints"][0]["authorization"] == {"credentials": key}


def test_every_setting_reaches_the_pods(found: tuple[Object, ...]) -> None:
    config = next(one["data"] for one in found if one["metadata"]["name"] == "loramill-config")
    known = {str(field.alias) for field in Settings.model_fields.values()}
    secrets = {one["name"] for pod in pods(found).values() for one in pod["containers"][0].get("env", [])}
    for_a_command = {"LORAMILL_NEW_PASSWORD"}
    for_an_ingress = set() if published(found) else {"LORAMILL_METRICS_KEY"}
    assert config.keys() | secrets >= known - OF_A_POD - for_a_command - for_an_ingress
    assert config.keys() <= known | {"TZ"}


def test_limits_are_those_of_settings_unless_values_say_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def settings(given: Object) -> Settings:
        with Chart.load(CHART) as chart:
            files = chart.render(given, name="loramill", namespace="loramill")
        (config,) = [text for path, text in files.items() if path.endswith("config.yaml")]
        for name, value in yaml.safe_load(config)["data"].items():
            monkeypatch.setenv(name, value)
        return Settings()

    usual, untouched = settings({}), Settings.model_fields
    for name in ("submit_limit", "request_limit", "upload_limit_mb", "audit_anchor", "job_seconds"):
        assert getattr(usual, name) == untouched[name].default, name
    changed = settings({"limits": {"submit": "5/hour", "uploadMb": 2_000_000}, "worker": {"jobSeconds": 5_000_000}})
    assert (changed.submit_limit, changed.upload_limit_mb, changed.job_seconds) == ("5/hour", 2_000_000, 5_000_000)


def test_prometheus_finds_and_reaches_the_workers() -> None:
    found = manifests()
    config = next(one["data"] for one in found if one["metadata"]["name"] == "loramill-config")
    template = next(
        one for one in found if one["kind"] == "Deployment" and one["metadata"]["name"] == "loramill-worker"
    )
    told = template["spec"]["template"]["metadata"]["annotations"]
    (port,) = template["spec"]["template"]["spec"]["containers"][0]["ports"]
    policy = next(
        one for one in found if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "loramill-worker"
    )
    (opened,) = policy["spec"]["ingress"][0]["ports"]
    assert config["LORAMILL_WORKER_METRICS_ADDRESS"] == "0.0.0.0"
    assert {told["prometheus.io/port"], str(port["containerPort"]), str(opened["port"])} == {
        config["LORAMILL_WORKER_METRICS_PORT"]
    }
    monitor = next(one for one in rendered("values.prod.yaml") if one["kind"] == "PodMonitor")
    assert [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]] == [port["name"]]


def test_no_secret_has_a_value(found: tuple[Object, ...]) -> None:
    assert not [one for one in found if one["kind"] == "Secret"]
    with Chart.load(CHART) as chart, pytest.raises(HelmRenderError, match="JWT_SECRET is required"):
        chart.render({"secret": {"create": True}}, name="loramill", namespace="loramill")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"worker": {"replica": 3}}, "replica"),
        ({"home": {"accessMode": "ReadWriteOncePod"}}, "accessMode"),  # API, workers and inference share it
        ({"api": {"autoscaling": {"minReplicas": 0}}}, "minReplicas"),
        ({"worker": {"keda": {"jobsPerWorker": 0}}}, "jobsPerWorker"),
        ({"ingress": {"hosts": {"page": "loramill.example.com"}}}, "page"),
        ({"ingress": {"enabled": True, "tlsSecret": "tls"}}, "ingress.hosts"),
        ({"image": {"pullSecrets": ["registry"]}}, "pullSecrets"),
    ],
)
def test_values_that_cannot_work_are_refused(given: Object, says: str) -> None:
    with Chart.load(CHART) as chart, pytest.raises(HelmError, match=says):
        chart.render(given, name="loramill", namespace="loramill")


@pytest.mark.parametrize("tag", ["1.2", "v1.2_RC1", "Feature-X_" + "y" * 90])
def test_every_tag_gives_its_job_a_name_that_kubernetes_takes(tag: str) -> None:
    with Chart.load(CHART) as chart:
        files = chart.render({"image": {"tag": tag}}, name="loramill", namespace="loramill")
    (job,) = [yaml.safe_load(text) for path, text in files.items() if path.endswith("migrate.yaml")]
    assert re.fullmatch("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", job["metadata"]["name"])


def test_workers_drain_longer_than_a_checkpoint_takes(found: tuple[Object, ...]) -> None:
    for name, pod in pods(found).items():
        if "worker" in name:
            (container,) = pod["containers"]
            assert "kill -TERM 1" in container["lifecycle"]["preStop"]["exec"]["command"][-1]
            assert pod["terminationGracePeriodSeconds"] >= 60


def test_network_policies_cover_every_pod_and_name_parts_that_are_there(found: tuple[Object, ...]) -> None:
    policies = [one for one in found if one["kind"] == "NetworkPolicy"]
    everything = next(one for one in policies if one["metadata"]["name"] == "loramill-default")
    assert everything["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everything["spec"]
    selector = everything["spec"]["podSelector"]["matchLabels"].items()
    templates = [one["spec"]["template"] for one in found if one["kind"] in ("Deployment", "StatefulSet", "Job")]
    assert all(selector <= template["metadata"]["labels"].items() for template in templates)


def test_a_page_that_no_namespace_may_reach_is_open_to_nobody() -> None:
    given = {"networkPolicy": {"ingressNamespaces": []}}
    with Chart.load(CHART) as chart:
        files = chart.render(given, name="loramill", namespace="loramill")
    (policies,) = [text for path, text in files.items() if path.endswith("network.yaml")]
    (page,) = [one for one in yaml.safe_load_all(policies) if one["metadata"]["name"] == "loramill-ui"]
    assert page["spec"]["ingress"] == []


def test_services_lead_to_ports_that_are_there(found: tuple[Object, ...]) -> None:
    templates = [one["spec"]["template"] for one in found if one["kind"] in ("Deployment", "StatefulSet")]
    for service in (one for one in found if one["kind"] == "Service"):
        selector = service["spec"]["selector"].items()
        (target,) = [one for one in templates if selector <= one["metadata"]["labels"].items()]
        ports = {port["name"]: port["containerPort"] for port in target["spec"]["containers"][0]["ports"]}
        assert [ports[port["targetPort"]] for port in service["spec"]["ports"]] == [
            port["port"] for port in service["spec"]["ports"]
        ]


def test_images_are_targets_of_the_dockerfile(found: tuple[Object, ...]) -> None:
    targets = {line.split()[-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("FROM ")}
    own = {image_of(pod) for name, pod in pods(found).items() if "redis" not in name and "postgres" not in name}
    assert {name.removeprefix("loramill-") for name in own} <= targets


def test_production_scales_and_keeps_its_data_elsewhere() -> None:
    found = rendered("values.prod.yaml")
    kinds = {one["kind"] for one in found}
    assert {"HorizontalPodAutoscaler", "ScaledObject", "PodDisruptionBudget", "Ingress", "ServiceMonitor"} <= kinds
    assert "StatefulSet" not in kinds
    gpu = pods(found)["loramill-worker-gpu"]
    assert gpu["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert gpu["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    scaled = next(one for one in found if one["kind"] == "ScaledObject")
    assert {trigger["type"] for trigger in scaled["spec"]["triggers"]} == {"redis", "prometheus"}
    assert "replicas" not in next(
        one["spec"] for one in found if one["kind"] == "Deployment" and one["metadata"]["name"] == "loramill-worker"
    )


def test_the_scaler_looks_at_the_queue_that_loramill_uses() -> None:
    from loramill.tasks.celery_app import QUEUE

    scaled = next(one for one in rendered("values.prod.yaml") if one["kind"] == "ScaledObject")
    queue: dict[str, Any] = scaled["spec"]["triggers"][0]["metadata"]
    assert queue["listName"] == QUEUE


def test_names_stay_the_same_for_helm_and_kubectl() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = (Path(ROOT) / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{chart["appVersion"]}"' in project


def test_helm_may_take_over_what_was_applied_by_kubectl() -> None:
    """One label and two annotations are what Helm asks for before it takes an object into a release."""
    kustomization = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text(encoding="utf-8"))
    assert kustomization["labels"] == [{"pairs": {"app.kubernetes.io/managed-by": "Helm"}}]
    release = re.search("^RELEASE=(.*)$", (ROOT / "k8s" / "k8s.sh").read_text(encoding="utf-8"), re.MULTILINE)
    (namespace,) = {one["metadata"]["namespace"] for one in manifests() if one["kind"] == "Deployment"}
    assert release
    assert kustomization["commonAnnotations"] == {
        "meta.helm.sh/release-name": release.group(1),
        "meta.helm.sh/release-namespace": namespace,
    }
