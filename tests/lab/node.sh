#!/bin/bash
# A Kubernetes node in namespaces, at native speed: own network, mounts, PIDs, names and cgroups over the image's root filesystem.
#   node.sh up NAME IP SCRIPT     makes the node and runs SCRIPT in it as root; the node lives as long as SCRIPT does
#   node.sh exec NAME COMMAND...  runs a command in it
#   node.sh down NAME             ends its processes and takes everything away but what it wrote, which stays in $REKINDLE_LAB/nodes/NAME
# Environment: REKINDLE_LAB, the folder for all state; $REKINDLE_LAB/files in it is laid over the root filesystem;
# REKINDLE_LAB_ROOTFS, the root filesystem (image/build rootfs). Addresses are of 10.77.0.0/24, on the bridge rekindle0. Root only.
set -euo pipefail
fail() { echo "node.sh: $*" >&2; exit 1; }
[ $# -ge 2 ] || fail "usage: node.sh up NAME IP SCRIPT | exec NAME COMMAND... | down NAME"
verb=$1 name=$2; shift 2
[[ $name =~ ^[a-z][a-z0-9]{0,5}$ ]] || fail "$name: a node's name is a letter and up to five letters or digits"
lab=$(realpath -m "${REKINDLE_LAB:?is not set: a folder for all state of the lab}") node=$lab/nodes/$name
bridge=rekindle0 net=rekindle-$name

# cgroup v2 hosts have one tree; v1 and hybrid hosts have one for each controller, possibly co-mounted under one name (cpu,cpuacct).
# The named v1 trees (systemd) are not the node's business. Only the v1 side has been run; the v2 side follows what nested container engines do.
unified() { [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; }
trees() { if unified; then echo /sys/fs/cgroup; else awk '$3 == "cgroup" && $2 ~ "^/sys/fs/cgroup/" && $4 !~ /name=/ {print $2}' /proc/mounts; fi; }

join_cgroups() { # PID
  local tree
  for tree in $(trees); do
    # In v2, a group that hands controllers to its children may hold no process: nodeinit has moved itself to a leaf.
    if [ -d "$tree/$net/node" ]; then echo "$1" >"$tree/$net/node/cgroup.procs"; else echo "$1" >"$tree/$net/cgroup.procs"; fi
  done
}

make_cgroups() {
  local tree file controller
  for tree in $(trees); do
    mkdir -p "$tree/$net"
    unified || [ ! -e "$tree/cpuset.cpus" ] || for file in cpuset.cpus cpuset.mems; do cat "$tree/$file" >"$tree/$net/$file"; done
  done
  unified || return 0
  for controller in cpu cpuset memory pids; do
    grep -qw "$controller" "$tree/cgroup.controllers" || fail "this host does not offer the cgroup controller $controller"
    grep -qw "$controller" "$tree/cgroup.subtree_control" || echo "+$controller" >"$tree/cgroup.subtree_control" ||
      fail "cannot hand on the cgroup controller $controller: $tree holds processes itself; run in a delegated cgroup (systemd-run -p Delegate=yes)"
  done
}

check_host() {
  local tool
  [ "$(id -u)" = 0 ] || fail "only root can make a node"
  for tool in ip unshare nsenter mount awk; do command -v "$tool" >/dev/null || fail "$tool is missing (Debian: iproute2, util-linux, mount, mawk)"; done
  [ -x "${REKINDLE_LAB_ROOTFS:?is not set: the folder that image/build rootfs prints}/usr/bin/containerd" ] || fail "$REKINDLE_LAB_ROOTFS holds no containerd: not the image's root filesystem"
  grep -qw overlay /proc/filesystems || fail "the kernel has no overlay file system (modprobe overlay)"
  [ "$(stat -fc %T "$lab")" != overlayfs ] || fail "$lab is on an overlay file system, which cannot hold another's upper layer: set REKINDLE_LAB to a folder on a disk"
  [ -n "$(trees)" ] || fail "no cgroup tree is mounted under /sys/fs/cgroup"
  unshare -m -u -i -n -p -C -f true 2>/dev/null || fail "namespaces cannot be made here (CAP_SYS_ADMIN is missing)"
}

make_network() { # IP
  if ! ip link show "$bridge" >/dev/null 2>&1; then
    ip link add "$bridge" type bridge || fail "a bridge cannot be made here (CAP_NET_ADMIN, or the kernel's bridge driver, is missing)"
    ip addr add 10.77.0.1/24 dev "$bridge"
  fi
  ip link set "$bridge" up
  ip netns add "$net"
  ip link add "v-$net" type veth peer name eth0 netns "$net"
  ip link set "v-$net" master "$bridge" up
  ip -n "$net" addr add "$1/24" dev eth0
  ip -n "$net" link set eth0 up
  ip -n "$net" link set lo up
  ip -n "$net" route add default via 10.77.0.1
}

# The node's first process: the one whose innermost PID is 1, one level below ours (a container's is two levels below).
first_process() {
  local pid
  for pid in $(ip netns pids "$net" 2>/dev/null); do awk -v p="$pid" '/^NSpid:/ && NF == 3 && $3 == 1 {print p}' "/proc/$pid/status" 2>/dev/null || true; done
}

up() { # IP SCRIPT
  [ $# = 2 ] || fail "up needs NAME IP SCRIPT"
  mkdir -p "$lab/files"
  check_host
  down
  rm -rf --one-file-system "$node"
  mkdir -p "$node"/{up,work,root,data/{containerd,kubelet,etcd,pods}}
  cp "$2" "$node/script"
  trap down EXIT   # for what fails from here on; exec, at the end, forgets it
  make_network "$1"
  make_cgroups
  join_cgroups "$BASHPID"
  local trees=cgroup2
  unified || trees=$(trees | xargs -n1 basename | xargs)   # told, because ip netns exec mounts a new /sys, which has none of them
  exec ip netns exec "$net" unshare -m -u -i -p -C -f bash "$(dirname "$(realpath "$0")")/node/enter" "$node" "$name" "$1" "$trees" "$lab/files:$REKINDLE_LAB_ROOTFS"
}

run_in_node() {
  local first
  first=$(first_process)
  [ -n "$first" ] || fail "node $name is not up"
  join_cgroups "$BASHPID"
  exec nsenter --target "$first" --mount --uts --ipc --net --pid --cgroup --wdns=/ -- \
    /usr/bin/env -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

down() {
  local pid tree tries left
  for tries in {1..200}; do   # killing the first process ends the PID namespace, containers included; waits up to 10 s for the last to be gone
    left=$(ip netns pids "$net" 2>/dev/null || true)
    [ -n "$left" ] || break
    for pid in $left; do kill -9 "$pid" 2>/dev/null || true; done
    sleep 0.05
  done
  [ -z "$left" ] || fail "processes of $name do not end: $left"
  ip link del "v-$net" 2>/dev/null || true   # a deleted namespace lets go of its veth only later
  ip netns del "$net" 2>/dev/null || true
  [ -n "$(ip -o link show master "$bridge" 2>/dev/null)" ] || ip link del "$bridge" 2>/dev/null || true
  for tree in $(trees); do
    for tries in {1..100}; do
      [ -d "$tree/$net" ] || break
      find "$tree/$net" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.05
    done
    [ ! -d "$tree/$net" ] || fail "the cgroup $tree/$net cannot be removed"
  done
  left=$(awk -v d="$node/" -v n="/run/netns/$net" 'index($2, d) == 1 || $2 == n {print $2}' /proc/mounts)
  [ -z "$left" ] || fail "mounts of $name are left: $left"
}

case $verb in
  up) up "$@" ;;
  exec) run_in_node "$@" ;;
  down) down ;;
  *) fail "unknown verb $verb" ;;
esac
