# Sourced by ../build: Debian by mmdebstrap, then the root filesystem of a node made from it: trimmed, with Kubernetes and its container images.

. "$here/rootfs/trim.sh"

suite=trixie
kernel_package=${REKINDLE_KERNEL_PACKAGE:-linux-image-cloud-amd64}
rootfs_src=$here/rootfs
layers=usr/lib/rekindle/containers

debian() {
  need mmdebstrap debian-archive-keyring >&2
  cached debian "$(digest "$rootfs_src/packages" "$rootfs_src/packages.lock" "$kernel_package" "$suite" "$(declare -f build_debian debian_sources)")" build_debian
}

# The mirrors of the machine's own apt configuration, for our suite.
debian_sources() {
  local uris uri
  uris=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | awk '
    /^URIs:/ {for (i = 2; i <= NF; i++) print $i}
    $1 == "deb" {for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) print $i}' | grep -E '/debian(-security)?/?$' | sort -u || true)
  grep -q '/debian/\?$' <<<"$uris" || { say "no Debian mirror found in /etc/apt/sources.list*: a line such as 'deb http://MIRROR/debian stable main' is needed"; return 1; }
  for uri in $uris; do
    case $uri in
      */debian-security*) echo "deb $uri $suite-security main" ;;
      *) echo "deb $uri $suite main" ;;
    esac
  done
}

build_debian() {
  local dir=$1 include
  include=$(grep -v '^#' "$rootfs_src/packages" | tr '\n' ,)$kernel_package
  # A pin above 1000 takes the locked version wherever the mirror still has it, and else lets apt take what there is.
  awk -F= '{printf "Package: %s\nPin: version %s\nPin-Priority: 1001\n\n", $1, $2}' "$rootfs_src/packages.lock" >"$dir/pins"
  debian_sources >"$dir/sources"
  # INITRD=No: the initramfs is ours, Debian's would only be thrown away.
  INITRD=No retry mmdebstrap --quiet --mode=root --variant=minbase --include="$include" --aptopt='APT::Install-Recommends "false"' \
    --setup-hook="mkdir -p \"\$1/etc/apt/preferences.d\" && cp '$dir/pins' \"\$1/etc/apt/preferences.d/lock\"" \
    "$suite" "$dir/root.tar" "$dir/sources"
  mkdir "$dir/root"
  tar -C "$dir/root" --numeric-owner -xf "$dir/root.tar"
  rm "$dir/root.tar"
  chroot "$dir/root" dpkg-query -W -f '${Package}=${Version}\n' | sort >"$dir/packages.lock"
  if diff "$rootfs_src/packages.lock" "$dir/packages.lock" >"$dir/moved"; then return; fi
  say "WARNING: the mirror has other versions than packages.lock ('<' locked, '>' installed); image/build relock takes them over:"
  cat "$dir/moved" >&2
}

# relock: what the mirror gives today becomes what is built from now on.
relock() {
  : >"$rootfs_src/packages.lock"
  cp "$(debian)/packages.lock" "$rootfs_src/packages.lock"
}

rootfs() {
  local dir
  debian_dir=$(debian)
  kubernetes_dir=$(kubernetes)
  dir=$(cached rootfs "$(digest "$debian_dir/packages.lock" "${debian_dir##*-}" "${kubernetes_dir##*-}" "$here/containers" "$rootfs_src")" build_rootfs)
  echo "$dir/root"
}

build_rootfs() {
  local root=$1/root
  cp -a "$debian_dir/root" "$root"
  trim "$root"
  lay_kubernetes "$root"
  lay_containers "$root" "$1"
  # Everything that has been touched since gets one time: cp and mkdir leave today's.
  find "$root" -newermt "@$SOURCE_DATE_EPOCH" -print0 | xargs -0 -r touch --no-dereference --date="@$SOURCE_DATE_EPOCH"
  "$rootfs_src/check-libraries" "$root"
  "$rootfs_src/sizes" "$root" | tee "$1/sizes" >&2
}

# The one big binary, once on disk: every other name of it, on the node and in the containers, is a hard link.
lay_kubernetes() {
  local root=$1 name
  mkdir -p "$root/$layers"/{base/{etc,tmp,usr/local/bin,var/run},kubernetes/usr/local/bin,etcd/usr/local/bin,coredns,pause}
  chmod 1777 "$root/$layers/base/tmp"
  echo 'root:x:0:0:root:/:/sbin/nologin' >"$root/$layers/base/etc/passwd"
  echo 'root:x:0:' >"$root/$layers/base/etc/group"
  cp "$kubernetes_dir/kubernetes" "$root/usr/bin/kubelet"
  ln "$root/usr/bin/kubelet" "$root/usr/bin/kubectl"
  for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do ln "$root/usr/bin/kubelet" "$root/$layers/kubernetes/usr/local/bin/$name"; done
  cp "$kubernetes_dir/etcd" "$root/$layers/etcd/usr/local/bin/"
  cp "$kubernetes_dir/coredns" "$root/$layers/coredns/"
  cp "$kubernetes_dir/pause" "$root/$layers/pause/"
  "$rootfs_src/netfilter-layer" "$root" "$root/$layers/netfilter"
}

lay_containers() {
  need_go
  (cd "$here/containers" && CGO_ENABLED=0 GOFLAGS='-mod=readonly -buildvcs=false' GOWORK=off retry go build -trimpath -o "$2/containers" .)
  "$2/containers" "$here/containers/images.json" "$1"
}
