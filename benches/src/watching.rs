//! What a watch client sees of pods, and when.

use crate::Connection;
use anyhow::{Context, Result, bail};
use canopus_api::{Value, json};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// A watch, event by event.
pub struct Events {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    /// Watches a collection from now on.
    pub async fn of(api: &mut Connection, collection: &str) -> Result<Events> {
        let list = api.get(&format!("{collection}?limit=1")).await?;
        let list = json::parse(&list).context("a list is JSON")?;
        let from = list["metadata"]["resourceVersion"].str();
        let body = api.stream(&format!("{collection}?watch=true&resourceVersion={from}")).await?;
        Ok(Events { body, buffer: Vec::new() })
    }

    /// The next event and when it came.
    pub async fn next(&mut self) -> Result<(Value, Instant)> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let now = Instant::now();
                let event = json::parse(&self.buffer[..end]).context("an event is JSON")?;
                self.buffer.drain(..=end);
                return Ok((event, now));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.context("nothing came of the watch")?;
            let Some(frame) = frame else { bail!("the watch ended") };
            if let Some(data) = frame?.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }

    /// When each of `count` pods was first seen Running.
    pub async fn running(&mut self, count: usize) -> Result<HashMap<String, Instant>> {
        let mut seen = HashMap::new();
        while seen.len() < count {
            let (event, now) = self.next().await?;
            let pod = &event["object"];
            if pod["status"]["phase"].str() == "Running" {
                seen.entry(pod["metadata"]["name"].str().to_owned()).or_insert(now);
            }
        }
        Ok(seen)
    }

    /// Waits until `count` pods are gone.
    pub async fn deleted(&mut self, count: usize) -> Result<()> {
        let mut gone = 0;
        while gone < count {
            gone += usize::from(self.next().await?.0["type"].str() == "DELETED");
        }
        Ok(())
    }
}
