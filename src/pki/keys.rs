//! Keys made by threads beside the work: RSA keys take a fifth of a second each, and a control plane wants sixteen.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context, Result, bail};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize};

use super::der;

/// Makes one key.
///
/// # Errors
/// `algorithm` is none of the API's, or there is no randomness.
pub fn generate(algorithm: &str) -> Result<KeyPair> {
    let key = match algorithm {
        "ECDSA-P256" => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        "ECDSA-P384" => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        "RSA-2048" => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        "RSA-3072" => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072),
        "RSA-4096" => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
        other => bail!("encryptionAlgorithm {other} is unknown"),
    };
    key.with_context(|| format!("making a key of kind {algorithm}"))
}

/// The key as the text of its file.
///
/// # Errors
/// It is of a kind that kubeadm does not write.
pub fn pem(key: &KeyPair) -> Result<String> {
    der::private_key_pem(key.serialized_der(), key.public_key_raw())
}

/// Keys of one algorithm that are being made.
#[derive(Debug)]
pub struct Keys {
    algorithm: String,
    made: Receiver<Result<KeyPair>>,
}

impl Keys {
    /// Begins to make `count` keys on all processors.
    #[must_use]
    pub fn start(algorithm: &str, count: usize) -> Keys {
        let (send, made) = channel();
        let left = Arc::new(AtomicUsize::new(count));
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count);
        for _ in 0..threads {
            let (algorithm, left, send) = (algorithm.to_owned(), Arc::clone(&left), send.clone());
            let work = move || {
                let take = |n: usize| n.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    if send.send(generate(&algorithm)).is_err() {
                        return; // nobody wants the rest
                    }
                }
            };
            // Where no thread can be had, the taker makes its key itself.
            if std::thread::Builder::new().stack_size(256 * 1024).spawn(work).is_err() {
                break;
            }
        }
        Keys { algorithm: algorithm.to_owned(), made }
    }

    /// The next key.
    ///
    /// # Errors
    /// It could not be made.
    pub fn take(&self) -> Result<KeyPair> {
        match self.made.recv() {
            Ok(key) => key,
            Err(_) => generate(&self.algorithm),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_keys_can_be_taken_than_were_ordered() {
        let keys = Keys::start("ECDSA-P256", 2);
        let made: std::collections::BTreeSet<_> =
            (0..5).map(|_| pem(&keys.take().unwrap()).unwrap()).collect();
        assert_eq!(made.len(), 5);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (algorithm, label) in [("ECDSA-P256", "EC"), ("ECDSA-P384", "EC"), ("RSA-2048", "RSA")] {
            let key = generate(algorithm).unwrap();
            let text = pem(&key).unwrap();
            assert!(
                text.starts_with(&format!("-----BEGIN {label} PRIVATE KEY-----\n")),
                "failed testcase: {algorithm}"
            );
            let read = KeyPair::from_pem(&text).unwrap();
            assert_eq!(read.public_key_raw(), key.public_key_raw(), "failed testcase: {algorithm}");
        }
        assert!(generate("DSA").is_err());
    }
}
