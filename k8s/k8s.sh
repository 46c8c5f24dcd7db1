#!/usr/bin/env bash
# loramill on Kubernetes: `k8s.sh` alone says what it can do. The Makefile's k8s-* targets call it.
#
# It works on the cluster that kubectl is set to, in NAMESPACE (default: loramill). With VALUES=FILE, or with IMAGE_PREFIX
# or IMAGE_TAG of the environment or .env, the Helm chart is installed; else the manifests are applied as they are.
set -euo pipefail
cd "$(dirname "$0")/.."

RELEASE=loramill
NAMESPACE=${NAMESPACE:-loramill}
SERVICES="api ui worker worker-gpu inference redis postgres"

usage() {
    cat <<'TEXT'
usage: k8s/k8s.sh COMMAND
  setup                make the namespace, and a Secret with random values when there is none
  build                build the images, and hand them to kind or minikube, or push them; FULL=1 for GPUs as well
  deploy               apply the manifests, or install the chart with VALUES=FILE; wait until all is ready
  quick-deploy         setup, build, deploy
  port-forward         page, API and inference on this machine, until Ctrl-C
  dashboard            open the cluster's dashboard
  status               what runs
  logs SERVICE         newest lines of api, ui, worker, inference, redis or postgres; FOLLOW=1 goes on
  restart [SERVICE]    new pods, one after the other
  scale SERVICE N      that many pods
  cleanup [delete-data]  remove everything but volumes and the Secret, or these as well
TEXT
}

fail() {
    echo "$*" >&2
    exit 1
}

require() { # COMMAND WHAT-FOR
    command -v "$1" >/dev/null || fail "$1 is not installed; it is needed $2."
}

require_cluster() {
    require kubectl "to reach the cluster: see kubernetes.io/docs/tasks/tools"
    kubectl version --request-timeout=10s >/dev/null 2>&1 ||
        fail "kubectl reaches no cluster (context: $(kubectl config current-context 2>/dev/null || echo none)). Start one, for example: minikube start"
}

in_namespace() {
    kubectl --namespace "$NAMESPACE" "$@"
}

require_service() { # NAME
    case " $SERVICES " in
        *" ${1:-none} "*) ;;
        *) fail "Name a service: service=api, ui, worker, worker-gpu, inference, redis or postgres" ;;
    esac
}

setting() { # NAME DEFAULT
    deploy/setting.sh "$@"
}

random_hex() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

secret_lines() {
    local redis postgres
    redis=$(random_hex)
    postgres=$(random_hex)
    echo "JWT_SECRET=$(random_hex)"
    echo "LORAMILL_AUDIT_KEY=$(random_hex)"
    echo "LORAMILL_INFERENCE_KEY=$(random_hex)"
    echo "LORAMILL_METRICS_KEY=$(random_hex)"
    echo "LORAMILL_ADMIN_PASSWORD=$(random_hex)"
    echo "REDIS_PASSWORD=$redis"
    echo "REDIS_URL=${REDIS_URL:-redis://:$redis@$RELEASE-redis:6379/0}"
    echo "POSTGRES_PASSWORD=$postgres"
    echo "DATABASE_URL=${DATABASE_URL:-postgresql+psycopg://loramill:$postgres@$RELEASE-postgres:5432/loramill}"
}

setup() {
    require_cluster
    sed "s/^  name: loramill$/  name: $NAMESPACE/" k8s/manifests/namespace.yaml | kubectl apply -f -
    if in_namespace get secret "$RELEASE" >/dev/null 2>&1; then
        echo "The Secret $RELEASE is there already, and stays as it is."
    else
        secret_lines | in_namespace create secret generic "$RELEASE" --from-env-file=/dev/stdin
    fi
}

build() {
    require docker "to build the images"
    deploy/services.sh build
    local name image context prefix tag
    prefix=$(setting IMAGE_PREFIX loramill)
    tag=$(setting IMAGE_TAG latest)
    context=$(kubectl config current-context 2>/dev/null || true)
    for name in api ui worker inference ${FULL:+worker-cuda inference-cuda}; do
        image=$prefix-$name:$tag
        case $context in
            kind-*)
                require kind "to hand images to the cluster $context"
                kind load docker-image --name "${context#kind-}" "$image"
                ;;
            minikube)
                require minikube "to hand images to the cluster"
                minikube image load "$image"
                ;;
            *) case $prefix in */*) docker push "$image" ;; *) echo "$image stays on this machine: set IMAGE_PREFIX=registry/name to push it." ;; esac ;;
        esac
    done
}

install_chart() { # OPTIONS OF HELM
    require helm "to install the chart; without VALUES, IMAGE_PREFIX and IMAGE_TAG kubectl is enough"
    helm upgrade --install "$RELEASE" k8s/chart --namespace "$NAMESPACE" "$@" --wait --timeout 15m
}

deploy() {
    require_cluster
    in_namespace get secret "$RELEASE" >/dev/null 2>&1 ||
        fail "There is no Secret $RELEASE in namespace $NAMESPACE. Make it with: make k8s-setup"
    if [ -n "${VALUES:-}" ]; then # it names the images, unless the environment does
        install_chart --values "$VALUES" ${IMAGE_PREFIX:+--set "image.prefix=$IMAGE_PREFIX"} \
            ${IMAGE_TAG:+--set-string "image.tag=$IMAGE_TAG"}
        return
    fi
    local prefix tag
    prefix=$(setting IMAGE_PREFIX loramill)
    tag=$(setting IMAGE_TAG latest)
    if [ "$prefix:$tag" != loramill:latest ]; then
        install_chart --set "image.prefix=$prefix" --set-string "image.tag=$tag"
        return
    fi
    [ "$NAMESPACE" = loramill ] || fail "The manifests are for the namespace loramill; the chart goes elsewhere: set VALUES."
    in_namespace delete job --selector app.kubernetes.io/component=migrate --ignore-not-found
    kubectl apply -k k8s/manifests
    wait_until_ready
}

wait_until_ready() {
    local name
    for name in statefulset/redis statefulset/postgres deployment/api deployment/worker deployment/ui deployment/inference; do
        in_namespace rollout status "${name%/*}/$RELEASE-${name#*/}" --timeout=10m
    done
}

port_forward() {
    require_cluster
    forwards=() # not local, since the trap runs when this function is gone; and kubectl itself, no function around it
    trap 'kill "${forwards[@]}" 2>/dev/null || true' EXIT
    trap 'exit 130' INT TERM
    forward() { # SERVICE LOCAL-PORT PORT
        kubectl --namespace "$NAMESPACE" port-forward "service/$RELEASE-$1" "$2:$3" >/dev/null &
        forwards+=($!)
        echo "$1  http://localhost:$2"
    }
    forward ui "$(setting UI_PORT 8501)" 8501
    forward api "$(setting API_PORT 8000)" 8000
    forward inference "$(setting INFERENCE_PORT 8002)" 8002
    echo "Ctrl-C ends it."
    local forward
    while sleep 1; do
        for forward in "${forwards[@]}"; do
            kill -0 "$forward" 2>/dev/null || fail "A forward has ended; make k8s-status shows what runs."
        done
    done
}

dashboard() {
    require_cluster
    if [ "$(kubectl config current-context)" = minikube ] && command -v minikube >/dev/null; then
        exec minikube dashboard
    fi
    local service=kubernetes-dashboard-kong-proxy
    kubectl --namespace kubernetes-dashboard get service "$service" >/dev/null 2>&1 ||
        fail "This cluster has no kubernetes-dashboard. Its site says how to install it; make k8s-status shows what runs."
    echo "https://localhost:8443 (sign in with: kubectl -n kubernetes-dashboard create token NAME-OF-AN-ACCOUNT); Ctrl-C ends it."
    exec kubectl --namespace kubernetes-dashboard port-forward "service/$service" 8443:443
}

status() {
    require_cluster
    in_namespace get deployments,statefulsets,jobs,pods,services,persistentvolumeclaims,horizontalpodautoscalers,poddisruptionbudgets
}

logs() {
    require_service "${1:-}"
    require_cluster
    in_namespace logs --selector "app.kubernetes.io/component=$1" --all-containers --prefix --tail 100 \
        --max-log-requests 50 ${FOLLOW:+--follow}
}

restart() {
    [ -z "${1:-}" ] || require_service "$1"
    require_cluster
    case ${1:-} in
        "") in_namespace rollout restart deployment --selector app.kubernetes.io/part-of=loramill ;;
        redis | postgres) in_namespace rollout restart "statefulset/$RELEASE-$1" ;;
        *) in_namespace rollout restart "deployment/$RELEASE-$1" ;;
    esac
}

scale() { # SERVICE REPLICAS
    require_service "${1:-}"
    [[ ${2:-} =~ ^[0-9]+$ ]] || fail "Say how many: replicas=3"
    case $1 in
        redis | postgres) fail "$1 keeps state and runs once; for more, use a server of your own (k8s/chart/values.prod.yaml)." ;;
    esac
    require_cluster
    in_namespace scale "deployment/$RELEASE-$1" --replicas "$2"
    in_namespace rollout status "deployment/$RELEASE-$1" --timeout=10m
}

cleanup() {
    require_cluster
    if command -v helm >/dev/null && helm status "$RELEASE" --namespace "$NAMESPACE" >/dev/null 2>&1; then
        helm uninstall "$RELEASE" --namespace "$NAMESPACE" --wait
    else
        in_namespace delete deployments,statefulsets,jobs,services,configmaps,serviceaccounts,networkpolicies,poddisruptionbudgets \
            --selector app.kubernetes.io/part-of=loramill --ignore-not-found
    fi
    if [ "${1:-}" = delete-data ]; then
        kubectl delete namespace "$NAMESPACE" --ignore-not-found
    else
        echo "Volumes and the Secret are still there; data=delete removes the namespace with everything in it."
    fi
}

case ${1:-} in
    setup) setup ;;
    build) build ;;
    deploy) deploy ;;
    quick-deploy)
        setup
        build
        deploy
        ;;
    port-forward) port_forward ;;
    dashboard) dashboard ;;
    status) status ;;
    logs) logs "${2:-}" ;;
    restart) restart "${2:-}" ;;
    scale) scale "${2:-}" "${3:-}" ;;
    cleanup) cleanup "${2:-}" ;;
    *)
        usage
        [ $# -eq 0 ] || exit 2
        ;;
esac
