//! Runs the tables: as `kubeadm init`, as a first boot, and the wait of later boots.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::rebooted::{Boot, system_pods};
use super::{INIT, InitCtx, Options, PROVISION_EXTRA, network};
use crate::cluster::Cluster;
use crate::host::{Host, net};
use crate::kubeadm::defaults::{self, Facts};
use crate::kubeadm::documents::Documents;
use crate::kubeadm::provider;
use crate::kubeadm::validate::validate;
use crate::kubeadm::{Config, KUBELET_DIR};
use crate::oem;
use crate::plan::{Events, Journal, PhaseReport, Skip, run};

/// What a first boot puts where the documents are silent: a quick kind of key, and a network for pods.
const FIRST_BOOT: (&str, &str) = ("ECDSA-P256", "10.244.0.0/16");

/// Preflight errors that provider-kubeadm leaves out.
const PROVIDER_IGNORES: [&str; 2] = ["numcpu", "mem"];

/// Name of the plan in journals. The run is always the same one: what is there is the journal's, until a reset.
const PLAN: (&str, &str) = ("init", "init");

/// Completes and checks documents. The second value tells that the bootstrap token was made for this run.
///
/// # Errors
/// All that is wrong with them, at once.
pub fn configuration(
    host: &Host,
    events: &Events,
    documents: Documents,
    preset: Facts,
) -> Result<(Config, bool)> {
    for ignored in &documents.ignored {
        events.warn(format!("Ignored configuration document: {ignored}"));
    }
    let named = documents.init.iter().flat_map(|i| &i.bootstrap_tokens).any(|t| !t.token.is_empty());
    let machine = defaults::facts(&host.root, &net::hostname()?, &net::addresses()?)?;
    let facts = Facts { token: super::bootstrap::random_token()?, ..machine };
    let facts = Facts { algorithm: preset.algorithm, pod_subnet: preset.pod_subnet, ..facts };
    let config = defaults::apply(documents, &facts);
    let found = validate(&config);
    if !found.is_empty() {
        let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
        bail!("the configuration is wrong in {} place(s): {}", lines.len(), lines.join("; "));
    }
    Ok((config, !named))
}

/// Runs `kubeadm init`, or those of its phases that `only` names (a phase or a parent), with a journal if all of it runs.
///
/// # Errors
/// A phase failed; the same call resumes.
pub fn run_init(
    host: &Host,
    events: &Events,
    config: Config,
    options: Options,
    skip: &[String],
    only: Option<&str>,
) -> Result<Vec<PhaseReport>> {
    let mut skip = skip.to_vec();
    let Some(only) = only else {
        let options = with_addons(options, &skip)?;
        // In the folder that `kubeadm reset` empties: the journal goes with what it tells of.
        let mut journal = journal(host, &format!("{KUBELET_DIR}/rekindle-init.journal"), 0o700)?;
        let begun = begun(&journal);
        let mut ctx = InitCtx::new(host, events, config, options, begun);
        let skip = Skip::new(&skip, INIT)?;
        return run("init", INIT, &mut ctx, &skip, Some(&mut journal), events, &host.clock);
    };
    Skip::new(&[only.to_owned()], INIT)?;
    let others = INIT.iter().map(|p| p.name).filter(|name| !crate::plan::phase::covers(only, name));
    skip.extend(others.map(str::to_owned));
    let begun = INIT.iter().map(|p| p.name.to_owned()).collect();
    let mut ctx = InitCtx::new(host, events, config, options, begun);
    run("init", INIT, &mut ctx, &Skip::new(&skip, INIT)?, None, events, &host.clock)
}

/// Notes which addons are skipped, and refuses what upstream refuses.
fn with_addons(mut options: Options, skip: &[String]) -> Result<Options> {
    let skips = Skip::new(skip, INIT)?;
    options.skip_coredns = skips.skips("addon/coredns");
    options.skip_kube_proxy = skips.skips("addon/kube-proxy");
    let needed = ["bootstrap-token", "upload-certs"].into_iter().find(|name| skips.skips(name));
    if let Some(needed) = needed
        && !skips.skips("show-join-command")
    {
        bail!("phase show-join-command needs {needed}: skip both or none");
    }
    Ok(options)
}

fn journal(host: &Host, path: &str, mode: u32) -> Result<Journal> {
    if let Some((folder, _)) = path.rsplit_once('/') {
        host.root.create_dir_all(folder, mode)?;
    }
    Journal::open(&host.root, path, PLAN.0, PLAN.1)
}

fn begun(journal: &Journal) -> Vec<String> {
    journal.lines().iter().map(|line| line.phase.clone()).collect()
}

/// Makes a fresh machine the first node of the cluster that its cloud-config describes, and waits until it is Ready. The
/// same call again, after whatever ended the last one, goes on by the journal.
///
/// # Errors
/// The block is wrong, or a phase failed.
pub fn provision(
    host: &Host,
    events: &Events,
    cluster: &oem::Cluster,
    journal_path: &str,
) -> Result<Vec<PhaseReport>> {
    let documents = provider::documents(&provider::Cluster {
        token: &cluster.token.0,
        host: cluster.control_plane_host.as_deref().unwrap_or_default(),
        role: match cluster.role {
            oem::Role::Init => provider::Role::Init,
            oem::Role::ControlPlane => provider::Role::ControlPlane,
            oem::Role::Worker => provider::Role::Worker,
        },
        documents: cluster.documents.iter().cloned().map(Value::Object).collect(),
    })?;
    // provider-kubeadm's choices: small machines are welcome, and later control-plane nodes find the authorities.
    let ignored = PROVIDER_IGNORES.map(str::to_owned).to_vec();
    let options = Options {
        ignore_preflight_errors: ignored,
        upload_certs: true,
        keep_uploaded_certs: true,
        ..Options::default()
    };
    first_boot(host, events, documents, options, journal_path)
}

/// Runs both tables on documents. Nothing that is secret is shown, whatever the options say.
///
/// # Errors
/// The documents are wrong, or a phase failed.
pub fn first_boot(
    host: &Host,
    events: &Events,
    documents: Documents,
    options: Options,
    journal_path: &str,
) -> Result<Vec<PhaseReport>> {
    let preset =
        Facts { algorithm: FIRST_BOOT.0.into(), pod_subnet: FIRST_BOOT.1.into(), ..Facts::default() };
    let (config, token_made) = configuration(host, events, documents, preset)?;
    let ignored = &config.init.node_registration.ignore_preflight_errors;
    let mut options = Options { token_made, first_boot: true, out: None, ..options };
    options.ignore_preflight_errors.extend(ignored.iter().map(|name| name.to_lowercase()));
    let mut skip = config.init.skip_phases.clone();
    if !skip.iter().any(|name| name == "show-join-command") {
        skip.push("show-join-command".to_owned());
    }
    let options = with_addons(options, &skip)?;
    let mut journal = journal(host, journal_path, 0o755)?;
    let begun = begun(&journal);
    let mut ctx = InitCtx::new(host, events, config, options, begun);
    let skip = Skip::new(&skip, INIT)?;
    let mut reports = run("init", INIT, &mut ctx, &skip, Some(&mut journal), events, &host.clock)?;
    let none = Skip::default();
    reports.extend(run("init", PROVISION_EXTRA, &mut ctx, &none, Some(&mut journal), events, &host.clock)?);
    Ok(reports)
}

/// The name of this node and the address of its API server, of the text of `kubelet.conf`.
fn this_node(kubeconfig: &str) -> Result<(String, String)> {
    let value: Value = crate::oem::yaml::parse(kubeconfig, "/etc/kubernetes/kubelet.conf")?;
    let context = value["current-context"].as_str().unwrap_or_default();
    let user = context.split('@').next().unwrap_or_default();
    let name =
        user.strip_prefix("system:node:").context("/etc/kubernetes/kubelet.conf: its user is no node")?;
    let server = value["clusters"][0]["cluster"]["server"].as_str().unwrap_or_default();
    Ok((name.to_owned(), server.to_owned()))
}

/// Waits, on a later boot of a provisioned node, until it and its addons are ready.
///
/// # Errors
/// They are not in time; the message tells what is missing.
pub fn wait_ready(host: &Host, events: &Events, patience: Duration) -> Result<()> {
    let deadline = host.clock.deadline(patience);
    let (name, server) = this_node(&host.root.read_text("/etc/kubernetes/kubelet.conf")?)?;
    let cluster = Cluster::new(&host.root.read_text("/etc/kubernetes/admin.conf")?, Some(&server))?;
    cluster.wait_ready("/readyz", deadline)?;
    let boot = Boot::read(&host.root)?;
    let like = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    cluster.watch(&like, deadline, network::not_ready, |node| boot.has_node(node))?;
    system_pods(&cluster, &boot, &name, deadline)?;
    for (like, done) in network::addons() {
        if cluster.get(&like, deadline)?.is_some() {
            let after = host.clock.deadline(patience + Duration::from_secs(10));
            network::addon_ready(&cluster, &like, done, deadline, after)?;
        }
    }
    events.info(format!("node {name} is Ready"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_node_by_the_kubelets_kubeconfig() {
        let text =
            "current-context: system:node:n1@kubernetes\nclusters: [{cluster: {server: 'https://h:1'}}]\n";
        assert_eq!(this_node(text).unwrap(), ("n1".to_owned(), "https://h:1".to_owned()));
        assert!(this_node("current-context: admin@kubernetes\n").is_err());
    }

    #[test]
    fn the_join_command_needs_its_phases() {
        for (skip, good) in [
            (&["bootstrap-token"][..], false),
            (&["bootstrap-token", "show-join-command"], true),
            (&["upload-certs"], false),
            (&["addon"], true),
            (&["nonsense"], false),
        ] {
            let skip: Vec<_> = skip.iter().map(|s| (*s).to_owned()).collect();
            assert_eq!(with_addons(Options::default(), &skip).is_ok(), good, "failed testcase: {skip:?}");
        }
    }
}
