//! Waiting: for a server to answer, for an object to become as wanted.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::TryStreamExt;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Client, Config};
use serde_json::Value;

use super::{Cluster, passing, pause, runtime, shown, status};
use crate::host::clock::Deadline;

/// A component that answers health requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Its name, for messages.
    pub name: String,
    /// Address with scheme and port. Its certificate is not checked: such components sign their own.
    pub url: String,
    /// What to ask for, as `/healthz`.
    pub path: String,
}

async fn ask(client: &Client, path: &str) -> Result<(), String> {
    let request = http::Request::get(path).body(Vec::new()).map_err(|e| e.to_string())?;
    match tokio::time::timeout(Duration::from_secs(5), client.request_text(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("{:#}", anyhow::Error::new(error))),
        Err(_) => Err("no answer in 5 s".to_owned()),
    }
}

async fn until_healthy(client: &Client, path: &str, deadline: Deadline) -> Result<(), String> {
    let mut tries = 0;
    loop {
        match ask(client, path).await {
            Ok(()) => return Ok(()),
            Err(error) if deadline.passed() => return Err(error),
            Err(_) => tokio::time::sleep(pause(tries)).await,
        }
        tries += 1;
    }
}

/// Waits until a component says that it is healthy.
///
/// # Errors
/// It does not in time; the last reason is in the message.
pub fn health(component: &Health, deadline: Deadline) -> Result<()> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut config = Config::new(component.url.parse().context("reading an address")?);
        config.accept_invalid_certs = true;
        config.connect_timeout = Some(Duration::from_secs(5));
        config.default_retry = false;
        let client = Client::try_from(config).context("making a client for health requests")?;
        until_healthy(&client, &component.path, deadline).await.map_err(|why| {
            anyhow::anyhow!("{} at {}{}: {why}", component.name, component.url, component.path)
        })
    })
}

impl Cluster {
    /// Waits until the server says that it is ready to serve.
    ///
    /// # Errors
    /// It does not in time; the last reason is in the message.
    pub fn wait_ready(&self, path: &str, deadline: Deadline) -> Result<()> {
        self.runtime
            .block_on(until_healthy(&self.client, path, deadline))
            .map_err(|why| anyhow::anyhow!("the API server at {}: {why}", self.server))
    }

    /// Watches the object until `done` says so; gives it as it then is. `missing` tells what is wanted, for the message.
    ///
    /// # Errors
    /// The server refuses, or the object is not as wanted in time.
    pub fn watch(
        &self,
        like: &Value,
        deadline: Deadline,
        missing: impl Fn(&Value) -> String,
        done: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let api = self.api(like)?;
        let fields = format!("metadata.name={}", super::name_of(like)?);
        let last = std::cell::RefCell::new(Value::Null);
        let watching = async {
            let mut tries = 0;
            loop {
                let listed = api.list(&ListParams::default().fields(&fields)).await;
                let version = match listed {
                    Ok(list) => {
                        let version = list.metadata.resource_version.clone().unwrap_or_default();
                        if let Some(found) = list.items.into_iter().next() {
                            let found = serde_json::to_value(found).context("decoding an object")?;
                            last.replace(found.clone());
                            if done(&found) {
                                return Ok(found);
                            }
                        }
                        version
                    }
                    Err(error) if passing(&error) => {
                        tokio::time::sleep(pause(tries)).await;
                        tries += 1;
                        continue;
                    }
                    Err(error) => return Err(error).with_context(|| format!("watching {}", shown(like))),
                };
                let params = WatchParams::default().fields(&fields).timeout(290);
                let stream = match api.watch(&params, &version).await {
                    Ok(stream) => stream,
                    Err(error) if passing(&error) || status(&error) == Some(410) => continue,
                    Err(error) => return Err(error).with_context(|| format!("watching {}", shown(like))),
                };
                let mut stream = std::pin::pin!(stream);
                // A stream that breaks or ends is begun anew.
                while let Ok(Some(event)) = stream.try_next().await {
                    let (WatchEvent::Added(found) | WatchEvent::Modified(found)) = event else { break };
                    let found = serde_json::to_value(found).context("decoding an object")?;
                    last.replace(found.clone());
                    if done(&found) {
                        return Ok(found);
                    }
                }
                tokio::time::sleep(pause(tries)).await;
                tries += 1;
            }
        };
        let outcome = self.runtime.block_on(async { tokio::time::timeout(deadline.left(), watching).await });
        match outcome {
            Ok(found) => found,
            Err(_) => bail!("{}: {}", shown(like), missing(&last.borrow())),
        }
    }
}
