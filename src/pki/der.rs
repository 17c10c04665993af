//! The little of DER and PEM that keys in kubeadm's forms need: PKCS#8 is what the crypto library writes; kubeadm's files
//! hold PKCS#1 (`RSA PRIVATE KEY`) and SEC1 (`EC PRIVATE KEY`), and other programs look for those words.

use anyhow::{Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// 1.2.840.113549.1.1.1
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.2.840.10045.2.1
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

/// One value: its tag, its content, and what follows it.
fn read(der: &[u8], wanted: u8) -> Result<(&[u8], &[u8])> {
    let [tag, length, rest @ ..] = der else { bail!("a private key that ends too early") };
    if *tag != wanted {
        bail!("a private key of an unknown form");
    }
    let (length, rest) = match length {
        short @ 0..=127 => (usize::from(*short), rest),
        0x81 | 0x82 => {
            let count = usize::from(length & 0x7f);
            let Some((bytes, rest)) = rest.split_at_checked(count) else {
                bail!("a private key that ends too early")
            };
            (bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
        }
        _ => bail!("a private key of an unknown form"),
    };
    rest.split_at_checked(length).ok_or_else(|| anyhow::anyhow!("a private key that ends too early"))
}

fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 128 => out.push(short),
        Ok(byte) => out.extend([0x81, byte]),
        Err(_) => {
            let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
            out.extend([0x82, high, low]);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A PKCS#8 private key as the PEM text that kubeadm writes for its kind. `public` is the key's public half as it stands
/// in a certificate (for an elliptic curve: the point).
///
/// # Errors
/// It is neither RSA nor an elliptic curve.
pub fn private_key_pem(pkcs8: &[u8], public: &[u8]) -> Result<String> {
    let (body, _) = read(pkcs8, SEQUENCE)?;
    let (_version, rest) = read(body, INTEGER)?;
    let (algorithm, rest) = read(rest, SEQUENCE)?;
    let (key, _) = read(rest, OCTET_STRING)?;
    let (kind, parameters) = read(algorithm, OID)?;
    if kind == RSA {
        return Ok(pem("RSA PRIVATE KEY", key));
    }
    if kind != EC {
        bail!("a private key that is neither RSA nor an elliptic curve");
    }
    let (inner, _) = read(key, SEQUENCE)?;
    let (version, rest) = read(inner, INTEGER)?;
    let (secret, _) = read(rest, OCTET_STRING)?;
    // Outside PKCS#8 the curve must be named, and Go writes the public half.
    let mut sec1 = value(INTEGER, version);
    sec1.extend(value(OCTET_STRING, secret));
    sec1.extend(value(0xa0, parameters));
    let bits: Vec<u8> = std::iter::once(0).chain(public.iter().copied()).collect();
    sec1.extend(value(0xa1, &value(0x03, &bits)));
    Ok(pem("EC PRIVATE KEY", &value(SEQUENCE, &sec1)))
}

/// PEM text with lines of 64 letters.
#[must_use]
pub fn pem(label: &str, der: &[u8]) -> String {
    let mut out = format!("-----BEGIN {label}-----\n");
    let text = STANDARD.encode(der);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}
