//! Startup, liveness and readiness probes: a task each, for as long as the container runs.

mod action;

pub(crate) use action::exit_code;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use canopus_api::Value;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::node::Node;
use crate::planner::{Instance, Observed, ProbeResults};
use crate::pod;
use action::Action;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    fn field(self) -> &'static str {
        match self {
            Kind::Startup => "startupProbe",
            Kind::Liveness => "livenessProbe",
            Kind::Readiness => "readinessProbe",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Startup => "startup",
            Kind::Liveness => "liveness",
            Kind::Readiness => "readiness",
        }
    }
}

/// The probes of one pod's containers.
pub struct Probers {
    node: Arc<Node>,
    notify: Arc<Notify>,
    results: Arc<Mutex<ProbeResults>>,
    tasks: BTreeMap<String, CancellationToken>,
    /// The pod is going away: only readiness matters still.
    ending: CancellationToken,
}

struct Probe {
    node: Arc<Node>,
    notify: Arc<Notify>,
    results: Arc<Mutex<ProbeResults>>,
    pod: Arc<Value>,
    container: Value,
    probe: Value,
    kind: Kind,
    id: String,
    ip: Option<IpAddr>,
}

impl Probers {
    pub fn new(node: Arc<Node>, notify: Arc<Notify>) -> Self {
        Self { node, notify, results: Arc::default(), tasks: BTreeMap::new(), ending: CancellationToken::new() }
    }

    pub fn results(&self) -> ProbeResults {
        self.results.lock().clone()
    }

    pub fn clear(&mut self) {
        std::mem::take(&mut self.tasks).into_values().for_each(|t| t.cancel());
        *self.results.lock() = ProbeResults::default();
    }

    /// Starts the probes of containers that run, ends those of others.
    pub fn sync(&mut self, pod: &Arc<Value>, observed: &Observed, ips: &[IpAddr]) {
        if pod::is_deleting(pod) {
            self.ending.cancel();
        }
        let gone = |id: &String| !observed.running().any(|i| i.id == *id);
        self.tasks.retain(|id, token| {
            let over = gone(id);
            if over {
                token.cancel();
            }
            !over
        });
        {
            let mut results = self.results.lock();
            results.started.retain(|id, _| !gone(id));
            results.ready.retain(|id, _| !gone(id));
            results.failed.retain(|id, _| !gone(id));
        }
        for instance in observed.running() {
            if !self.tasks.contains_key(&instance.id) {
                let token = self.start(pod, instance, ips);
                self.tasks.insert(instance.id.clone(), token);
            }
        }
    }

    /// What the status says of this very container holds until a probe says otherwise: the agent's restart changes
    /// nothing, as upstream without ChangeContainerStatusOnKubeletRestart.
    fn remember(&self, pod: &Value, instance: &Instance) {
        let lists = ["containerStatuses", "initContainerStatuses"].map(|list| pod["status"][list].items());
        let id = crate::status::container_id(&instance.id);
        let Some(status) = lists.into_iter().flatten().find(|s| s["containerID"].str() == id) else { return };
        let mut results = self.results.lock();
        if status["started"].bool() {
            results.started.insert(instance.id.clone(), true);
        }
        if status["ready"].bool() {
            results.ready.insert(instance.id.clone(), true);
        }
    }

    fn start(&self, pod: &Arc<Value>, instance: &Instance, ips: &[IpAddr]) -> CancellationToken {
        let token = CancellationToken::new();
        let Some(container) = pod::container(pod, &instance.name) else { return token };
        self.remember(pod, instance);
        for kind in [Kind::Startup, Kind::Liveness, Kind::Readiness] {
            let probe = &container[kind.field()];
            let begun = kind == Kind::Startup && self.results.lock().started.contains_key(&instance.id);
            if probe.is_null() || begun {
                continue;
            }
            let probe = Probe {
                node: self.node.clone(),
                notify: self.notify.clone(),
                results: self.results.clone(),
                pod: pod.clone(),
                container: container.clone(),
                probe: probe.clone(),
                kind,
                id: instance.id.clone(),
                ip: ips.first().copied(),
            };
            let ended = token.clone();
            let ending = if kind == Kind::Readiness { CancellationToken::new() } else { self.ending.clone() };
            let age = canopus_client::now().since(instance.started_at.unwrap_or_default());
            tokio::spawn(async move {
                tokio::select! {
                    () = probe.run(age) => {}
                    () = ended.cancelled() => {}
                    () = ending.cancelled() => {}
                }
            });
        }
        token
    }
}

impl Drop for Probers {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Probe {
    fn number(&self, field: &str, default: i64) -> u64 {
        u64::try_from(self.probe[field].as_i64().unwrap_or(default)).unwrap_or(0)
    }

    async fn run(&self, age: Duration) {
        let delay = Duration::from_secs(self.number("initialDelaySeconds", 0));
        tokio::time::sleep(delay.saturating_sub(age)).await;
        let mut ticks = tokio::time::interval(Duration::from_secs(self.number("periodSeconds", 10).max(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut good, mut bad) = (0_u64, 0_u64);
        loop {
            if self.kind != Kind::Startup && !self.container["startupProbe"].is_null() {
                self.started().await;
            }
            ticks.tick().await;
            match self.once().await {
                Ok(()) => (good, bad) = (good + 1, 0),
                Err(why) => {
                    (good, bad) = (0, bad + 1);
                    self.unhealthy(&why);
                }
            }
            let succeeded = good >= self.number("successThreshold", 1).max(1);
            let failed = bad >= self.number("failureThreshold", 3).max(1);
            if (succeeded || failed) && self.conclude(succeeded) {
                return;
            }
        }
    }

    /// Other probes wait for the startup probe.
    async fn started(&self) {
        while self.results.lock().started.get(&self.id) != Some(&true) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Takes a verdict down; whether this probe is done.
    fn conclude(&self, good: bool) -> bool {
        let mut results = self.results.lock();
        let before = results.clone();
        let done = match (self.kind, good) {
            (Kind::Startup, true) => {
                results.started.insert(self.id.clone(), true);
                true
            }
            (Kind::Readiness, good) => {
                results.ready.insert(self.id.clone(), good);
                false
            }
            (Kind::Liveness, true) => false,
            (_, false) => {
                results.failed.insert(self.id.clone(), self.kind.name());
                true
            }
        };
        let changed = *results != before;
        drop(results);
        if changed {
            self.notify.notify_one();
        }
        done
    }

    fn unhealthy(&self, why: &str) {
        let mut kind = self.kind.name().to_owned();
        kind[..1].make_ascii_uppercase();
        let path = pod::field_path(&self.pod, self.container["name"].str());
        let message = format!("{kind} probe failed: {why}");
        self.node.recorder.record(&self.pod, "Warning", "Unhealthy", message, &path);
    }

    async fn once(&self) -> Result<(), String> {
        let limit = Duration::from_secs(self.number("timeoutSeconds", 1).max(1));
        let action = Action { node: &self.node, container: &self.container, id: &self.id, ip: self.ip, limit };
        action.run(&self.probe).await
    }
}
