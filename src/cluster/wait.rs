//! Waiting for the API server, and for objects in it.

use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::{StreamExt, pin_mut};
use kube::api::{WatchEvent, WatchParams};
use kube::{Client, Error};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::objects::{Named, get};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// Pauses between requests to a server that does not answer yet: each twice as long, up to a limit.
struct Pauses(Duration);

impl Pauses {
    fn new() -> Pauses {
        Pauses(FIRST_PAUSE)
    }

    async fn next(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}

/// Asks `path` until it answers with success.
pub(super) async fn answers(client: &Client, path: &str, patience: Duration) -> Result<()> {
    let (end, mut pauses) = (Instant::now() + patience, Pauses::new());
    let mut last = "no answer".to_owned();
    loop {
        let request = http::Request::get(path).body(Vec::new())?;
        match tokio::time::timeout_at(end, client.request_text(request)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(e)) => last = shown(&e),
            Err(_) => {}
        }
        if Instant::now() >= end {
            bail!("{path} did not answer with success within {} s: {last}", patience.as_secs());
        }
        pauses.next().await;
    }
}

/// Watches one object until `done`. Ends only then, or when the server refuses for good.
pub(super) async fn until(
    client: &Client,
    what: &Named,
    mut done: impl FnMut(Option<&Value>) -> bool,
) -> Result<Value> {
    let mut pauses = Pauses::new();
    loop {
        match once(client, what, &mut done).await {
            Ok(Some(found)) => return Ok(found),
            // The server ended the watch, as it does every few minutes.
            Ok(None) => pauses = Pauses::new(),
            Err(e) if passing(&e) => pauses.next().await,
            Err(e) => return Err(e),
        }
    }
}

async fn once(
    client: &Client,
    what: &Named,
    done: &mut impl FnMut(Option<&Value>) -> bool,
) -> Result<Option<Value>> {
    let found = get(client, what).await?;
    if done(found.as_ref()) {
        return Ok(Some(found.unwrap_or(Value::Null)));
    }
    // From the state just read on; an object that is not there yet is waited for from now.
    let version =
        found.as_ref().and_then(|f| f.pointer("/metadata/resourceVersion")?.as_str()).unwrap_or("0");
    let params = WatchParams::default().fields(&format!("metadata.name={}", what.name));
    let events = what.api(client).watch(&params, version).await?;
    pin_mut!(events);
    while let Some(event) = events.next().await {
        let now = match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => Some(serde_json::to_value(object)?),
            WatchEvent::Deleted(_) => None,
            WatchEvent::Bookmark(_) => continue,
            // Mostly "too old": read again and watch from there.
            WatchEvent::Error(_) => return Ok(None),
        };
        if done(now.as_ref()) {
            return Ok(Some(now.unwrap_or(Value::Null)));
        }
    }
    Ok(None)
}

/// Whether the same request may succeed later: no connection, or a server that is starting or overloaded. Forbidden counts
/// as passing: just after its start a server has not read its roles yet.
fn passing(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<Error>() {
        Some(Error::Api(status)) => status.code == 403 || status.code == 429 || status.code >= 500,
        Some(Error::Service(_) | Error::HyperError(_) | Error::ReadEvents(_)) => true,
        _ => false,
    }
}

fn shown(error: &Error) -> String {
    match error {
        Error::Api(status) => {
            format!("{} {}", status.code, status.message.lines().next().unwrap_or_default())
        }
        other => {
            let mut text = other.to_string();
            let mut cause = std::error::Error::source(other);
            while let Some(inner) = cause {
                text = format!("{text}: {inner}");
                cause = inner.source();
            }
            text
        }
    }
}
