"""The scripts behind ``make start-services`` and ``make k8s-*``: what they ask kubectl for, and what they say."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import psutil
import pytest
from dotenv import dotenv_values

from deployment_files import ROOT, SECRETS, run, tool
from docker_stack import wait_until

SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for folder in ("deploy", "k8s", "tests") for path in (ROOT / folder).rglob("*.sh")
)
CPU_IMAGES = ("api", "ui", "worker", "inference")
BARE = {"PATH": os.environ["PATH"]}
BASICS = ("bash", "sh", "make", "awk", "sed", "grep", "od", "tr", "cat", "dirname", "env", "cp", "mv", "tail")

RECORDER = """#!/bin/sh
echo "$(basename "$0") $*" >>"$RECORD"
case "$*" in
    *"get secret"*) [ -e "$HAS_SECRET" ] ;;
    "config current-context") echo nowhere ;;
    *"create secret"*) cat >"$HAS_SECRET" ;;
    *"apply -f -") cat >/dev/null ;;
esac
"""
"""Stands for kubectl and helm, which would need a cluster: it writes down what it was asked for."""

FORWARDS = """#!/bin/sh
case "$*" in
    *port-forward*ui*) exec sleep 1 ;;
    *port-forward*) echo $$ >>"$RECORD" && exec sleep 50 ;;
esac
"""


DOCKER = """#!/bin/sh
echo "docker $*" >>"$RECORD"
case "$*" in
    "compose config --images") echo "{images}" ;;
    "image inspect {there}") ;;
    "image inspect"*) exit 1 ;;
esac
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A machine with a shell and make, and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in BASICS:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return {"PATH": str(folder), "HOME": str(tmp_path)}


@pytest.fixture
def cluster(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A machine that has kubectl and helm, too."""
    for name in ("kubectl", "helm"):
        (tmp_path / "bin" / name).write_text(RECORDER)
        (tmp_path / "bin" / name).chmod(0o755)
    basename = shutil.which("basename")
    assert basename
    (tmp_path / "bin" / "basename").symlink_to(basename)
    return {**environment, "RECORD": str(tmp_path / "record"), "HAS_SECRET": str(tmp_path / "secret")}


def asked(environment: dict[str, str]) -> list[str]:
    record = Path(environment["RECORD"])
    return [line for line in record.read_text().splitlines() if "version" not in line] if record.exists() else []


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_has_no_complaint(script: str) -> None:
    done = run(tool("shellcheck"), script)
    assert (done.returncode, done.stdout) == (0, "")
    assert os.access(ROOT / script, os.X_OK)


@pytest.mark.parametrize(
    "target", ["start-services", "stop-services", "restart-services", "logs-services", "docker-build"]
)
def test_without_docker_one_line_says_so(target: str, environment: dict[str, str]) -> None:
    done = run("make", target, env=environment)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0].startswith("docker is not installed")


@pytest.mark.parametrize("target", ["start-services", "docker-build"])
def test_without_an_engine_one_line_says_so(target: str, environment: dict[str, str]) -> None:
    docker = Path(environment["PATH"]) / "docker"
    docker.write_text("#!/bin/sh\nexit 1\n")
    docker.chmod(0o755)
    done = run("make", target, env=environment)
    assert done.returncode != 0
    assert "its engine does not answer" in done.stderr.splitlines()[0]


@pytest.mark.parametrize(
    "target", ["setup", "deploy", "quick-deploy", "port-forward", "dashboard", "status", "restart", "cleanup"]
)
def test_without_kubectl_one_line_says_so(target: str, environment: dict[str, str]) -> None:
    done = run("make", f"k8s-{target}", env=environment)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0].startswith("kubectl is not installed")


def test_without_docker_no_image_is_built_for_a_cluster(environment: dict[str, str]) -> None:
    assert run("make", "k8s-build", env=environment).stderr.startswith("docker is not installed")


def test_without_a_cluster_one_line_says_so(environment: dict[str, str], tmp_path: Path) -> None:
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.write_text("#!/bin/sh\nexit 1\n")
    kubectl.chmod(0o755)
    done = run("make", "k8s-status", env=environment)
    assert done.stderr.startswith("kubectl reaches no cluster (context: none)")


def test_without_helm_values_are_refused(cluster: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bin" / "helm").unlink()
    Path(cluster["HAS_SECRET"]).touch()
    done = run("make", "k8s-deploy", "values=k8s/chart/values.prod.yaml", env=cluster)
    assert done.returncode != 0
    assert done.stderr.startswith("helm is not installed")


def test_setup_makes_a_secret_once(cluster: dict[str, str]) -> None:
    run("make", "k8s-setup", env=cluster, check=True)
    lines = dict(line.split("=", 1) for line in Path(cluster["HAS_SECRET"]).read_text().splitlines())
    assert len(set(lines.values())) == len(lines) == 9
    assert all(re.search(r"[0-9a-f]{64}", value) for value in lines.values())
    assert lines["REDIS_PASSWORD"] in lines["REDIS_URL"]
    assert lines["POSTGRES_PASSWORD"] in lines["DATABASE_URL"]
    assert not [line for line in asked(cluster) if lines["JWT_SECRET"] in line]  # no process list shows it
    assert "stays as it is" in run("make", "k8s-setup", env=cluster, check=True).stdout
    assert len([line for line in asked(cluster) if "create secret" in line]) == 1


def test_deploy_applies_the_manifests_and_waits(cluster: dict[str, str]) -> None:
    Path(cluster["HAS_SECRET"]).touch()
    run("make", "k8s-deploy", env=cluster, check=True)
    commands = asked(cluster)
    assert "kubectl apply -k k8s/manifests" in commands
    assert len([line for line in commands if "rollout status" in line]) == 6


def test_deploy_needs_the_secret(cluster: dict[str, str]) -> None:
    done = run("make", "k8s-deploy", env=cluster)
    assert done.returncode != 0
    assert "make k8s-setup" in done.stderr
    assert "kubectl apply" not in "\n".join(asked(cluster))


def test_deploy_with_values_installs_the_chart(cluster: dict[str, str]) -> None:
    Path(cluster["HAS_SECRET"]).touch()
    run("make", "k8s-deploy", "values=k8s/chart/values.prod.yaml", env={**cluster, "IMAGE_TAG": "1.2"}, check=True)
    (command,) = [line for line in asked(cluster) if line.startswith("helm")]
    assert "upgrade --install loramill k8s/chart --namespace loramill" in command
    assert "--values k8s/chart/values.prod.yaml --set-string image.tag=1.2 --wait" in command


@pytest.fixture
def checkout(tmp_path: Path, cluster: dict[str, str]) -> Path:
    """A copy whose .env names images of its own, and a Docker that writes down what it was asked for."""
    shutil.copy(tmp_path / "bin" / "kubectl", tmp_path / "bin" / "docker")
    folder = tmp_path / "checkout"
    for part in ("deploy", "k8s"):
        shutil.copytree(ROOT / part, folder / part)
    shutil.copy(ROOT / "Makefile", folder)
    (folder / ".env").write_text("IMAGE_PREFIX=registry.example.com/team/loramill\nIMAGE_TAG=1.2\n")
    return folder


def test_images_that_dotenv_names_are_built_pushed_and_deployed(checkout: Path, cluster: dict[str, str]) -> None:
    run("make", "k8s-quick-deploy", env=cluster, cwd=checkout, check=True)
    commands = asked(cluster)
    built = [line.split(" --tag ")[1].removesuffix(" .") for line in commands if line.startswith("docker build")]
    assert built == [f"registry.example.com/team/loramill-{name}:1.2" for name in CPU_IMAGES]
    assert [line.removeprefix("docker push ") for line in commands if "push" in line] == built
    (installed,) = [line for line in commands if line.startswith("helm")]
    assert "--set image.prefix=registry.example.com/team/loramill --set-string image.tag=1.2" in installed


def test_a_values_file_wins_over_dotenv(checkout: Path, cluster: dict[str, str]) -> None:
    Path(cluster["HAS_SECRET"]).touch()
    run("make", "k8s-deploy", "values=k8s/chart/values.prod.yaml", env=cluster, cwd=checkout, check=True)
    (installed,) = [line for line in asked(cluster) if line.startswith("helm")]
    assert "--values k8s/chart/values.prod.yaml --wait" in installed


def test_ports_of_dotenv_are_forwarded(checkout: Path, cluster: dict[str, str]) -> None:
    with (checkout / ".env").open("a") as file:
        file.write("UI_PORT=18501\n")
    kubectl = Path(cluster["PATH"]) / "kubectl"
    kubectl.write_text("#!/bin/sh\n")
    done = run("make", "k8s-port-forward", env=cluster, cwd=checkout)
    assert "ui  http://localhost:18501" in done.stdout


def test_what_compose_would_start_is_built_where_it_is_missing(checkout: Path, cluster: dict[str, str]) -> None:
    """Files that COMPOSE_FILE adds name other images, such as those for GPUs."""
    prefix = "registry.example.com/team/loramill"
    images = [f"{prefix}-api:1.2", f"{prefix}-worker-cuda:1.2", "redis:7-alpine"]
    docker = Path(cluster["PATH"]) / "docker"
    docker.write_text(DOCKER.format(images="\n".join(images), there=images[0]))
    run("make", "start-services", env=cluster, cwd=checkout, check=True)
    commands = asked(cluster)
    assert [line.split(" --tag ")[1] for line in commands if line.startswith("docker build")] == [f"{images[1]} ."]
    assert commands[-1] == "docker compose up --detach --wait"


@pytest.mark.parametrize("target", ["docker-build", "k8s-build"])
def test_a_full_build_takes_the_newest_base_and_makes_the_images_for_gpus(
    target: str, checkout: Path, cluster: dict[str, str]
) -> None:
    def built(*arguments: str) -> list[str]:
        Path(cluster["RECORD"]).unlink(missing_ok=True)
        run("make", target, *arguments, env=cluster, cwd=checkout, check=True)
        return [line for line in asked(cluster) if line.startswith("docker build")]

    quick, full = built(), built("full=1")
    assert [re.findall(r"--target (\S+)", line) for line in quick] == [[name] for name in CPU_IMAGES]
    assert [re.findall(r"--target (\S+)", line) for line in full] == [
        [name] for name in (*CPU_IMAGES, "worker-cuda", "inference-cuda")
    ]
    assert not any("--pull" in line for line in quick)
    assert all("--pull" in line for line in full)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["k8s-logs", "service=worker"], "logs --selector app.kubernetes.io/component=worker"),
        (["k8s-logs", "service=api", "follow=1"], "--follow"),
        (["k8s-scale", "service=worker", "replicas=3"], "scale deployment/loramill-worker --replicas 3"),
        (["k8s-restart", "service=redis"], "rollout restart statefulset/loramill-redis"),
        (["k8s-restart"], "rollout restart deployment --selector app.kubernetes.io/part-of=loramill"),
        (["k8s-status"], "get deployments,statefulsets,jobs,pods"),
        (["k8s-cleanup", "data=delete"], "delete namespace loramill"),
    ],
)
def test_a_target_asks_for_what_it_says(arguments: list[str], command: str, cluster: dict[str, str]) -> None:
    run("make", *arguments, env=cluster, check=True)
    assert command in "\n".join(asked(cluster))


def test_cleanup_keeps_the_data(cluster: dict[str, str]) -> None:
    (Path(cluster["PATH"]) / "helm").unlink()
    assert "still there" in run("make", "k8s-cleanup", env=cluster, check=True).stdout
    kinds = "\n".join(asked(cluster))
    assert "delete deployments" in kinds
    assert not re.search("namespace loramill$|persistentvolumeclaim|secret", kinds, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["k8s-logs"], "Name a service"),
        (["k8s-logs", "service=wrker"], "Name a service"),
        (["k8s-scale", "service=worker"], "replicas=3"),
        (["k8s-scale", "service=worker", "replicas=many"], "replicas=3"),
        (["k8s-scale", "service=postgres", "replicas=2"], "keeps state"),
    ],
)
def test_wrong_use_is_refused_before_the_cluster_is_asked(
    arguments: list[str], says: str, cluster: dict[str, str]
) -> None:
    done = run("make", *arguments, env=cluster)
    assert done.returncode != 0
    assert says in done.stderr
    assert asked(cluster) == []


def test_a_forward_that_ends_takes_the_others_along(cluster: dict[str, str], tmp_path: Path) -> None:
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.write_text(FORWARDS)
    sleep = shutil.which("sleep")
    assert sleep
    (tmp_path / "bin" / "sleep").symlink_to(sleep)
    done = run("make", "k8s-port-forward", env=cluster)
    assert "A forward has ended" in done.stderr
    wait_until(
        lambda: not any(psutil.pid_exists(int(pid)) for pid in Path(cluster["RECORD"]).read_text().split()), "gone"
    )


DOTENV = """# as people write it, and as Compose and loramill read it
API_PORT="8001"
UI_PORT=8502  # mine
export INFERENCE_PORT=8003
REDIS_PORT = 6380
IMAGE_TAG=1.2\r
IMAGE_PREFIX='registry.example.com/a team#1/loramill'
GRAFANA_PORT=
# FLOWER_PORT=1
TZ=first
TZ=second
"""


def test_dotenv_is_read_as_compose_and_loramill_read_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(DOTENV, newline="")
    seen = {
        name: run(str(ROOT / "deploy" / "setting.sh"), name, "usual", cwd=tmp_path, env=BARE, check=True).stdout[:-1]
        for name in re.findall(r"[A-Z]+_[A-Z]+|TZ", DOTENV)
    }
    expected = {name: value or "usual" for name, value in dotenv_values(tmp_path / ".env").items()}
    assert seen == {**expected, "FLOWER_PORT": "usual"}
    assert (seen["UI_PORT"], seen["GRAFANA_PORT"]) == ("8502", "usual")


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("export JWT_SECRET=mine", True),
        (" JWT_SECRET = 'mine' # from the vault", True),
        ("JWT_SECRET=mine\r", True),
        ('JWT_SECRET=""', False),
        ("JWT_SECRET=\r", False),
        ("JWT_SECRET= # later", False),
        ("#JWT_SECRET=mine", False),
    ],
)
def test_a_secret_is_made_where_there_is_none_and_only_there(line: str, kept: bool, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(f"{line}\n", newline="")
    run("deploy/make-secrets.sh", str(file), check=True)
    secret = dotenv_values(file)["JWT_SECRET"]
    assert (secret == "mine") == kept
    assert kept or re.fullmatch("[0-9a-f]{64}", secret or "")


def test_secrets_are_random_complete_and_made_once(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("JWT_SECRET=mine\nREDIS_PASSWORD=\nAPI_PORT=8000")  # an editor may leave out the last line end
    assert "JWT_SECRET" not in run("deploy/make-secrets.sh", str(file), check=True).stdout
    lines = file.read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines)
    assert (values["API_PORT"], values["JWT_SECRET"], len(lines)) == ("8000", "mine", len(SECRETS) + 2)
    random = [values[name] for name in SECRETS if name != "JWT_SECRET"]
    assert len(set(random)) == len(random)
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in random)
    assert file.stat().st_mode & 0o077 == 0
    assert run("deploy/make-secrets.sh", str(file), check=True).stdout == ""
    assert file.read_text().splitlines() == lines
