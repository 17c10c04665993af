//! Called as `kubeadm`: its command tree, as far as it is built. What is not is refused by name.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::say;
use crate::host::Host;
use crate::host::console::Port;
use crate::kubeadm::defaults::Facts;
use crate::kubeadm::documents::{self, Documents};
use crate::kubeadm::version::KUBERNETES;
use crate::kubeadm::{GoDuration, go_yaml};
use crate::phases::init::{self, INIT, Options};
use crate::plan::Events;

/// Set up a Kubernetes cluster, as upstream's kubeadm does.
#[derive(Debug, Parser)]
#[command(name = "kubeadm", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Verbosity; accepted for upstream's sake.
    #[arg(short, long, global = true, value_name = "LEVEL")]
    v: Option<u8>,
    /// Folder that stands for the root of the file system.
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    rootfs: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make this machine the first control-plane node of a cluster.
    Init(Box<Init>),
    /// Print the version.
    Version {
        /// How to print it; nothing for one line of text.
        #[arg(short, long, value_enum)]
        output: Option<Format>,
    },
    /// The commands that are not built yet.
    #[command(external_subcommand)]
    Other(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Short,
    Json,
    Yaml,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
struct Init {
    #[command(subcommand)]
    command: Option<InitCommand>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum InitCommand {
    /// Run one phase, or all below a name: `phase certs apiserver`, `phase certs all`.
    Phase {
        /// The phase's name, and its child's or `all`.
        #[arg(value_name = "NAME", num_args = 1..=2, required = true)]
        name: Vec<String>,
        #[command(flatten)]
        flags: Box<Flags>,
    },
}

#[derive(Debug, Args)]
struct Flags {
    /// File of kubeadm documents.
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Address that the API server advertises.
    #[arg(long, value_name = "IP")]
    apiserver_advertise_address: Option<String>,
    /// Port of the API server.
    #[arg(long, value_name = "PORT")]
    apiserver_bind_port: Option<u16>,
    /// More names and addresses for the API server's certificate.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    apiserver_cert_extra_sans: Vec<String>,
    /// Folder of the certificates.
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<String>,
    /// Key that encrypts the uploaded certificates: 64 hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    certificate_key: Option<String>,
    /// Stable address of the control plane.
    #[arg(long, value_name = "HOST:PORT")]
    control_plane_endpoint: Option<String>,
    /// Socket of the container runtime.
    #[arg(long, value_name = "SOCKET")]
    cri_socket: Option<String>,
    /// Preflight checks whose errors are only warnings; `all` for every one.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    ignore_preflight_errors: Vec<String>,
    /// Registry of the control plane's images.
    #[arg(long, value_name = "REGISTRY")]
    image_repository: Option<String>,
    /// Version of the control plane.
    #[arg(long, value_name = "VERSION")]
    kubernetes_version: Option<String>,
    /// Name of this node.
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Subnet of the pods.
    #[arg(long, value_name = "CIDR")]
    pod_network_cidr: Option<String>,
    /// Subnet of the Services.
    #[arg(long, value_name = "CIDR")]
    service_cidr: Option<String>,
    /// Domain of the Services.
    #[arg(long, value_name = "DOMAIN")]
    service_dns_domain: Option<String>,
    /// Do not print the certificate key.
    #[arg(long)]
    skip_certificate_key_print: bool,
    /// Phases to leave out.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    skip_phases: Vec<String>,
    /// Do not print the token.
    #[arg(long)]
    skip_token_print: bool,
    /// The bootstrap token.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// How long the token lives, as 24h; 0 for ever.
    #[arg(long, value_name = "DURATION")]
    token_ttl: Option<GoDuration>,
    /// Hand the authorities to later control-plane nodes.
    #[arg(long)]
    upload_certs: bool,
    /// Upstream's flags that are refused by name.
    #[arg(long, hide = true)]
    dry_run: bool,
    #[arg(long, hide = true)]
    feature_gates: Option<String>,
    #[arg(long, hide = true)]
    patches: Option<String>,
}

/// Runs one command line. Exit codes are upstream's: 0 or 1.
#[must_use]
pub fn main(args: &[String]) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            let (wrong, text) = (e.use_stderr(), e.render().to_string());
            return say(
                if wrong { Port::stderr() } else { Port::stdout() },
                text.trim_end(),
                u8::from(wrong),
            );
        }
    };
    match run(cli.command, &cli.rootfs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => say(Port::stderr(), &format!("error: {e:#}"), 1),
    }
}

fn run(command: Command, rootfs: &str) -> Result<()> {
    match command {
        Command::Init(init) => match init.command {
            None => run_init(rootfs, init.flags, None),
            Some(InitCommand::Phase { name, flags }) => run_init(rootfs, *flags, Some(&phase_name(&name)?)),
        },
        Command::Version { output } => Ok(Port::stdout().write_line(&version(output))?),
        Command::Other(words) => {
            let name = words.first().map_or("", String::as_str);
            bail!("kubeadm {name} is not supported yet by rekindle: init, init phase and version are")
        }
    }
}

/// `certs apiserver` and `certs/apiserver` are one phase; `certs all` and `certs` are all of a parent's.
fn phase_name(words: &[String]) -> Result<String> {
    let name = match words {
        [parent, all] if all == "all" => parent.clone(),
        words => words.join("/"),
    };
    if !INIT.iter().any(|p| crate::plan::phase::covers(&name, p.name)) {
        let names: Vec<_> = INIT.iter().map(|p| p.name).collect();
        bail!("invalid phase name: {name}: want one of {}", names.join(", "));
    }
    Ok(name)
}

fn version(format: Option<Format>) -> String {
    let (major, minor) = crate::kubeadm::version::minor(KUBERNETES).unwrap_or_default();
    let (major, minor) = (major.to_string(), minor.to_string());
    let value = serde_json::json!({"clientVersion": {
        "compiler": "rustc", "gitVersion": KUBERNETES, "major": major, "minor": minor, "platform": "linux/amd64",
    }});
    match format {
        Some(Format::Short) => KUBERNETES.to_owned(),
        Some(Format::Json) => format!("{value:#}"),
        Some(Format::Yaml) => go_yaml::write(&value).trim_end().to_owned(),
        None => format!(
            "kubeadm version: &version.Info{{Major:\"{major}\", Minor:\"{minor}\", GitVersion:\"{KUBERNETES}\", Compiler:\"rustc\", Platform:\"linux/amd64\"}}"
        ),
    }
}

impl Flags {
    /// The flags that may not stand beside `--config`, as far as they are given.
    fn not_beside_config(&self) -> Vec<&'static str> {
        let given = [
            ("apiserver-advertise-address", self.apiserver_advertise_address.is_some()),
            ("apiserver-bind-port", self.apiserver_bind_port.is_some()),
            ("apiserver-cert-extra-sans", !self.apiserver_cert_extra_sans.is_empty()),
            ("cert-dir", self.cert_dir.is_some()),
            ("certificate-key", self.certificate_key.is_some()),
            ("control-plane-endpoint", self.control_plane_endpoint.is_some()),
            ("cri-socket", self.cri_socket.is_some()),
            ("image-repository", self.image_repository.is_some()),
            ("kubernetes-version", self.kubernetes_version.is_some()),
            ("pod-network-cidr", self.pod_network_cidr.is_some()),
            ("service-cidr", self.service_cidr.is_some()),
            ("service-dns-domain", self.service_dns_domain.is_some()),
            ("token", self.token.is_some()),
            ("token-ttl", self.token_ttl.is_some()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }

    /// The documents of the file, or those that the flags stand for.
    fn documents(&self, host: &Host) -> Result<Documents> {
        let refused = [
            ("dry-run", self.dry_run),
            ("feature-gates", self.feature_gates.is_some()),
            ("patches", self.patches.is_some()),
        ];
        if let Some((name, _)) = refused.iter().find(|(_, given)| *given) {
            bail!("--{name} is not supported yet by rekindle: leave it out");
        }
        let mut documents = match &self.config {
            None => Documents::default(),
            Some(file) => {
                let mixed = self.not_beside_config();
                if !mixed.is_empty() {
                    bail!("can not mix '--config' with arguments [{}]", mixed.join(" "));
                }
                documents::parse(&host.root.read_text(&absolute(host, file)?)?, file)?
            }
        };
        let (init, cluster) =
            (documents.init.get_or_insert_default(), documents.cluster.get_or_insert_default());
        let put = |place: &mut String, flag: &Option<String>| {
            if let Some(value) = flag {
                value.clone_into(place);
            }
        };
        put(&mut init.node_registration.name, &self.node_name);
        put(&mut init.node_registration.cri_socket, &self.cri_socket);
        put(&mut init.local_api_endpoint.advertise_address, &self.apiserver_advertise_address);
        put(&mut init.certificate_key, &self.certificate_key);
        init.local_api_endpoint.bind_port =
            self.apiserver_bind_port.unwrap_or(init.local_api_endpoint.bind_port);
        if self.token.is_some() || self.token_ttl.is_some() {
            let token = self.token.clone().unwrap_or_default();
            init.bootstrap_tokens.push(crate::kubeadm::v1beta4::BootstrapToken {
                token,
                ttl: self.token_ttl,
                ..Default::default()
            });
        }
        put(&mut cluster.certificates_dir, &self.cert_dir);
        put(&mut cluster.control_plane_endpoint, &self.control_plane_endpoint);
        put(&mut cluster.image_repository, &self.image_repository);
        put(&mut cluster.kubernetes_version, &self.kubernetes_version);
        put(&mut cluster.networking.pod_subnet, &self.pod_network_cidr);
        put(&mut cluster.networking.service_subnet, &self.service_cidr);
        put(&mut cluster.networking.dns_domain, &self.service_dns_domain);
        cluster.api_server.cert_sans.extend(self.apiserver_cert_extra_sans.iter().cloned());
        Ok(documents)
    }
}

/// Paths on the command line count from the working folder; those of [`Host`]'s files from the root.
fn absolute(host: &Host, path: &str) -> Result<String> {
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    let folder = host.root.read_link("/proc/self/cwd")?.context("the working folder is gone")?;
    Ok(folder.join(path).to_string_lossy().into_owned())
}

fn run_init(rootfs: &str, flags: Flags, only: Option<&str>) -> Result<()> {
    let host = Host::at(std::path::Path::new(rootfs))?;
    let events = Events::new(host.clock.clone());
    events.add_kubeadm(Port::stdout());
    let documents = flags.documents(&host)?;
    let (config, token_made) = init::configuration(&host, &events, documents, Facts::default())?;
    events.info(format!("Using Kubernetes version: {}", config.cluster.kubernetes_version));
    let mut ignored: Vec<String> = flags.ignore_preflight_errors.clone();
    ignored.extend(config.init.node_registration.ignore_preflight_errors.iter().cloned());
    let ignored: Vec<_> = ignored.iter().map(|name| name.to_lowercase()).collect();
    if ignored.len() > 1 && ignored.iter().any(|name| name == "all") {
        bail!("--ignore-preflight-errors: don't specify individual checks if 'all' is used");
    }
    let skip = if flags.skip_phases.is_empty() {
        config.init.skip_phases.clone()
    } else {
        flags.skip_phases.clone()
    };
    let options = Options {
        ignore_preflight_errors: ignored,
        upload_certs: flags.upload_certs,
        token_made,
        proxy_env: proxy_env()?,
        out: Some(Port::stdout()),
        skip_token_print: flags.skip_token_print,
        skip_certificate_key_print: flags.skip_certificate_key_print,
        ..Options::default()
    };
    init::run_init(&host, &events, config, options, &skip, only).map(|_| ())
}

/// The proxy variables of this process, which go on to the Pods.
fn proxy_env() -> Result<Vec<(String, String)>> {
    let environment = Host::live()?.root.read("/proc/self/environ")?;
    let all = environment.split(|b| *b == 0).filter_map(|line| {
        let (name, value) = std::str::from_utf8(line).ok()?.split_once('=')?;
        (name.to_lowercase().ends_with("_proxy") && !value.is_empty())
            .then(|| (name.to_owned(), value.to_owned()))
    });
    Ok(all.collect())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn phases_by_upstreams_names() {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        for (given, wanted) in [
            (&["certs", "all"][..], Some("certs")),
            (&["certs", "apiserver"], Some("certs/apiserver")),
            (&["certs/apiserver"], Some("certs/apiserver")),
            (&["preflight"], Some("preflight")),
            (&["kubelet-finalize", "all"], Some("kubelet-finalize")),
            (&["nonsense"], None),
            (&["certs", "nonsense"], None),
        ] {
            assert_eq!(phase_name(&words(given)).ok().as_deref(), wanted, "failed testcase: {given:?}");
        }
    }

    #[test]
    fn flags_beside_a_file() {
        let parse = |text: &str| match Cli::try_parse_from(text.split(' ')).unwrap().command {
            Command::Init(init) => init.flags,
            _ => panic!("no init"),
        };
        for (text, mixed) in [
            (
                "kubeadm init --config f --upload-certs --skip-phases a,b --node-name n --ignore-preflight-errors x -v=5",
                "",
            ),
            ("kubeadm init --config f --certificate-key k --cri-socket s", "certificate-key cri-socket"),
        ] {
            assert_eq!(parse(text).not_beside_config().join(" "), mixed, "failed testcase: {text}");
        }
        for format in [None, Some(Format::Short), Some(Format::Json), Some(Format::Yaml)] {
            assert!(version(format).contains(KUBERNETES));
        }
    }
}
