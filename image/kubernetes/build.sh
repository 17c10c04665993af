# Sourced by ../build: Kubernetes, etcd, CoreDNS and pause from their Go modules, and upstream's kubeadm and kubectl for the tests.

kubernetes_src=$here/kubernetes
kubernetes_version=$(awk '$1 == "k8s.io/kubernetes" {print $2}' "$kubernetes_src/go.mod")

# need_go: a Go as new as the modules ask for. Where the machine has none, Debian's is unpacked into the cache, and fetches that one itself.
need_go() {
  local wanted
  wanted=$(awk '$1 == "go" {print $2}' "$kubernetes_src/go.mod")
  if command -v go >/dev/null && [ "$(printf '%s\n' "go$wanted" "$(go env GOVERSION)" | sort -V | head -1)" = "go$wanted" ]; then return; fi
  need mmdebstrap debian-archive-keyring >&2
  export PATH GOTOOLCHAIN=go$wanted
  PATH=$(cached go "$(digest "$suite" "$wanted" "$(declare -f build_go)")" build_go)/bin:$PATH
}

build_go() {
  debian_sources >"$1/sources"
  retry mmdebstrap --quiet --variant=extract --include=golang-go --aptopt='APT::Install-Recommends "false"' "$suite" "$1/root" "$1/sources"
  ln -s "$(cd "$1" && echo root/usr/lib/go-*/bin)" "$1/bin"
}

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

kubernetes() { need_go; cached kubernetes "$(digest "$kubernetes_src" "$(go env GOVERSION)")" build_kubernetes; }
upstream() { need_go; cached upstream "$(digest "$kubernetes_src/go.mod" "$kubernetes_src/go.sum" "$kubernetes_src/build.sh" "$(go env GOVERSION)")" build_upstream; }
