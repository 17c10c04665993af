//! What a missing value stands for: constants of the API (static), and facts of the machine (dynamic).

use std::net::IpAddr;

use super::documents::Documents;
use super::v1beta4::{API_VERSION, BootstrapToken, LocalEtcd, Taint, Timeouts};
use super::{Config, GoDuration, version};
use crate::host::Root;

/// The address that containerd listens at, upstream's default.
pub const CRI_SOCKET: &str = "unix:///var/run/containerd/containerd.sock";
/// The group that nodes join with.
pub const NODE_TOKEN_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";
/// The taint of a control-plane node.
pub const CONTROL_PLANE_TAINT: &str = "node-role.kubernetes.io/control-plane";

/// What the machine, and the way this program was called, put in where the documents say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Name of the host.
    pub hostname: String,
    /// Address of the interface that the default route leads through.
    pub address: Option<IpAddr>,
    /// `encryptionAlgorithm` where none is named: kubeadm's RSA-2048, or ECDSA-P256 on first boot.
    pub algorithm: String,
    /// `podSubnet` where none is named. Upstream has none; first boot brings a pod network and so needs one.
    pub pod_subnet: String,
    /// A token for the first join, where none is named.
    pub token: String,
}

/// Fills in what the documents leave out.
#[must_use]
pub fn apply(documents: Documents, facts: &Facts) -> Config {
    let mut init = documents.init.unwrap_or_default();
    let mut cluster = documents.cluster.unwrap_or_default();

    set(&mut init.api_version, API_VERSION);
    set(&mut init.kind, "InitConfiguration");
    if init.bootstrap_tokens.is_empty() {
        init.bootstrap_tokens.push(BootstrapToken::default());
    }
    for token in &mut init.bootstrap_tokens {
        set(&mut token.token, &facts.token);
        if token.ttl.is_none() && token.expires.is_none() {
            token.ttl = Some(GoDuration::hours(24));
        }
        if token.usages.is_empty() {
            token.usages = vec!["signing".to_owned(), "authentication".to_owned()];
        }
        if token.groups.is_empty() {
            token.groups = vec![NODE_TOKEN_GROUP.to_owned()];
        }
    }
    let node = &mut init.node_registration;
    set(&mut node.name, &facts.hostname);
    node.name = node.name.trim().to_lowercase();
    set(&mut node.cri_socket, CRI_SOCKET);
    if node.cri_socket.starts_with('/') {
        node.cri_socket.insert_str(0, "unix://");
    }
    if node.taints.is_none() {
        let (key, effect) = (CONTROL_PLANE_TAINT.to_owned(), "NoSchedule".to_owned());
        node.taints = Some(vec![Taint { key, effect, ..Taint::default() }]);
    }
    set(&mut node.image_pull_policy, "IfNotPresent");
    node.image_pull_serial.get_or_insert(true);
    let local = &mut init.local_api_endpoint;
    set(&mut local.advertise_address, &facts.address.map(|ip| ip.to_string()).unwrap_or_default());
    if local.bind_port == 0 {
        local.bind_port = 6443;
    }
    let timeouts = init.timeouts.get_or_insert_default();
    *timeouts = complete(timeouts);

    set(&mut cluster.api_version, API_VERSION);
    set(&mut cluster.kind, "ClusterConfiguration");
    if cluster.kubernetes_version.is_empty() || version::is_label(&cluster.kubernetes_version) {
        // Upstream asks the internet what a label stands for; offline it takes its own version, as here.
        version::KUBERNETES.clone_into(&mut cluster.kubernetes_version);
    }
    if !cluster.kubernetes_version.starts_with('v') {
        cluster.kubernetes_version.insert(0, 'v');
    }
    if cluster.etcd.external.is_none() {
        let etcd = cluster.etcd.local.get_or_insert_with(LocalEtcd::default);
        set(&mut etcd.data_dir, "/var/lib/etcd");
    }
    set(&mut cluster.networking.service_subnet, "10.96.0.0/12");
    set(&mut cluster.networking.pod_subnet, &facts.pod_subnet);
    set(&mut cluster.networking.dns_domain, "cluster.local");
    set(&mut cluster.certificates_dir, "/etc/kubernetes/pki");
    set(&mut cluster.image_repository, "registry.k8s.io");
    set(&mut cluster.cluster_name, "kubernetes");
    set(
        &mut cluster.encryption_algorithm,
        if facts.algorithm.is_empty() { "RSA-2048" } else { &facts.algorithm },
    );
    cluster.certificate_validity_period.get_or_insert(GoDuration::hours(8760));
    cluster.ca_certificate_validity_period.get_or_insert(GoDuration::hours(87600));
    for san in &mut cluster.api_server.cert_sans {
        *san = san.to_lowercase();
    }
    Config {
        init,
        cluster,
        kubelet: documents.kubelet.unwrap_or_default(),
        proxy: documents.proxy.unwrap_or_default(),
    }
}

fn set(value: &mut String, otherwise: &str) {
    if value.is_empty() {
        otherwise.clone_into(value);
    }
}

fn complete(given: &Timeouts) -> Timeouts {
    let or = |value: Option<GoDuration>, minutes| Some(value.unwrap_or(GoDuration::minutes(minutes)));
    Timeouts {
        control_plane_component_health_check: or(given.control_plane_component_health_check, 4),
        kubelet_health_check: or(given.kubelet_health_check, 4),
        kubernetes_api_call: or(given.kubernetes_api_call, 1),
        etcd_api_call: or(given.etcd_api_call, 2),
        tls_bootstrap: or(given.tls_bootstrap, 5),
        discovery: or(given.discovery, 5),
        upgrade_manifests: or(given.upgrade_manifests, 5),
    }
}

/// Name of the interface that the default route leads through: the one with the lowest metric in the text of
/// `/proc/net/route`.
#[must_use]
pub fn default_interface(routes: &str) -> Option<String> {
    let mut best: Option<(u32, &str)> = None;
    for line in routes.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, destination, _, flags, _, _, metric, mask, ..] = fields.as_slice() else { continue };
        let up = u32::from_str_radix(flags, 16).is_ok_and(|f| f & 1 == 1);
        let metric = metric.parse().unwrap_or(u32::MAX);
        if up && *destination == "00000000" && *mask == "00000000" && best.is_none_or(|(m, _)| metric < m) {
            best = Some((metric, name));
        }
    }
    best.map(|(_, name)| name.to_owned())
}

/// Chooses the address to advertise from those of the machine: a global one of the default route's interface. Where that
/// interface has only loopback or link-local addresses, one of `lo`, as upstream (routing daemons put it there).
#[must_use]
pub fn advertise_address(routes: &str, addresses: &[(String, IpAddr)]) -> Option<IpAddr> {
    let wanted = default_interface(routes)?;
    let global = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => {
            !(ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_unspecified()
                || ip.is_broadcast())
        }
        IpAddr::V6(ip) => {
            !(ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast() || ip.is_unspecified())
        }
    };
    let on = |name: &str| {
        addresses
            .iter()
            .filter(|(n, ip)| n == name && global(ip))
            .map(|(_, ip)| *ip)
            .min_by_key(IpAddr::is_ipv6)
    };
    on(&wanted).or_else(|| on("lo"))
}

/// Makes [`Facts`] of what the machine tells.
///
/// # Errors
/// The kernel's table of routes cannot be read.
pub fn facts(root: &Root, hostname: &str, addresses: &[(String, IpAddr)]) -> anyhow::Result<Facts> {
    let routes = root.read_text_opt("/proc/net/route")?.unwrap_or_default();
    Ok(Facts {
        hostname: hostname.trim().to_lowercase(),
        address: advertise_address(&routes, addresses),
        ..Facts::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth1\t00000000\t0101A8C0\t0003\t0\t0\t200\t00000000\t0\t0\t0\n\
        eth0\t00000000\t014D000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        eth0\t004D000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn advertises_the_default_route() {
        let at = |name: &str, ip: &str| (name.to_owned(), ip.parse::<IpAddr>().unwrap());
        let all = [
            at("lo", "127.0.0.1"),
            at("eth1", "192.168.1.5"),
            at("eth0", "fe80::1"),
            at("eth0", "fd00::5"),
            at("eth0", "10.0.77.5"),
        ];
        for (routes, addresses, wanted) in [
            (ROUTES, &all[..], Some("10.0.77.5")),
            (ROUTES, &all[..4], Some("fd00::5")),
            (ROUTES, &all[..3], None),
            ("Iface\n", &all[..], None),
            ("", &all[..], None),
        ] {
            let found = advertise_address(routes, addresses).map(|ip| ip.to_string());
            assert_eq!(found.as_deref(), wanted, "failed testcase: {addresses:?}");
        }
        let on_lo = [at("lo", "127.0.0.1"), at("lo", "10.9.9.9"), at("eth0", "fe80::1")];
        assert_eq!(advertise_address(ROUTES, &on_lo).unwrap().to_string(), "10.9.9.9");
    }

    #[test]
    fn taints_absent_and_empty_differ() {
        for (taints, wanted) in
            [("", 1), ("nodeRegistration: {taints: null}", 1), ("nodeRegistration: {taints: []}", 0)]
        {
            let text = format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n{taints}\n");
            let config = apply(super::super::documents::parse(&text, "f").unwrap(), &Facts::default());
            let found = config.init.node_registration.taints.unwrap().len();
            assert_eq!(found, wanted, "failed testcase: {taints}");
        }
    }
}
