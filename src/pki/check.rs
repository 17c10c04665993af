//! Whether a certificate that is there already may stay: its key fits, its authority signed it, it bears every name that
//! is wanted. Mistakes are named; only an expiry is a warning, as upstream's.

use std::net::IpAddr;

use anyhow::{Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use rcgen::KeyPair;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::spec::San;

/// The DER forms of the certificates in a PEM text: the first is the certificate, others are its chain.
///
/// # Errors
/// There is none, or one is damaged.
pub fn certificates(pem: &str) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for block in Pem::iter_from_buffer(pem.as_bytes()) {
        let block = block.map_err(|_| anyhow::anyhow!("damaged PEM text"))?;
        if block.label == "CERTIFICATE" {
            parse(&block.contents)?;
            found.push(block.contents);
        }
    }
    if found.is_empty() {
        bail!("no certificate in it");
    }
    Ok(found)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(_) => bail!("a damaged certificate"),
    }
}

/// When it begins and ends to be valid, in seconds since 1970.
///
/// # Errors
/// The text holds no certificate.
pub fn validity(pem: &str) -> Result<(u64, u64)> {
    let all = certificates(pem)?;
    let validity = parse(&all[0])?.validity().clone();
    let seconds = |t: i64| u64::try_from(t).unwrap_or(0);
    Ok((seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp())))
}

/// `sha256:` and the digest of the public key as it stands in the certificate, which joining nodes pin.
///
/// # Errors
/// The text holds no certificate.
pub fn pin(pem: &str) -> Result<String> {
    let all = certificates(pem)?;
    let hash = digest(&SHA256, parse(&all[0])?.public_key().raw);
    Ok(format!("sha256:{}", hash.as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>()))
}

/// Checks the certificate `pem` against its key, its authority and the names that it must bear.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(pem: &str, key: &KeyPair, authority: Option<&str>, wanted: &[San]) -> Result<()> {
    let all = certificates(pem)?;
    let certificate = parse(&all[0])?;
    if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        bail!("the key beside it is not its own");
    }
    match authority {
        None if !certificate.is_ca() => bail!("it is no authority"),
        None => {}
        Some(authority) => signed_by(&all, authority)?,
    }
    if authority.is_some() {
        let names = names(&certificate);
        let missing: Vec<_> =
            wanted.iter().filter(|san| !names.contains(san)).map(ToString::to_string).collect();
        if !missing.is_empty() {
            bail!("it is not valid for {}", missing.join(", "));
        }
    }
    Ok(())
}

fn names(certificate: &X509Certificate<'_>) -> Vec<San> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let ip = |bytes: &[u8]| -> Option<IpAddr> {
        <[u8; 4]>::try_from(bytes)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
            .ok()
    };
    let name = |general: &GeneralName<'_>| match general {
        GeneralName::DNSName(name) => Some(San::Dns((*name).to_owned())),
        GeneralName::IPAddress(bytes) => ip(bytes).map(San::Ip),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

/// Whether a way leads from the first certificate over the others to one in `authority`.
fn signed_by(chain: &[Vec<u8>], authority: &str) -> Result<()> {
    let roots = certificates(authority)?;
    let mut certificate = parse(&chain[0])?;
    for step in 0..=chain.len() {
        for root in &roots {
            if verifies(&certificate, &parse(root)?) {
                return Ok(());
            }
        }
        let mut next = None;
        for other in chain.iter().skip(1) {
            let other = parse(other)?;
            if other.is_ca() && verifies(&certificate, &other) && step < chain.len() {
                next = Some(other);
                break;
            }
        }
        let Some(found) = next else { break };
        certificate = found;
    }
    bail!("its authority did not sign it")
}

fn verifies(certificate: &X509Certificate<'_>, signer: &X509Certificate<'_>) -> bool {
    if certificate.issuer().as_raw() != signer.subject().as_raw() {
        return false;
    }
    let key = signer.public_key().subject_public_key.data.as_ref();
    let Some(algorithms) = algorithms(&certificate.signature_algorithm.algorithm.to_id_string()) else {
        return false;
    };
    algorithms.iter().any(|algorithm| {
        UnparsedPublicKey::new(*algorithm, key)
            .verify(certificate.tbs_certificate.as_ref(), certificate.signature_value.data.as_ref())
            .is_ok()
    })
}

/// The algorithms that an identifier may stand for: with elliptic curves it names the digest, and the key the curve.
fn algorithms(oid: &str) -> Option<Vec<&'static dyn VerificationAlgorithm>> {
    Some(match oid {
        "1.2.840.113549.1.1.11" => vec![&RSA_PKCS1_2048_8192_SHA256],
        "1.2.840.113549.1.1.12" => vec![&RSA_PKCS1_2048_8192_SHA384],
        "1.2.840.113549.1.1.13" => vec![&RSA_PKCS1_2048_8192_SHA512],
        "1.2.840.10045.4.3.2" => vec![&ECDSA_P256_SHA256_ASN1, &ECDSA_P384_SHA256_ASN1],
        "1.2.840.10045.4.3.3" => vec![&ECDSA_P384_SHA384_ASN1, &ECDSA_P256_SHA384_ASN1],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::issue::{Order, authority, certificate};
    use super::super::keys::generate;
    use super::super::spec::Usage;
    use super::*;

    fn order(cn: &str, usage: Usage, sans: Vec<San>) -> Order {
        Order {
            cn: cn.into(),
            organization: None,
            usage,
            sans,
            not_before: 1_700_000_000,
            not_after: 1_900_000_000,
        }
    }

    #[test]
    fn keeps_what_fits_and_names_what_does_not() {
        for algorithm in ["ECDSA-P256", "ECDSA-P384", "RSA-2048"] {
            let keys: Vec<_> = (0..4).map(|_| generate(algorithm).unwrap()).collect();
            let ca = authority(&order("kubernetes", Usage::Authority, vec![]), &keys[0]).unwrap();
            let other = authority(&order("kubernetes", Usage::Authority, vec![]), &keys[1]).unwrap();
            let middle =
                certificate(&order("middle", Usage::Authority, vec![]), &keys[3], &ca, &keys[0]).unwrap();
            let san = |name: &str| San::Dns(name.to_owned());
            let ip = San::Ip("10.0.0.1".parse().unwrap());
            let wanted = vec![san("a"), ip.clone()];
            let leaf =
                certificate(&order("x", Usage::Server, wanted.clone()), &keys[2], &ca, &keys[0]).unwrap();
            let below =
                certificate(&order("x", Usage::Server, wanted.clone()), &keys[2], &middle, &keys[3]).unwrap();
            let chain = format!("{below}{middle}");
            let cases = [
                (leaf.as_str(), &keys[2], Some(ca.as_str()), wanted.clone(), ""),
                (&chain, &keys[2], Some(&ca), wanted.clone(), ""),
                (&below, &keys[2], Some(&ca), wanted.clone(), "did not sign"),
                (&leaf, &keys[1], Some(&ca), wanted.clone(), "not its own"),
                (&leaf, &keys[2], Some(&other), wanted.clone(), "did not sign"),
                (&leaf, &keys[2], Some(&ca), vec![san("b"), ip], "not valid for b"),
                (&leaf, &keys[2], None, vec![], "no authority"),
                (&ca, &keys[0], None, vec![], ""),
            ];
            for (n, (pem, key, authority, sans, wrong)) in cases.into_iter().enumerate() {
                let found =
                    check(pem, key, authority, &sans).map_or_else(|e| e.to_string(), |()| String::new());
                assert!(
                    found.contains(wrong) && found.is_empty() == wrong.is_empty(),
                    "failed testcase: {n}: {found}"
                );
            }
            assert_eq!(validity(&leaf).unwrap(), (1_700_000_000, 1_900_000_000));
        }
        for text in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(certificates(text).is_err(), "failed testcase: {text}");
        }
    }
}
