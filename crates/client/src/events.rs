//! Events: what happened to an object, for people to read. Recorded in the background; the same Event again only
//! raises its count (upstream `tools/record`).

use crate::now;
use canopus_api::{Api, Gvr, Patch, Target, Value, WriteOptions, value};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// More Events than this at once are dropped: they must never slow down those who record them.
const BUFFER: usize = 1000;
/// How many recent Events are remembered for counting.
const REMEMBERED: usize = 4096;

#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Record>,
}

struct Record {
    about: Value,
    kind: &'static str,
    reason: String,
    message: String,
    field_path: String,
}

impl Recorder {
    /// `component` reports ("kubelet", "default-scheduler"); `host` is its node or "".
    pub fn start(api: Arc<dyn Api>, component: &str, host: &str, shutdown: CancellationToken) -> Recorder {
        let (sender, mut receiver) = mpsc::channel::<Record>(BUFFER);
        let mut sink = Sink { api, component: component.into(), host: host.into(), seen: HashMap::new() };
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    record = receiver.recv() => match record {
                        Some(record) => sink.write(record).await,
                        None => return,
                    },
                    () = shutdown.cancelled() => return,
                }
            }
        });
        Recorder { sender }
    }

    pub fn normal(&self, object: &Value, reason: &str, message: impl Into<String>) {
        self.record(object, "Normal", reason, message.into(), "");
    }

    pub fn warning(&self, object: &Value, reason: &str, message: impl Into<String>) {
        self.record(object, "Warning", reason, message.into(), "");
    }

    /// `field_path` says which part of the object: `spec.containers{app}`.
    pub fn record(&self, object: &Value, kind: &'static str, reason: &str, message: String, field_path: &str) {
        let meta = &object["metadata"];
        let mut about = value!({
            "kind": object["kind"].clone(), "apiVersion": object["apiVersion"].clone(), "name": meta["name"].clone(),
            "uid": meta["uid"].clone(),
        });
        for (field, value) in [("namespace", &meta["namespace"]), ("resourceVersion", &meta["resourceVersion"])] {
            if !value.is_null() {
                about.set(field, value);
            }
        }
        let record = Record { about, kind, reason: reason.into(), message, field_path: field_path.into() };
        if self.sender.try_send(record).is_err() {
            tracing::debug!(reason, "event dropped");
        }
    }
}

struct Sink {
    api: Arc<dyn Api>,
    component: String,
    host: String,
    /// By what makes two Events the same: name in the API and count.
    seen: HashMap<u64, (String, i64)>,
}

static SEQUENCE: AtomicU64 = AtomicU64::new(0);

impl Sink {
    async fn write(&mut self, record: Record) {
        let namespace = match record.about["namespace"].str() {
            "" => "default".to_string(),
            namespace => namespace.to_string(),
        };
        let gvr = Gvr::new("", "v1", "events");
        let mut hasher = DefaultHasher::new();
        let about = &record.about;
        (about["uid"].str(), about["name"].str(), record.kind, &record.reason, &record.message, &record.field_path)
            .hash(&mut hasher);
        let identity = hasher.finish();
        let options = WriteOptions { field_manager: self.component.as_str().into(), ..WriteOptions::default() };
        if let Some((name, count)) = self.seen.get_mut(&identity) {
            let patch = value!({"count": *count + 1, "lastTimestamp": now()});
            let target = Target::new(&gvr, &namespace, name);
            match self.api.patch(&target, Patch::Merge(patch), &options).await {
                Ok(_) => {
                    *count += 1;
                    return;
                }
                // It lived its hour: write a new one.
                Err(gone) if gone.is_not_found() => {}
                Err(error) => {
                    tracing::debug!(%error, "failed to count an event");
                    return;
                }
            }
        }
        let unique =
            u64::try_from(now().0).unwrap_or(0).wrapping_mul(1000) + SEQUENCE.fetch_add(1, Ordering::Relaxed) % 1000;
        let name = format!("{}.{unique:x}", about["name"].str());
        let event = self.event(&record, &namespace, &name);
        let target = Target::new(&gvr, &namespace, &name);
        match self.api.create(&target, event, &options).await {
            Ok(_) => {
                if self.seen.len() >= REMEMBERED {
                    self.seen.clear();
                }
                self.seen.insert(identity, (name, 1));
            }
            Err(error) => tracing::debug!(%error, "failed to write an event"),
        }
    }

    fn event(&self, record: &Record, namespace: &str, name: &str) -> Value {
        let mut involved = record.about.clone();
        if !record.field_path.is_empty() {
            involved.set("fieldPath", &record.field_path);
        }
        let mut source = value!({"component": &self.component});
        if !self.host.is_empty() {
            source.set("host", &self.host);
        }
        let now = now();
        value!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved, "reason": &record.reason, "message": &record.message, "type": record.kind,
            "source": source, "firstTimestamp": now, "lastTimestamp": now, "count": 1, "eventTime": null,
            "reportingComponent": &self.component, "reportingInstance": &self.host,
        })
    }
}
