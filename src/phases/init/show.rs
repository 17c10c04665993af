//! `show-join-command`: the text that people and wrappers read at the end of an init.

use anyhow::{Context, Result};

use super::{InitCtx, certs, kubernetes_file};
use crate::kubeadm::net::host_port;
use crate::pki::check;
use crate::plan::Change;

const WITHHELD: &str = "<value withheld>";

/// What stands in a join command.
struct Join<'a> {
    endpoint: &'a str,
    token: &'a str,
    pins: &'a [String],
    /// The certificate key for a control-plane node; empty if the certificates were not uploaded.
    certificate_key: Option<&'a str>,
}

/// The command as upstream prints it: continuation lines indented by a tab, a space at the end.
fn command(join: &Join<'_>) -> String {
    let mut text = format!("kubeadm join {} --token {} \\\n", join.endpoint, join.token);
    let pins: Vec<_> = join.pins.iter().map(|p| format!("--discovery-token-ca-cert-hash {p} ")).collect();
    text.push_str(&format!("\t{}", pins.join("\\\n\t")));
    if let Some(key) = join.certificate_key {
        text.push_str("\\\n\t--control-plane ");
        if !key.is_empty() {
            text.push_str(&format!("--certificate-key {key}"));
        }
    }
    text
}

pub(super) fn join_command(c: &mut InitCtx) -> Result<Change> {
    let admin = kubernetes_file("admin.conf");
    let authority = certs::authority_pem(c)?;
    let blocks = authority.split_inclusive("-----END CERTIFICATE-----\n");
    let pins = blocks.map(check::pin).collect::<Result<Vec<_>>>()?;
    let (host, port) = c.config.endpoint();
    let endpoint = host_port(&host, port);
    let mut text = format!(
        "\nYour Kubernetes control-plane has initialized successfully!\n\n\
         To use the cluster as an ordinary user:\n\n\
         \x20 mkdir -p $HOME/.kube\n\
         \x20 sudo cp -i {admin} $HOME/.kube/config\n\
         \x20 sudo chown $(id -u):$(id -g) $HOME/.kube/config\n\n\
         As root this is enough:\n\n\
         \x20 export KUBECONFIG={admin}\n\n\
         Pods wait for a network: put one in place with \"kubectl apply -f [podnetwork].yaml\".\n"
    );
    for token in &c.config.init.bootstrap_tokens {
        let token = if c.options.skip_token_print { WITHHELD } else { &token.token };
        let mut join = Join { endpoint: &endpoint, token, pins: &pins, certificate_key: None };
        if !c.config.cluster.control_plane_endpoint.is_empty() {
            join.certificate_key =
                Some(match (c.options.upload_certs, c.options.skip_certificate_key_print) {
                    (false, _) => "",
                    (true, true) => WITHHELD,
                    (true, false) => &c.config.init.certificate_key,
                });
            text.push_str(&format!(
                "\nA control-plane node joins by this command, as root:\n\n  {}\n",
                command(&join)
            ));
            join.certificate_key = None;
        }
        text.push_str(&format!("\nA worker joins by this command, as root:\n\n{}\n", command(&join)));
    }
    if let Some(out) = &mut c.options.out {
        out.write_line(text.trim_end_matches('\n')).context("printing the join command")?;
    }
    Ok(Change::Unchanged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_form_that_wrappers_parse() {
        let pins = ["sha256:aa".to_owned()];
        for (certificate_key, wanted) in [
            (None, "kubeadm join h:1 --token t \\\n\t--discovery-token-ca-cert-hash sha256:aa "),
            (
                Some(""),
                "kubeadm join h:1 --token t \\\n\t--discovery-token-ca-cert-hash sha256:aa \\\n\t--control-plane ",
            ),
            (
                Some("k"),
                "kubeadm join h:1 --token t \\\n\t--discovery-token-ca-cert-hash sha256:aa \\\n\t--control-plane --certificate-key k",
            ),
        ] {
            let join = Join { endpoint: "h:1", token: "t", pins: &pins, certificate_key };
            assert_eq!(command(&join), wanted, "failed testcase: {certificate_key:?}");
        }
    }
}
