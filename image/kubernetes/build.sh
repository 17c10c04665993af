# Sourced by ../build: Kubernetes, etcd, CoreDNS and pause from their Go modules, and upstream's kubeadm and kubectl for the tests.

kubernetes_src=$here/kubernetes
kubernetes_version=$(awk '$1 == "k8s.io/kubernetes" {print $2}' "$kubernetes_src/go.mod")

# The stamps that upstream's own build puts in; kubeadm and the API server compare and print them.
kubernetes_stamps() {
  local p=k8s.io/component-base/version v=$kubernetes_version major minor
  IFS=. read -r major minor _ <<<"${v#v}"
  echo "-s -w -X $p.gitVersion=$v -X $p.gitMajor=$major -X $p.gitMinor=$minor -X $p.gitCommit=unknown -X $p.gitTreeState=clean" \
    "-X $p.buildDate=$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)"
}

# go_build DIR OUT PACKAGE...
go_build() {
  local dir=$1 out=$2; shift 2
  (cd "$dir" && CGO_ENABLED=0 GOFLAGS='-mod=readonly -buildvcs=false' GOWORK=off retry nice go build -trimpath -ldflags "$(kubernetes_stamps)" -o "$out" "$@")
}

build_kubernetes() {
  go_build "$kubernetes_src" "$1/" ./kubernetes ./etcd ./pause
  go_build "$kubernetes_src/coredns" "$1/" .
}

build_upstream() { go_build "$kubernetes_src" "$1/" k8s.io/kubernetes/cmd/kubeadm k8s.io/kubernetes/cmd/kubectl; }

kubernetes() { cached kubernetes "$(digest "$kubernetes_src" "$(go env GOVERSION)")" build_kubernetes; }
upstream() { cached upstream "$(digest "$kubernetes_src/go.mod" "$kubernetes_src/go.sum" "$kubernetes_src/build.sh" "$(go env GOVERSION)")" build_upstream; }
