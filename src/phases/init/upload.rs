//! `upload-config/*` and `upload-certs`: what later nodes and upgrades read from the cluster.

use anyhow::{Context, Result, bail};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{InitCtx, bootstrap};
use crate::kubeadm::defaults::NODE_TOKEN_GROUP;
use crate::kubeadm::{documents, go_yaml};
use crate::manifests::rbac;
use crate::plan::Change;

pub(super) fn kubeadm_config(c: &mut InitCtx) -> Result<Change> {
    let mut cluster = c.config.cluster.clone();
    cluster.dns.disabled |= c.options.skip_coredns;
    cluster.proxy.disabled |= c.options.skip_kube_proxy;
    let mut objects = vec![json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kubeadm-config", "namespace": "kube-system"},
        "data": {"ClusterConfiguration": documents::write(&cluster)?},
    })];
    let readers = [rbac::group(NODE_TOKEN_GROUP), rbac::group("system:nodes")];
    objects.extend(rbac::reader(
        "kube-system",
        "kubeadm:nodes-kubeadm-config",
        "configmaps",
        "kubeadm-config",
        &readers,
    ));
    let user = rbac::user("kube-apiserver-kubelet-client");
    let mut change = bootstrap::cluster_admins(c)?;
    objects.push(rbac::cluster_role_binding(
        "kubeadm:apiserver-kubelet-client",
        "system:kubelet-api-admin",
        user,
    ));
    let deadline = c.api_deadline();
    change = change.or(c.cluster()?.apply_all(&objects, deadline)?);
    Ok(change)
}

pub(super) fn kubelet_config(c: &mut InitCtx) -> Result<Change> {
    let mut map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kubelet-config", "namespace": "kube-system"},
        "data": {"kubelet": go_yaml::write(&c.kubelet_configuration())},
    });
    if c.config.kubelet.is_empty() {
        rbac::sign(&mut map);
    }
    let readers = [rbac::group("system:nodes"), rbac::group(NODE_TOKEN_GROUP)];
    let mut objects = vec![map];
    objects.extend(rbac::reader(
        "kube-system",
        "kubeadm:kubelet-config",
        "configmaps",
        "kubelet-config",
        &readers,
    ));
    let deadline = c.api_deadline();
    c.cluster()?.apply_all(&objects, deadline)
}

/// Keys of the Secret, and the files below the PKI that they hold.
const SHARED: [(&str, &str); 8] = [
    ("ca.crt", "ca.crt"),
    ("ca.key", "ca.key"),
    ("front-proxy-ca.crt", "front-proxy-ca.crt"),
    ("front-proxy-ca.key", "front-proxy-ca.key"),
    ("sa.pub", "sa.pub"),
    ("sa.key", "sa.key"),
    ("etcd-ca.crt", "etcd/ca.crt"),
    ("etcd-ca.key", "etcd/ca.key"),
];

/// How long the uploaded authorities stay, as upstream.
const UPLOADED: u64 = 2 * 3600;

pub(super) fn certs(c: &mut InitCtx) -> Result<Change> {
    if c.config.init.certificate_key.is_empty() {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).context("drawing a certificate key")?;
        c.config.init.certificate_key = hex(&key);
    }
    let key = cipher(&c.config.init.certificate_key)?;
    if let Some(out) = c.options.out.as_mut().filter(|_| !c.options.skip_certificate_key_print) {
        // Wrappers take the line after this one.
        let text = format!("[upload-certs] Using certificate key:\n{}", c.config.init.certificate_key);
        out.write_line(&text).context("printing the certificate key")?;
    }
    let mut files = Vec::new();
    for (name, file) in SHARED {
        files.push((name, c.host.root.read_opt(&c.config.pki(file))?.unwrap_or_default()));
    }
    let mut secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "kubeadm-certs", "namespace": "kube-system"},
        "type": "Opaque",
    });
    let deadline = c.api_deadline();
    let readers = rbac::reader(
        "kube-system",
        "kubeadm:kubeadm-certs",
        "secrets",
        "kubeadm-certs",
        &[rbac::group(NODE_TOKEN_GROUP)],
    );
    let change = c.cluster()?.apply_all(&readers, deadline)?;
    if let Some(found) = c.cluster()?.get(&secret, deadline)?
        && files.iter().all(|(name, plain)| opens_to(&key, &found["data"][*name], plain))
    {
        return Ok(change);
    }
    // Deleting the token that owns it deletes the Secret: the cluster cleans up by itself.
    let ttl = if c.options.keep_uploaded_certs { None } else { Some(c.started + UPLOADED) };
    let owner = bootstrap::token_secret(&bootstrap::random_token()?, "", &[], &[], ttl);
    let cluster = c.cluster()?;
    cluster.apply(&owner, deadline)?;
    let owner =
        cluster.get(&owner, deadline)?.context("the token that owns the uploaded certificates is gone")?;
    secret["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "Secret", "controller": true, "blockOwnerDeletion": true,
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
    }]);
    let mut data = Map::new();
    for (name, plain) in &files {
        data.insert((*name).to_owned(), Value::String(STANDARD.encode(seal(&key, plain)?)));
    }
    secret["data"] = data.into();
    Ok(cluster.apply(&secret, deadline)?.or(change))
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn cipher(hex: &str) -> Result<LessSafeKey> {
    let digits = hex
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()));
    let Some(bytes) = digits.collect::<Option<Vec<u8>>>().filter(|b| b.len() == 32) else {
        bail!("certificateKey: want 64 hexadecimal digits");
    };
    let key = UnboundKey::new(&AES_256_GCM, &bytes).context("using the certificate key")?;
    Ok(LessSafeKey::new(key))
}

/// Nonce, ciphertext, tag. A file that is not there stays an empty value.
fn seal(key: &LessSafeKey, plain: &[u8]) -> Result<Vec<u8>> {
    if plain.is_empty() {
        return Ok(Vec::new());
    }
    let mut nonce = [0; NONCE_LEN];
    aws_lc_rs::rand::fill(&mut nonce).context("drawing a nonce")?;
    let mut text = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text)
        .context("encrypting a certificate")?;
    Ok([nonce.as_slice(), &text].concat())
}

fn opens_to(key: &LessSafeKey, value: &Value, plain: &[u8]) -> bool {
    let Ok(sealed) = STANDARD.decode(value.as_str().unwrap_or_default()) else { return false };
    let Some((nonce, text)) = sealed.split_at_checked(NONCE_LEN) else {
        return plain.is_empty() && sealed.is_empty();
    };
    let (Ok(nonce), mut text) = (Nonce::try_assume_unique_for_key(nonce), text.to_vec()) else {
        return false;
    };
    key.open_in_place(nonce, Aad::empty(), &mut text).is_ok_and(|found| found == plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_only() {
        let (key, other) = (cipher(&"ab".repeat(32)).unwrap(), cipher(&"cd".repeat(32)).unwrap());
        let sealed = Value::String(STANDARD.encode(seal(&key, b"secret").unwrap()));
        assert!(opens_to(&key, &sealed, b"secret"));
        assert!(!opens_to(&key, &sealed, b"other"));
        assert!(!opens_to(&other, &sealed, b"secret"));
        assert!(opens_to(&key, &Value::Null, b""));
        for bad in ["", "ab", "zz"] {
            assert!(cipher(&bad.repeat(32)).is_err() || bad == "ab", "failed testcase: {bad}");
        }
    }
}
