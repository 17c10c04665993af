//! The keys that are known in each place: those that we do, those that the originals do and we do not yet, and those
//! that are none of our business. Names are yip's, cloud-init's and Kairos'.

/// The keys of one kind of map.
#[derive(Debug)]
pub struct Known {
    /// What we do.
    pub done: &'static [&'static str],
    /// What the originals do and we do not yet.
    pub missing: &'static [&'static str],
    /// What is for other programs, or has no meaning on a node that is installed: nothing is said of them.
    pub foreign: &'static [&'static str],
}

/// Top level of a `#cloud-config` document.
pub const DOCUMENT: Known = Known {
    done: &["name", "stages", "hostname", "users", "ssh_authorized_keys", "write_files", "runcmd", "cluster"],
    missing: &[
        "growpart",
        "milpa_files",
        "config_url",
        "cloud-init-paths",
        "bundles",
        "grub_options",
        "env",
        "strict",
        "kcrypt",
        "k3s",
        "k0s",
        "p2p",
    ],
    // Kairos' installer, upgrader and reset command read these from the same files (docs: configuration reference).
    foreign: &[
        "install",
        "reset",
        "upgrade",
        "debug",
        "eject-cd",
        "cosign",
        "cosign-key",
        "verify",
        "fail_on_bundles_errors",
        "providers",
        "logs",
    ],
};

/// Top level of a document without the header: yip's own form.
pub const YIP: Known = Known { done: &["name", "stages"], missing: &[], foreign: &[] };

/// A step of a stage.
pub const STEP: Known = Known {
    done: &[
        "name",
        "if",
        "if_files",
        "directories",
        "files",
        "commands",
        "hostname",
        "sysctl",
        "users",
        "authorized_keys",
        "modules",
        "timesyncd",
        "systemctl",
        "environment",
        "environment_file",
    ],
    missing: &[
        "after",
        "dns",
        "downloads",
        "git",
        "ensure_entities",
        "delete_entities",
        "systemd_firstboot",
        "datasource",
        "layout",
        "package_pins",
        "packages",
        "unpack_images",
    ],
    foreign: &[],
};

/// Conditions of a step that we cannot judge yet: a step with one is left out rather than run where it must not.
pub const CONDITIONS: [&str; 5] = ["node", "only_os", "only_os_version", "only_arch", "only_service_manager"];

/// A user.
pub const USER: Known = Known {
    done: &[
        "name",
        "passwd",
        "lock_passwd",
        "ssh_authorized_keys",
        "gecos",
        "homedir",
        "no_create_home",
        "primary_group",
        "groups",
        "no_user_group",
        "system",
        "shell",
        "uid",
    ],
    missing: &[],
    // There is no login log on a node whose /var is laid anew.
    foreign: &["no_log_init"],
};

/// A folder.
pub const DIRECTORY: Known =
    Known { done: &["path", "permissions", "owner", "group"], missing: &[], foreign: &[] };

/// A file of a step.
pub const FILE: Known = Known {
    done: &["path", "permissions", "owner", "group", "content", "encoding", "owner_string"],
    missing: &[],
    foreign: &[],
};

/// A file of `write_files`.
pub const WRITE_FILE: Known = Known {
    done: &["path", "permissions", "owner", "content", "encoding"],
    missing: &["append", "defer", "source"],
    foreign: &[],
};

/// `systemctl`.
pub const SYSTEMCTL: Known =
    Known { done: &["enable", "disable", "mask", "start", "overrides"], missing: &[], foreign: &[] };

/// A drop-in file.
pub const OVERRIDE: Known = Known { done: &["service", "name", "content"], missing: &[], foreign: &[] };

/// `if_files`.
pub const IF_FILES: Known = Known { done: &["any", "all", "none"], missing: &[], foreign: &[] };

/// The `cluster:` block.
pub const CLUSTER: Known = Known {
    done: &["cluster_token", "control_plane_host", "role", "config"],
    missing: &["env", "providerConfig", "ca_certs", "import_local_images", "local_images_path"],
    // Where the provider leaves its own generated file; we leave none.
    foreign: &["cluster_config_path"],
};

/// `config` of the `cluster:` block.
pub const CLUSTER_CONFIG: Known = Known {
    done: &[
        "clusterConfiguration",
        "initConfiguration",
        "joinConfiguration",
        "kubeletConfiguration",
        "kubeProxyConfiguration",
    ],
    missing: &[],
    foreign: &[],
};

impl Known {
    /// The key that was most likely meant by `key`.
    #[must_use]
    pub fn nearest(&self, key: &str) -> Option<&'static str> {
        let all = self.done.iter().chain(self.missing).chain(self.foreign);
        let near = all.map(|known| (distance(key, known), *known)).min_by_key(|(d, _)| *d)?;
        // Two slips, but not so many that another word is meant.
        (near.0 <= 2 && near.0 * 2 < key.len()).then_some(near.1)
    }
}

/// How many letters have to be put in, taken out or replaced to make `b` of `a`, case and `-`/`_` apart (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let fold = |s: &str| s.to_lowercase().replace('-', "_").chars().take(64).collect::<Vec<_>>();
    let (a, b) = (fold(a), fold(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = replaced.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_key_that_was_meant() {
        for (known, key, nearest) in [
            (&STEP, "systctl", Some("sysctl")),
            (&FILE, "permsisions", Some("permissions")),
            (&FILE, "owner-string", Some("owner_string")),
            (&DOCUMENT, "clsuter", Some("cluster")),
            (&DOCUMENT, "Stages", Some("stages")),
            (&DOCUMENT, "timezone", None),
            (&DOCUMENT, "x", None),
            (&DOCUMENT, "", None),
        ] {
            assert_eq!(known.nearest(key), nearest, "failed testcase: {key}");
        }
    }
}
