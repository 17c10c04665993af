//! `preflight`: all that would stand in the way, found before anything is written.

use anyhow::{Result, bail};
use nix::unistd::geteuid;

use super::InitCtx;
use crate::host::Root;
use crate::kubeadm::MANIFESTS_DIR;
use crate::plan::Change;

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    /// kubeadm's name of the check, which `--ignore-preflight-errors` takes.
    check: String,
    text: String,
    /// Only worth a warning.
    mild: bool,
}

pub(super) fn run(c: &mut InitCtx) -> Result<Change> {
    let mut found = Vec::new();
    let mut add = |check: String, text: String, mild| found.push(Finding { check, text, mild });
    machine(c, &mut add)?;
    ports(c, &mut add)?;
    files(c, &mut add)?;
    programs(c, &mut add)?;
    if !c.config.kubelet.is_empty() && c.config.kubelet.get("failSwapOn").is_some_and(|v| v == false) {
        found.retain(|f| f.check != "Swap");
    }
    let ignored = |f: &Finding| {
        let name = f.check.to_lowercase();
        c.options.ignore_preflight_errors.iter().any(|i| *i == name || i == "all")
    };
    let (mild, wrong): (Vec<_>, Vec<_>) = found.into_iter().partition(|f| f.mild || ignored(f));
    for f in mild {
        c.events.warn(format!("[WARNING {}]: {}", f.check, f.text));
    }
    if wrong.is_empty() {
        return Ok(Change::Unchanged);
    }
    let lines: Vec<_> = wrong.iter().map(|f| format!("[ERROR {}]: {}", f.check, f.text)).collect();
    bail!(
        "preflight checks failed: {} (leave checks out with --ignore-preflight-errors=NAME,…)",
        lines.join("; ")
    )
}

fn machine(c: &InitCtx, add: &mut impl FnMut(String, String, bool)) -> Result<()> {
    let root = &c.host.root;
    if !geteuid().is_root() {
        add("IsPrivilegedUser".into(), "this must run as root".into(), false);
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if cpus < 2 {
        add("NumCPU".into(), format!("{cpus} processor, and a control plane wants 2"), false);
    }
    let memory = memory_mb(&root.read_text("/proc/meminfo")?);
    if memory < 1700 {
        add("Mem".into(), format!("{memory} MB of memory, and a control plane wants 1700 MB"), false);
    }
    if root.read_text_opt("/proc/swaps")?.is_some_and(|swaps| swaps.lines().count() > 1) {
        add(
            "Swap".into(),
            "swap is on, and the kubelet refuses that unless its configuration says failSwapOn: false".into(),
            true,
        );
    }
    let forwards = |add: &mut dyn FnMut(String, String, bool), path: &str| -> Result<()> {
        if root.read_text_opt(path)?.unwrap_or_default().trim() != "1" {
            let name = format!("FileContent-{}", path.replace('/', "-"));
            add(name, format!("{path} is not 1, so that no packet reaches a pod: set it by sysctl"), false);
        }
        Ok(())
    };
    if c.config.is_v6() {
        forwards(add, "/proc/sys/net/ipv6/conf/default/forwarding")
    } else {
        forwards(add, "/proc/sys/net/ipv4/ip_forward")
    }
}

fn memory_mb(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn ports(c: &InitCtx, add: &mut impl FnMut(String, String, bool)) -> Result<()> {
    // From the kubelet's start on, our own Pods hold them.
    if c.began("kubelet-start") {
        return Ok(());
    }
    let mut taken = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        taken.extend(listening(&c.host.root.read_text_opt(table)?.unwrap_or_default()));
    }
    for port in [c.config.init.local_api_endpoint.bind_port, 10259, 10257, 10250, 2379, 2380] {
        if taken.contains(&port) {
            add(
                format!("Port-{port}"),
                format!("port {port} is in use: stop the program that holds it"),
                false,
            );
        }
    }
    Ok(())
}

/// The ports that somebody listens on, of the text of `/proc/net/tcp`.
fn listening(table: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        (state == "0A").then(|| u16::from_str_radix(local.rsplit(':').next()?, 16).ok())?
    };
    table.lines().skip(1).filter_map(port).collect()
}

fn files(c: &InitCtx, add: &mut impl FnMut(String, String, bool)) -> Result<()> {
    let root = &c.host.root;
    for (phase, name) in [
        ("control-plane/apiserver", "kube-apiserver"),
        ("control-plane/controller-manager", "kube-controller-manager"),
        ("control-plane/scheduler", "kube-scheduler"),
        ("etcd/local", "etcd"),
    ] {
        let path = format!("{MANIFESTS_DIR}/{name}.yaml");
        if root.exists(&path) && !c.began(phase) {
            add(
                format!("FileAvailable-{}", path.replace('/', "-")),
                format!("{path} exists: reset this node first"),
                false,
            );
        }
    }
    if let Some(local) = &c.config.cluster.etcd.local
        && !c.began("etcd/local")
        && !root.list(&local.data_dir)?.iter().all(|name| name == "lost+found")
    {
        let check = format!("DirAvailable-{}", local.data_dir.replace('/', "-"));
        add(
            check,
            format!(
                "{} is not empty: it may hold another cluster's data; reset this node first",
                local.data_dir
            ),
            false,
        );
    }
    Ok(())
}

/// Where programs are looked for.
const PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

fn programs(c: &InitCtx, add: &mut impl FnMut(String, String, bool)) -> Result<()> {
    let root = &c.host.root;
    let there = |name: &str| PATH.iter().any(|dir| root.exists(&format!("{dir}/{name}")));
    for name in ["losetup", "mount", "cp"] {
        if !there(name) {
            add(
                format!("FileExisting-{name}"),
                format!("{name} is not installed, and the kubelet needs it"),
                false,
            );
        }
    }
    if !there("kubelet") {
        add("KubeletVersion".into(), "kubelet is not installed".into(), false);
    }
    let socket = c.config.init.node_registration.cri_socket.trim_start_matches("unix://").to_owned();
    if !accepts(root, &socket)? {
        add("CRI".into(), format!("no container runtime answers at {socket}: is it running?"), false);
    }
    Ok(())
}

/// Whether a program listens on the socket, by the kernel's own table. `/var/run` is `/run` by another name.
fn accepts(root: &Root, socket: &str) -> Result<bool> {
    let table = root.read_text_opt("/proc/net/unix")?.unwrap_or_default();
    Ok(accepting(&table, socket))
}

fn accepting(table: &str, socket: &str) -> bool {
    let plain =
        |path: &str| path.strip_prefix("/var").filter(|p| p.starts_with("/run/")).unwrap_or(path).to_owned();
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace();
        // Flags: bit 16 is __SO_ACCEPTCON of the kernel's net.h.
        let accepting = fields.nth(3).is_some_and(|flags| flags == "00010000");
        accepting && fields.nth(3).is_some_and(|path| plain(path) == plain(socket))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_tables() {
        let tcp = "  sl  local_address rem_address   st tx_queue\n\
            0: 0100007F:192B 00000000:0000 0A 00000000:00000000\n\
            1: 0100007F:0016 0100007F:D431 01 00000000:00000000\n\
            2: 00000000000000000000000000000000:280B 00000000000000000000000000000000:0000 0A 0\n";
        assert_eq!(listening(tcp), [6443, 10251]);
        let unix = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 24 /run/containerd/containerd.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 25 /run/other.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 26\n";
        for (socket, wanted) in [
            ("/run/containerd/containerd.sock", true),
            ("/var/run/containerd/containerd.sock", true),
            ("/run/other.sock", false),
            ("/run/crio/crio.sock", false),
        ] {
            assert_eq!(accepting(unix, socket), wanted, "failed testcase: {socket}");
        }
        assert_eq!(memory_mb("MemTotal:       16384000 kB\nMemFree: 1 kB\n"), 16000);
    }
}
