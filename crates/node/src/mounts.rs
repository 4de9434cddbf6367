//! A pod's volumes while it runs: set up, and kept as the API says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use canopus_api::{Gvr, Object, Target, Time, Value, WriteOptions, value};
use canopus_client::now;

use crate::Error;
use crate::env::{Facts, References};
use crate::node::Node;
use crate::sources::Watched;
use crate::volumes::{self, Tokens};
use crate::worker::Worker;

/// What a worker holds for its pod's volumes.
#[derive(Default)]
pub struct Volumes {
    watched: BTreeMap<(&'static str, String), Arc<Watched>>,
    tokens: BTreeMap<(String, i64), Token>,
    prepared: bool,
    /// What the files last written were made of.
    seen: Option<String>,
    /// Failures in a row.
    failures: u32,
}

struct Token {
    text: String,
    renew: Time,
}

const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Upstream's longest pause between two tries to mount.
const MAX_RETRY: Duration = Duration::from_secs(122);

impl Worker {
    /// Brings the volumes up to date and tells of failures. An error says when to try again: containers can't be
    /// started before; those that run go on, and once written, volumes keep what they show.
    pub(crate) async fn volumes_ready(&mut self, pod: &Value) -> Result<Option<Time>, Time> {
        let error = match self.refresh_volumes(pod).await {
            Ok(due) => {
                self.volumes.failures = 0;
                return Ok(due);
            }
            Err(error) => error,
        };
        let message = match &error {
            Error::Volume(message) => message.clone(),
            other => format!("MountVolume.SetUp failed: {}", crate::start::chain(other)),
        };
        self.node.recorder.warning(pod, "FailedMount", message);
        let pause = (FIRST_RETRY * 2_u32.saturating_pow(self.volumes.failures)).min(MAX_RETRY);
        self.volumes.failures = (self.volumes.failures + 1).min(8);
        let retry = now().plus(pause);
        if self.volumes.seen.is_some() { Ok(Some(retry)) } else { Err(retry) }
    }

    /// Brings the pod's volumes up to date. When a token in them has to be renewed.
    pub(crate) async fn refresh_volumes(&mut self, pod: &Value) -> Result<Option<Time>, Error> {
        let all = pod["spec"]["volumes"].items();
        let fs_group = fs_group(pod);
        let dir = self.node.pod_dir(&self.uid);
        if !self.volumes.prepared {
            let (dir, all, memory) = (dir.clone(), all.to_vec(), crate::container::pod_limits(pod).memory_limit);
            let prepare = move |_: &Node| {
                let one = |v| volumes::prepare(&dir, v, fs_group, memory).map_err(|e| set_up_failed(v, &e));
                all.iter().try_for_each(one)
            };
            self.node.blocking(prepare).await?.map_err(Error::Volume)?;
            self.volumes.prepared = true;
        }
        let files: Vec<&Value> = all.iter().filter(|v| volumes::has_payload(v)).collect();
        if files.is_empty() {
            return Ok(None);
        }
        let objects = self.follow(&files).await?;
        let renew = self.renew_tokens(pod, &files).await?;
        let revisions: Vec<(&str, u64)> = objects.iter().map(|((_, n), o)| (n.as_str(), o.revision)).collect();
        let meta = &pod["metadata"];
        let seen = format!("{revisions:?} {:?} {:?} {:?}", renew, meta["labels"], meta["annotations"]);
        if self.volumes.seen.as_ref() == Some(&seen) {
            return Ok(renew);
        }
        let refs: References = objects.into_iter().map(|(key, object)| (key, (*object.value()).clone())).collect();
        let tokens: Tokens = self.volumes.tokens.iter().map(|(k, t)| (k.clone(), t.text.clone())).collect();
        let mut writes = Vec::new();
        for volume in files {
            let payload = volumes::payload(volume, &self.facts(pod), &refs, &tokens, fs_group);
            let payload = payload.map_err(|e| Error::Volume(set_up_failed(volume, &e)))?;
            writes.push((volumes::path(&dir, volume), payload));
        }
        let write = move |_: &Node| writes.iter().try_for_each(|(dir, p)| volumes::write(dir, p).map(|_| ()));
        self.node.blocking(write).await??;
        self.volumes.seen = Some(seen);
        Ok(renew)
    }

    async fn follow(&mut self, files: &[&Value]) -> Result<BTreeMap<(&'static str, String), Arc<Object>>, Error> {
        let mut objects = BTreeMap::new();
        for key in files.iter().flat_map(|v| volumes::references(v)) {
            let (node, namespace, notify) = (&self.node, &self.namespace, &self.notify);
            let follow = || node.sources.follow(key.0, namespace, &key.1, notify);
            let watched = self.volumes.watched.entry(key.clone()).or_insert_with(follow);
            if let Some(object) = watched.object().await.map_err(Error::Volume)? {
                objects.insert(key, object);
            }
        }
        Ok(objects)
    }

    /// Asks for the tokens that are missing or have lived 80% of their time. When the next is due.
    async fn renew_tokens(&mut self, pod: &Value, files: &[&Value]) -> Result<Option<Time>, Error> {
        for key in files.iter().flat_map(|v| volumes::tokens(v)) {
            if self.volumes.tokens.get(&key).is_some_and(|t| t.renew > now()) {
                continue;
            }
            let token = self.request_token(pod, &key.0, key.1).await?;
            self.volumes.tokens.insert(key, token);
        }
        Ok(self.volumes.tokens.values().map(|t| t.renew).min_by_key(|t| t.0))
    }

    async fn request_token(&self, pod: &Value, audience: &str, seconds: i64) -> Result<Token, Error> {
        let account = match pod["spec"]["serviceAccountName"].str() {
            "" => "default",
            name => name,
        };
        let meta = &pod["metadata"];
        let audiences: Vec<&str> = Some(audience).filter(|a| !a.is_empty()).into_iter().collect();
        let body = value!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
            "spec": {
                "audiences": audiences, "expirationSeconds": seconds,
                "boundObjectRef": {
                    "kind": "Pod", "apiVersion": "v1", "name": meta["name"].clone(), "uid": meta["uid"].clone(),
                },
            },
        });
        let gvr = Gvr::new("", "v1", "serviceaccounts");
        let target = Target::new(&gvr, &self.namespace, account).subresource("token");
        let answer = self.node.api.create(&target, body, &WriteOptions::default()).await?.value();
        let status = &answer["status"];
        let asked = now();
        let life = Time::parse(status["expirationTimestamp"].str()).map_or(Duration::ZERO, |t| t.since(asked));
        let renew = asked.plus((life * 4 / 5).max(Duration::from_secs(10)));
        Ok(Token { text: status["token"].str().to_owned(), renew })
    }

    pub(crate) fn facts<'a>(&'a self, pod: &'a Value) -> Facts<'a> {
        Facts {
            pod,
            node_name: &self.node.name,
            host_ip: self.node.ip,
            pod_ips: &self.pod_ips,
            allocatable_cpu: self.node.allocatable().milli_cpu,
            allocatable_memory: self.node.allocatable().memory,
        }
    }
}

fn set_up_failed(volume: &Value, why: &str) -> String {
    format!("MountVolume.SetUp failed for volume {:?} : {why}", volume["name"].str())
}

pub(crate) fn fs_group(pod: &Value) -> Option<u32> {
    pod["spec"]["securityContext"]["fsGroup"].as_i64().and_then(|g| u32::try_from(g).ok())
}
