//! init's local files with the power cut before every single effect: the next run ends well, and no authority or key that
//! was whole before is replaced. Certificates are checked by openssl.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test looks at files itself and fails by panic"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rekindle::host::{Effects, Host};
use rekindle::kubeadm::{Config, defaults, documents, validate};
use rekindle::phases::init::{Options, run_init};
use rekindle::plan::Events;

const PHASES: [&str; 4] = ["certs", "kubeconfig", "etcd", "control-plane"];

/// Certificates, the authority of each, and what openssl must find them good for.
const CERTIFICATES: [(&str, &str, &str); 10] = [
    ("ca", "ca", "any"),
    ("apiserver", "ca", "sslserver"),
    ("apiserver-kubelet-client", "ca", "sslclient"),
    ("front-proxy-ca", "front-proxy-ca", "any"),
    ("front-proxy-client", "front-proxy-ca", "sslclient"),
    ("etcd/ca", "etcd/ca", "any"),
    ("etcd/server", "etcd/ca", "sslserver"),
    ("etcd/peer", "etcd/ca", "sslclient"),
    ("etcd/healthcheck-client", "etcd/ca", "sslclient"),
    ("apiserver-etcd-client", "etcd/ca", "sslclient"),
];

struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Tree {
        let dir = std::env::temp_dir().join(format!("rekindle-init-{name}-{}", std::process::id()));
        if dir.exists() {
            fs::remove_dir_all(&dir).unwrap();
        }
        fs::create_dir_all(&dir).unwrap();
        Tree(dir)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn config(algorithm: &str) -> Config {
    let text = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nencryptionAlgorithm: {algorithm}\n\
         networking: {{podSubnet: 10.244.0.0/16}}\n"
    );
    let facts = defaults::Facts {
        hostname: "n1".into(),
        address: Some("10.0.0.1".parse().unwrap()),
        token: "abcdef.0123456789abcdef".into(),
        ..defaults::Facts::default()
    };
    let config = defaults::apply(documents::parse(&text, "test").unwrap(), &facts);
    assert_eq!(validate::validate(&config), []);
    config
}

/// Runs the local phases; `Err` where the power went.
fn run(dir: &Path, config: &Config, effects: &Effects) -> anyhow::Result<()> {
    let host = Host::with_effects(dir, effects.clone())?;
    let events = Events::new(host.clock.clone());
    for phase in PHASES {
        run_init(&host, &events, config.clone(), Options::default(), &[], Some(phase))?;
    }
    Ok(())
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// What the first run made, without what a cut write left behind.
fn made(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = files(dir);
    found.retain(|path, _| !path.to_string_lossy().ends_with(".rekindle-new"));
    found
}

fn openssl(args: &[&str]) {
    let out =
        Command::new("openssl").args(args).output().unwrap_or_else(|e| panic!("openssl is needed: {e}"));
    assert!(
        out.status.success(),
        "openssl {args:?}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

fn check(dir: &Path) {
    let pki = dir.join("etc/kubernetes/pki");
    let file = |name: &str, end: &str| pki.join(format!("{name}.{end}")).to_str().unwrap().to_owned();
    for (name, authority, purpose) in CERTIFICATES {
        let (crt, ca) = (file(name, "crt"), file(authority, "crt"));
        openssl(&["verify", "-x509_strict", "-purpose", purpose, "-CAfile", &ca, &crt]);
    }
    for name in ["admin", "super-admin", "kubelet", "controller-manager", "scheduler"] {
        assert!(dir.join(format!("etc/kubernetes/{name}.conf")).exists(), "failed testcase: {name}");
    }
    for name in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let path = dir.join(format!("etc/kubernetes/manifests/{name}.yaml"));
        assert!(fs::read_to_string(path).unwrap().starts_with("apiVersion: v1\nkind: Pod\n"));
    }
}

#[test]
fn a_cut_before_any_effect_loses_nothing() {
    let config = config("ECDSA-P256");
    let whole = Tree::new("whole");
    let effects = Effects::default();
    run(&whole.0, &config, &effects).unwrap();
    check(&whole.0);
    let count = effects.count();
    assert!(count > 100, "only {count} effects are counted");

    let before = files(&whole.0);
    run(&whole.0, &config, &Effects::default()).unwrap();
    assert!(before == files(&whole.0), "a rerun changed something");

    for cut in 0..count {
        let tree = Tree::new(&format!("cut-{cut}"));
        assert!(
            run(&tree.0, &config, &Effects::cut_after(cut)).is_err(),
            "failed testcase: cut {cut}: no cut"
        );
        let kept = made(&tree.0);
        run(&tree.0, &config, &Effects::default())
            .unwrap_or_else(|e| panic!("failed testcase: cut {cut}: {e:#}"));
        let after = made(&tree.0);
        for (path, bytes) in &kept {
            assert!(after.get(path) == Some(bytes), "failed testcase: cut {cut}: {} changed", path.display());
        }
        // All of openssl's checks for each cut would take minutes.
        if cut % 16 == 0 {
            check(&tree.0);
        }
    }
    println!("{count} cuts");
}

#[test]
fn every_algorithm_gives_certificates_that_openssl_takes() {
    for algorithm in ["RSA-2048", "ECDSA-P384"] {
        let tree = Tree::new(algorithm);
        run(&tree.0, &config(algorithm), &Effects::default()).unwrap();
        check(&tree.0);
        for (name, _, _) in CERTIFICATES {
            let key = tree.0.join(format!("etc/kubernetes/pki/{name}.key"));
            openssl(&["pkey", "-check", "-noout", "-in", key.to_str().unwrap()]);
            let kind = fs::read_to_string(&key).unwrap();
            let label = if algorithm.starts_with("RSA") { "RSA" } else { "EC" };
            assert!(
                kind.starts_with(&format!("-----BEGIN {label} PRIVATE KEY-----")),
                "failed testcase: {name}"
            );
        }
    }
}

#[test]
fn what_does_not_fit_is_named_and_left_alone() {
    let tree = Tree::new("wrong");
    let config = config("ECDSA-P256");
    run(&tree.0, &config, &Effects::default()).unwrap();
    let pki = tree.0.join("etc/kubernetes/pki");
    for (change, wanted) in [
        (("ca.key", None), "not supported yet"),
        (("apiserver.key", Some("front-proxy-client.key")), "not its own"),
        (("apiserver.crt", Some("apiserver-kubelet-client.crt")), "does not fit"),
        (("sa.pub", Some("ca.crt")), "not the public half"),
        (("etcd/server.crt", Some("sa.pub")), "does not fit"),
    ] {
        let (file, other) = change;
        let saved = fs::read(pki.join(file)).unwrap();
        match other {
            None => fs::remove_file(pki.join(file)).unwrap(),
            Some(other) => fs::write(pki.join(file), fs::read(pki.join(other)).unwrap()).unwrap(),
        }
        let before = files(&tree.0);
        let error = format!("{:#}", run(&tree.0, &config, &Effects::default()).unwrap_err());
        assert!(error.contains(wanted), "failed testcase: {file}: {error}");
        assert!(before == files(&tree.0), "failed testcase: {file}: something was changed");
        fs::write(pki.join(file), saved).unwrap();
    }
    run(&tree.0, &config, &Effects::default()).unwrap();
}
