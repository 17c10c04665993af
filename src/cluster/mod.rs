//! The only async code: a client of the API server behind blocking functions.
//!
//! Objects go in and out as JSON. Waiting is a watch with a deadline; only a server that does not answer yet is asked
//! again, after short pauses that grow.

mod object;
mod wait;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::host::clock::Deadline;
use crate::plan::Change;

pub use object::{contains, resource};
pub use wait::{Health, health};

/// A connection to an API server, and the runtime that drives it.
pub struct Cluster {
    runtime: Runtime,
    client: Client,
    /// Address of the server, for messages.
    pub server: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Longest time for one request, as upstream's.
const REQUEST: Duration = Duration::from_secs(10);

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the async runtime")
}

/// The pause before the `n`th next try: 20 ms, growing to 200 ms, and to a second where that did not help.
fn pause(n: u32) -> Duration {
    // About twelve seconds of short pauses; a machine that is slower than that has better things to do than to answer us.
    Duration::from_millis(if n < 60 { 20 * u64::from(n.min(9) + 1) } else { 1000 })
}

/// The server's own answer, if it is one.
fn status(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Whether the same request may succeed a moment later: no connection, a server that is starting up or overloaded.
fn passing(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 429 | 500 | 502 | 503 | 504),
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

impl Cluster {
    /// Prepares to talk as the user of a kubeconfig, to `server` instead of the one it names.
    ///
    /// # Errors
    /// The text is no kubeconfig, or its credentials cannot be used.
    pub fn new(kubeconfig: &str, server: Option<&str>) -> Result<Cluster> {
        let runtime = runtime()?;
        let mut kubeconfig = Kubeconfig::from_yaml(kubeconfig).context("reading a kubeconfig")?;
        if let Some(server) = server {
            for cluster in kubeconfig.clusters.iter_mut().filter_map(|c| c.cluster.as_mut()) {
                cluster.server = Some(server.to_owned());
            }
        }
        let options = KubeConfigOptions::default();
        let mut config = runtime
            .block_on(Config::from_custom_kubeconfig(kubeconfig, &options))
            .context("using a kubeconfig")?;
        config.connect_timeout = Some(Duration::from_secs(5));
        config.default_retry = false;
        let server = config.cluster_url.to_string();
        let client = {
            let _inside = runtime.enter(); // the client starts a task
            Client::try_from(config).context("making a client of the API server")?
        };
        Ok(Cluster { runtime, client, server })
    }

    /// The API of an object's kind and namespace.
    fn api(&self, object: &Value) -> Result<Api<DynamicObject>> {
        let (kind, version) = (&object["kind"], &object["apiVersion"]);
        let resource = resource(version.as_str().unwrap_or_default(), kind.as_str().unwrap_or_default())?;
        Ok(match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        })
    }

    /// Runs a request until it succeeds, fails for good, or `deadline` has passed.
    fn request<T, F>(
        &self,
        what: &str,
        deadline: Deadline,
        request: impl Fn() -> F,
    ) -> Result<Result<T, kube::Error>>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        self.runtime.block_on(async {
            let mut tries = 0;
            loop {
                let error = match tokio::time::timeout(REQUEST, request()).await {
                    Ok(Ok(done)) => return Ok(Ok(done)),
                    Ok(Err(error)) if passing(&error) => format!("{:#}", anyhow::Error::new(error)),
                    Ok(Err(error)) => return Ok(Err(error)),
                    Err(_) => format!("no answer in {} s", REQUEST.as_secs()),
                };
                if deadline.passed() {
                    bail!("{what}: the API server at {} does not do it: {error}", self.server);
                }
                tokio::time::sleep(pause(tries)).await;
                tries += 1;
            }
        })
    }

    /// The object of the same kind, namespace and name; `None` if there is none.
    ///
    /// # Errors
    /// The server refuses, or does not answer in time.
    pub fn get(&self, like: &Value, deadline: Deadline) -> Result<Option<Value>> {
        let (api, name) = (self.api(like)?, name_of(like)?);
        let what = format!("reading {}", shown(like));
        match self.request(&what, deadline, || api.get(name))? {
            Ok(found) => Ok(Some(serde_json::to_value(found).context("decoding an object")?)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(error).context(what),
        }
    }

    /// The objects of the same kind and namespace that `fields` selects.
    ///
    /// # Errors
    /// The server refuses, or does not answer in time.
    pub fn list(&self, like: &Value, fields: &str, deadline: Deadline) -> Result<Vec<Value>> {
        let api = self.api(like)?;
        let what = format!("listing {}", shown(like));
        let params = ListParams::default().fields(fields);
        let list = self.request(&what, deadline, || api.list(&params))?.context(what)?;
        list.items.into_iter().map(|item| serde_json::to_value(item).context("decoding an object")).collect()
    }

    /// Makes the object; one that is there already and lacks something of it is updated, keeping what it has besides.
    ///
    /// # Errors
    /// The server refuses, or does not answer in time.
    pub fn apply(&self, object: &Value, deadline: Deadline) -> Result<Change> {
        let (api, name) = (self.api(object)?, name_of(object)?);
        let what = format!("writing {}", shown(object));
        let new: DynamicObject = serde_json::from_value(object.clone()).context("encoding an object")?;
        let params = PostParams::default();
        let mut conflicts = 0;
        loop {
            match self.request(&what, deadline, || api.create(&params, &new))? {
                Ok(_) => return Ok(Change::Created),
                Err(error) if status(&error) == Some(409) => {}
                // A Service names its address, which its own predecessor holds: upstream's order finds that out first.
                Err(error) if status(&error) == Some(422) && object["spec"]["clusterIP"].is_string() => {}
                Err(error) => return Err(error).context(what),
            }
            let Some(mut found) = self.get(object, deadline)? else {
                conflicts += 1;
                if conflicts > 5 {
                    bail!("{what}: neither made nor found");
                }
                continue;
            };
            if contains(&found, object) {
                return Ok(Change::Unchanged);
            }
            crate::kubeadm::merge(&mut found, object);
            let next: DynamicObject = serde_json::from_value(found).context("encoding an object")?;
            match self.request(&what, deadline, || api.replace(name, &params, &next))? {
                Ok(_) => return Ok(Change::Updated),
                // Somebody else changed it in between: look again.
                Err(error) if matches!(status(&error), Some(404 | 409)) && conflicts < 5 => conflicts += 1,
                Err(error) => return Err(error).context(what),
            }
        }
    }

    /// Applies all of them in order.
    ///
    /// # Errors
    /// As [`Cluster::apply`].
    pub fn apply_all(&self, objects: &[Value], deadline: Deadline) -> Result<Change> {
        objects
            .iter()
            .try_fold(Change::Unchanged, |change, object| Ok(change.or(self.apply(object, deadline)?)))
    }

    /// Changes the object by a merge patch. `false` if somebody else changed it since it was read.
    ///
    /// # Errors
    /// The server refuses, or does not answer in time.
    pub fn patch(&self, like: &Value, patch: &Value, deadline: Deadline) -> Result<bool> {
        let (api, name) = (self.api(like)?, name_of(like)?);
        let what = format!("changing {}", shown(like));
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        match self.request(&what, deadline, || api.patch(name, &params, &patch))? {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(409) => Ok(false),
            Err(error) => Err(error).context(what),
        }
    }

    /// Whether this user may make the object: makes it, or finds it there. `false` if that is forbidden.
    ///
    /// # Errors
    /// The server refuses for another reason, or does not answer in time.
    pub fn may_create(&self, object: &Value, deadline: Deadline) -> Result<Option<Change>> {
        let api = self.api(object)?;
        let what = format!("writing {}", shown(object));
        let new: DynamicObject = serde_json::from_value(object.clone()).context("encoding an object")?;
        let params = PostParams::default();
        match self.request(&what, deadline, || api.create(&params, &new))? {
            Ok(_) => Ok(Some(Change::Created)),
            Err(error) if status(&error) == Some(409) => Ok(Some(Change::Unchanged)),
            Err(error) if status(&error) == Some(403) => Ok(None),
            Err(error) => Err(error).context(what),
        }
    }
}

fn name_of(object: &Value) -> Result<&str> {
    object["metadata"]["name"].as_str().context("an object without a name")
}

/// Kind, namespace and name, for messages.
fn shown(object: &Value) -> String {
    let part = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let (kind, meta) = (part(&object["kind"]), &object["metadata"]);
    match meta["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{}", part(&meta["name"])),
        None => format!("{kind} {}", part(&meta["name"])),
    }
}
