//! The only async code: a blocking face for an API server. It owns a single-threaded runtime, so that nothing else in the
//! crate meets a future.
//!
//! Waiting is by watch where there is something to watch. Before the API server answers there is not: then a request is
//! tried again after a pause that grows from 20 to 320 ms, until the caller's patience ends.

mod objects;
mod wait;

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::plan::Change;

/// How long one request may take. A watch has its own patience.
const REQUEST: Duration = Duration::from_secs(10);

/// A connection to one API server.
pub struct Cluster {
    runtime: Runtime,
    client: Client,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client holds keys.
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// Prepares a client from a kubeconfig's text; `server` replaces the address in it. Nothing is sent yet.
    ///
    /// # Errors
    /// The kubeconfig does not parse, or its certificates or key do not.
    pub fn connect(kubeconfig: &str, server: Option<&str>) -> Result<Cluster> {
        let mut parsed = Kubeconfig::from_yaml(kubeconfig).context("parsing the kubeconfig")?;
        if let Some(server) = server {
            for named in &mut parsed.clusters {
                if let Some(cluster) = &mut named.cluster {
                    cluster.server = Some(server.to_owned());
                }
            }
        }
        let runtime = runtime()?;
        let client = runtime.block_on(async {
            let mut config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
                .await
                .context("reading the kubeconfig")?;
            config.proxy_url = None;
            client(config)
        })?;
        Ok(Cluster { runtime, client })
    }

    /// Creates `object`, or brings a present one to it. Fields that only the server sets are left alone.
    ///
    /// # Errors
    /// The server refuses, or does not answer in time.
    pub fn apply(&self, object: &Value) -> Result<Change> {
        let what = objects::Named::of(object)?;
        self.block(&format!("applying {what}"), objects::apply(&self.client, &what, object))
    }

    /// Reads an object, `None` if there is none.
    ///
    /// # Errors
    /// The server refuses, or does not answer in time.
    pub fn get(&self, api: &str, kind: &str, namespace: Option<&str>, name: &str) -> Result<Option<Value>> {
        let what = objects::Named::new(api, kind, namespace, name);
        self.block(&format!("reading {what}"), objects::get(&self.client, &what))
    }

    /// Changes fields of an object by a strategic merge patch.
    ///
    /// # Errors
    /// There is no such object, the server refuses, or does not answer in time.
    pub fn patch(
        &self,
        api: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
    ) -> Result<Value> {
        let what = objects::Named::new(api, kind, namespace, name);
        self.block(&format!("patching {what}"), objects::patch(&self.client, &what, patch))
    }

    /// Deletes an object. Tells whether there was one.
    ///
    /// # Errors
    /// The server refuses, or does not answer in time.
    pub fn delete(&self, api: &str, kind: &str, namespace: Option<&str>, name: &str) -> Result<bool> {
        let what = objects::Named::new(api, kind, namespace, name);
        self.block(&format!("deleting {what}"), objects::delete(&self.client, &what))
    }

    /// Watches an object until `done` says so; it is asked at once, and again at every change. `None` to it means that
    /// there is no such object (yet). Returns `None` when `patience` ends first.
    ///
    /// # Errors
    /// The server refuses. A connection that breaks is made anew.
    pub fn wait(
        &self,
        api: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        patience: Duration,
        done: impl FnMut(Option<&Value>) -> bool,
    ) -> Result<Option<Value>> {
        let what = objects::Named::new(api, kind, namespace, name);
        let waiting = wait::until(&self.client, &what, done);
        self.runtime.block_on(async {
            match tokio::time::timeout(patience, waiting).await {
                Ok(found) => found.map(Some).with_context(|| format!("watching {what}")),
                Err(_) => Ok(None),
            }
        })
    }

    /// Waits until the API server answers `path`, as `/livez`, with success.
    ///
    /// # Errors
    /// It did not within `patience`; the message ends with its last answer.
    pub fn healthy(&self, path: &str, patience: Duration) -> Result<()> {
        self.runtime.block_on(wait::answers(&self.client, path, patience))
    }

    fn block<T>(&self, doing: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(async {
            match tokio::time::timeout(REQUEST, work).await {
                Ok(result) => result.with_context(|| doing.to_owned()),
                Err(_) => bail!("{doing}: no answer from the API server within {} s", REQUEST.as_secs()),
            }
        })
    }
}

/// Waits until `url` (its path is the probe) answers with success. Its certificate is not checked: the components that are
/// probed so, controller manager and scheduler, sign their own, and the address is this node's.
///
/// # Errors
/// It did not within `patience`; the message ends with its last answer.
pub fn probe(url: &str, patience: Duration) -> Result<()> {
    let uri: http::Uri = url.parse().with_context(|| format!("parsing {url}"))?;
    let path = uri.path().to_owned();
    let origin = url.strip_suffix(path.as_str()).unwrap_or(url);
    let mut config = Config::new(origin.parse().with_context(|| format!("parsing {origin}"))?);
    config.accept_invalid_certs = true;
    let runtime = runtime()?;
    runtime.block_on(async {
        let client = client(config)?;
        wait::answers(&client, &path, patience).await.with_context(|| format!("waiting for {url}"))
    })
}

/// Whether `error` is the server's answer that this identity may not do this.
#[must_use]
pub fn is_forbidden(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<kube::Error>().is_some_and(|e| matches!(e, kube::Error::Api(s) if s.code == 403))
    })
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_io().enable_time().build().context("starting the async runtime")
}

fn client(mut config: Config) -> Result<Client> {
    config.connect_timeout = Some(Duration::from_secs(5));
    // Watches are quiet for long; single requests have their own limit.
    config.read_timeout = None;
    Client::try_from(config).context("preparing the API client")
}
