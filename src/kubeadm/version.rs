//! Versions that this program installs, and the images that belong to them.

use super::Config;

/// The Kubernetes version that this program is made for.
pub const KUBERNETES: &str = "v1.36.3";
/// kubeadm 1.36's default tag for etcd, for Kubernetes 1.34 to 1.36.
const ETCD_TAG: &str = "3.6.8-0";
/// kubeadm 1.36's default tag for CoreDNS.
const COREDNS_TAG: &str = "v1.14.2";
/// kubeadm 1.36's pause image.
const PAUSE_TAG: &str = "3.10.2";
const DEFAULT_REPOSITORY: &str = "registry.k8s.io";

/// Whether `text` asks for "the newest of a channel" (`stable-1`, `latest-1.36`), which upstream looks up on the internet.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let rest = text.strip_prefix("stable").or_else(|| text.strip_prefix("latest"));
    rest.is_some_and(|r| r.is_empty() || r.starts_with('-'))
}

/// `v1.36.3` as (1, 36); `None` if it is no version.
#[must_use]
pub fn minor(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix('v').unwrap_or(text).splitn(3, '.');
    let (major, minor, patch) = (parts.next()?, parts.next()?, parts.next()?);
    let patch = patch.split(['-', '+']).next()?;
    patch.parse::<u32>().ok()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Image of a Kubernetes component (`kube-apiserver`…). A `+` is not allowed in a tag and becomes `_`.
#[must_use]
pub fn component_image(config: &Config, component: &str) -> String {
    let cluster = &config.cluster;
    format!("{}/{component}:{}", cluster.image_repository, cluster.kubernetes_version.replace('+', "_"))
}

/// Image of the local etcd.
#[must_use]
pub fn etcd_image(config: &Config) -> String {
    let local = config.cluster.etcd.local.clone().unwrap_or_default();
    let repository = first(&local.image_repository, &config.cluster.image_repository);
    format!("{repository}/etcd:{}", first(&local.image_tag, ETCD_TAG))
}

/// Image of CoreDNS; only the default registry has it in a folder of its own.
#[must_use]
pub fn coredns_image(config: &Config) -> String {
    let dns = &config.cluster.dns;
    let repository = first(&dns.image_repository, &config.cluster.image_repository);
    let folder = if repository == DEFAULT_REPOSITORY { "/coredns" } else { "" };
    format!("{repository}{folder}/coredns:{}", first(&dns.image_tag, COREDNS_TAG))
}

/// Image of the pause container.
#[must_use]
pub fn pause_image(config: &Config) -> String {
    format!("{}/pause:{PAUSE_TAG}", config.cluster.image_repository)
}

fn first<'a>(wanted: &'a str, otherwise: &'a str) -> &'a str {
    if wanted.is_empty() { otherwise } else { wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_labels() {
        for (text, wanted) in [
            ("v1.36.3", Some((1, 36))),
            ("1.35.0-rc.1+x", Some((1, 35))),
            ("v1.36", None),
            ("stable-1", None),
            ("1.x.3", None),
        ] {
            assert_eq!(minor(text), wanted, "failed testcase: {text}");
        }
        for (text, wanted) in
            [("stable-1", true), ("latest", true), ("stable-1.36", true), ("v1.36.3", false)]
        {
            assert_eq!(is_label(text), wanted, "failed testcase: {text}");
        }
    }
}
