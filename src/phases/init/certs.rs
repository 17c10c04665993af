//! `certs/*` and `kubeconfig/*`: keep what fits, make what is missing, refuse what does not fit.

use anyhow::{Context, Result, bail};
use rcgen::KeyPair;

use super::{InitCtx, kubernetes_file};
use crate::pki::issue::{BACKDATE, Order};
use crate::pki::keys::Keys;
use crate::pki::spec::{SERVICE_ACCOUNT, SPECS, Usage};
use crate::pki::{check, der, issue, keys, kubeconfig, spec};
use crate::plan::Change;

const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

impl InitCtx {
    /// The next new key. The first call begins to make all that this node lacks.
    fn new_key(&mut self) -> Result<KeyPair> {
        let algorithm = &self.config.cluster.encryption_algorithm;
        if self.keys.is_none() {
            let root = &self.host.root;
            let mut missing: Vec<String> =
                SPECS.iter().map(|s| self.config.pki(&format!("{}.key", s.base))).collect();
            missing.push(self.config.pki(SERVICE_ACCOUNT.0));
            missing.extend(kubeconfig::SPECS.iter().map(|s| kubernetes_file(s.file)));
            missing.retain(|file| !root.exists(file));
            self.keys = Some(Keys::start(algorithm, missing.len()));
        }
        self.keys.as_ref().context("making keys")?.take()
    }

    /// A key that is there, or a new one, which is written. The key comes before the certificate, so that after a cut
    /// between the two the same key is certified.
    fn key(&mut self, path: &str) -> Result<(KeyPair, Change)> {
        if let Some(text) = self.host.root.read_text_opt(path)? {
            let key = KeyPair::from_pem(&text)
                .with_context(|| format!("{path}: no private key that can be used: put the right one there, or remove it with its .crt"))?;
            return Ok((key, Change::Unchanged));
        }
        let key = self.new_key()?;
        self.write(path, &keys::pem(&key)?, PRIVATE)?;
        Ok((key, Change::Created))
    }

    fn write(&self, path: &str, text: &str, mode: u32) -> Result<()> {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.host.root.create_dir_all(folder, 0o755)?;
        }
        self.host.root.write_atomic(path, text.as_bytes(), mode)
    }

    fn warn_if_expired(&self, what: &str, pem: &str) -> Result<()> {
        let (from, to) = check::validity(pem)?;
        if self.started > to {
            self.events.warn(format!("{what} has expired: remove it, and its key, to have it made anew"));
        } else if self.started < from {
            self.events.warn(format!("{what} is not valid yet: is this machine's clock right?"));
        }
        Ok(())
    }
}

/// `certs/NAME`.
pub(super) fn certificate(c: &mut InitCtx, name: &str) -> Result<Change> {
    let spec = spec::by_name(name).with_context(|| format!("certs/{name}: no such certificate"))?;
    let (crt, key_file) =
        (c.config.pki(&format!("{}.crt", spec.base)), c.config.pki(&format!("{}.key", spec.base)));
    let found = c.host.root.read_text_opt(&crt)?;
    if found.is_some() && !c.host.root.exists(&key_file) {
        bail!(
            "{crt} is there, but not {key_file}: put the key beside it or remove the certificate (an external authority, whose key stays elsewhere, is not supported yet by rekindle)"
        );
    }
    let authority = match spec.authority {
        None => None,
        Some(base) => {
            let read = |end: &str| c.host.root.read_text(&c.config.pki(&format!("{base}.{end}")));
            let key = KeyPair::from_pem(&read("key")?)
                .with_context(|| format!("{base}.key: no private key that can be used"))?;
            Some((read("crt")?, key))
        }
    };
    let (key, change) = c.key(&key_file)?;
    let (cn, sans) = spec.wanted(&c.config);
    if let Some(pem) = found {
        let authority = authority.as_ref().map(|(pem, _)| pem.as_str());
        check::check(&pem, &key, authority, &sans).with_context(|| {
            format!("{crt} does not fit: remove it and {key_file} to have both made anew")
        })?;
        c.warn_if_expired(&crt, &pem)?;
        return Ok(change);
    }
    let validity = match spec.usage {
        Usage::Authority => c.config.cluster.ca_certificate_validity_period,
        _ => c.config.cluster.certificate_validity_period,
    };
    let order = Order {
        cn,
        organization: None,
        usage: spec.usage,
        sans,
        not_before: c.started.saturating_sub(BACKDATE.as_secs()),
        not_after: c.started + validity.unwrap_or_default().0.as_secs(),
    };
    let pem = match &authority {
        None => issue::authority(&order, &key)?,
        Some((pem, signer)) => issue::certificate(&order, &key, pem, signer)?,
    };
    c.write(&crt, &pem, PUBLIC)?;
    Ok(Change::Created)
}

/// `certs/sa`: a key pair without a certificate.
pub(super) fn service_account(c: &mut InitCtx) -> Result<Change> {
    let (private, public) = (c.config.pki(SERVICE_ACCOUNT.0), c.config.pki(SERVICE_ACCOUNT.1));
    let found = c.host.root.read_text_opt(&public)?;
    if found.is_some() && !c.host.root.exists(&private) {
        bail!("{public} is there, but not {private}: put the key beside it, or remove it");
    }
    let (key, change) = c.key(&private)?;
    let wanted = key.public_key_pem().replace("\r\n", "\n");
    match found {
        Some(found) if found == wanted => Ok(change),
        Some(_) => bail!("{public} is not the public half of {private}: remove it to have it written anew"),
        None => {
            c.write(&public, &wanted, PRIVATE)?;
            Ok(Change::Created)
        }
    }
}

/// `kubeconfig/NAME`.
pub(super) fn kubeconfig(c: &mut InitCtx, name: &str) -> Result<Change> {
    let spec = kubeconfig::by_name(name).with_context(|| format!("kubeconfig/{name}: no such kubeconfig"))?;
    let path = kubernetes_file(spec.file);
    let authority = c.host.root.read_text(&c.config.pki("ca.crt"))?;
    let server = if spec.local { c.config.local_endpoint() } else { c.config.control_plane_url() };
    if let Some(text) = c.host.root.read_text_opt(&path)? {
        let found = kubeconfig::read(&text, &path)?;
        if check::certificates(&found.authority).ok() != Some(check::certificates(&authority)?) {
            bail!(
                "{path} trusts another authority than {}: remove it to have it made anew",
                c.config.pki("ca.crt")
            );
        }
        if found.server != server {
            c.events.warn(format!(
                "{path} goes to {}, not to {server}: remove it to have it made anew",
                found.server
            ));
        }
        if !found.certificate.is_empty() {
            c.warn_if_expired(&path, &found.certificate)?;
        }
        return Ok(Change::Unchanged);
    }
    let signer = c.host.root.read_text(&c.config.pki("ca.key"))?;
    let signer = KeyPair::from_pem(&signer).context("reading the key of the cluster's authority")?;
    let key = c.new_key()?;
    let user = (spec.user)(&c.config);
    let order = Order {
        cn: user.clone(),
        organization: spec.group,
        usage: Usage::Client,
        sans: Vec::new(),
        // As upstream: these certificates are valid from the authority's first second on.
        not_before: check::validity(&authority)?.0,
        not_after: c.started + c.config.cluster.certificate_validity_period.unwrap_or_default().0.as_secs(),
    };
    let certificate = issue::certificate(&order, &key, &authority, &signer)?;
    let name = &c.config.cluster.cluster_name;
    let text = kubeconfig::text(name, &server, &authority, &user, &certificate, &keys::pem(&key)?)?;
    c.write(&path, &text, PRIVATE)?;
    Ok(Change::Created)
}

/// The certificate of the authority as one PEM block, without what else may stand in the file.
pub(super) fn authority_pem(c: &InitCtx) -> Result<String> {
    let text = c.host.root.read_text(&c.config.pki("ca.crt"))?;
    Ok(check::certificates(&text)?.iter().map(|der| der::pem("CERTIFICATE", der)).collect())
}
