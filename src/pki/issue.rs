//! Signs certificates with kubeadm's extensions: validity, key usages, names, and a random serial number.

use std::time::Duration;

use anyhow::{Context, Result};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};

use super::spec::{San, Usage};

/// How long before the start of the process certificates become valid, so that nodes whose clocks are a little behind
/// accept them (kubeadm: 5 minutes).
pub const BACKDATE: Duration = Duration::from_secs(300);

/// What to certify.
#[derive(Debug, Clone)]
pub struct Order {
    /// Common name.
    pub cn: String,
    /// Organisation, the group of a client.
    pub organization: Option<&'static str>,
    /// What it is for.
    pub usage: Usage,
    /// Names and addresses.
    pub sans: Vec<San>,
    /// First second of its validity, since 1970.
    pub not_before: u64,
    /// Last second of its validity, since 1970.
    pub not_after: u64,
}

fn params(order: &Order) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(order.not_before);
    params.not_after = epoch + Duration::from_secs(order.not_after);
    params.serial_number = Some(serial()?);
    let mut name = DistinguishedName::new();
    if let Some(organization) = order.organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, order.cn.as_str());
    params.distinguished_name = name;
    for san in &order.sans {
        params.subject_alt_names.push(match san {
            San::Dns(name) => SanType::DnsName(
                Ia5String::try_from(name.as_str())
                    .with_context(|| format!("the name {name:?} in a certificate"))?,
            ),
            San::Ip(ip) => SanType::IpAddress(*ip),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    let (server, client) = (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = order.usage != Usage::Authority;
    match order.usage {
        Usage::Authority => {
            params.key_usages.push(KeyUsagePurpose::KeyCertSign);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        Usage::Server => params.extended_key_usages = vec![server],
        Usage::Client => params.extended_key_usages = vec![client],
        Usage::ServerAndClient => params.extended_key_usages = vec![server, client],
    }
    Ok(params)
}

/// A random number from 1 to 2^63 - 2, as kubeadm's.
fn serial() -> Result<SerialNumber> {
    loop {
        let mut bytes = [0; 8];
        aws_lc_rs::rand::fill(&mut bytes).context("drawing a serial number")?;
        let number = i64::from_be_bytes(bytes) & i64::MAX;
        if number != 0 && number != i64::MAX {
            return Ok(SerialNumber::from_slice(&number.to_be_bytes()));
        }
    }
}

/// Signs an authority with its own key. PEM.
///
/// # Errors
/// A name cannot stand in a certificate, or the key does not sign.
pub fn authority(order: &Order, key: &KeyPair) -> Result<String> {
    let certificate =
        params(order)?.self_signed(key).with_context(|| format!("signing the authority {}", order.cn))?;
    Ok(certificate.pem().replace("\r\n", "\n"))
}

/// Signs a certificate for the public half of `key`. PEM.
///
/// # Errors
/// As [`authority`], or `authority_pem` is no certificate.
pub fn certificate(
    order: &Order,
    key: &KeyPair,
    authority_pem: &str,
    authority_key: &KeyPair,
) -> Result<String> {
    let issuer = Issuer::from_ca_cert_pem(authority_pem, authority_key)
        .context("reading the authority's certificate")?;
    let certificate =
        params(order)?.signed_by(key, &issuer).with_context(|| format!("signing {}", order.cn))?;
    Ok(certificate.pem().replace("\r\n", "\n"))
}
