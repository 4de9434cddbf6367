//! What to do next for one pod: a pure function of its spec, what runs, and what was tried before.

use std::collections::BTreeMap;
use std::time::Duration;

use canopus_api::{Time, Value};

use crate::pod;

/// How soon to look again after a start that a former agent has asked for.
const STARTING: Duration = Duration::from_millis(200);
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const MAX_BACKOFF: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Created,
    /// By an agent that died meanwhile.
    Starting,
    Running,
    Exited,
    /// Lost with its shim.
    Unknown,
}

/// One run of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    pub id: String,
    pub name: String,
    /// Its restart count.
    pub attempt: u32,
    /// It is in the pod's current sandbox.
    pub current: bool,
    pub state: State,
    pub created_at: Time,
    pub started_at: Option<Time>,
    pub finished_at: Option<Time>,
    pub exit_code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    /// Why it could not be started.
    pub start_error: Option<String>,
    /// What it left in its termination log.
    pub message: String,
    pub image_id: String,
    /// As the spec named it.
    pub image: String,
    /// uid, gid and supplementary groups of its first process.
    pub user: (u32, u32, Vec<u32>),
}

impl Instance {
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Exited | State::Unknown)
    }

    fn failed(&self) -> bool {
        self.code() != 0
    }

    /// How it ended; one that was lost was killed.
    pub fn code(&self) -> i64 {
        if self.state == State::Unknown { 137 } else { i64::from(self.exit_code) }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
}

/// What the runtime says of one pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// The newest.
    pub sandbox: Option<Sandbox>,
    /// Every run that is remembered.
    pub instances: Vec<Instance>,
}

impl Observed {
    /// The newest run of a container that got as far as being started.
    pub fn latest(&self, name: &str) -> Option<&Instance> {
        let begun = |i: &&Instance| i.name == name && !matches!(i.state, State::Created | State::Starting);
        let runs = self.instances.iter().filter(begun);
        runs.max_by_key(|i| (i.attempt, i.created_at.0))
    }

    /// Whether a run of the container is about to begin: another must not.
    pub fn is_starting(&self, name: &str) -> bool {
        self.instances.iter().any(|i| i.name == name && i.state == State::Starting)
    }

    /// The run before that.
    pub fn previous(&self, name: &str) -> Option<&Instance> {
        let latest = self.latest(name)?;
        let runs = self.instances.iter().filter(|i| i.name == name && i.is_over() && i.id != latest.id);
        runs.max_by_key(|i| (i.attempt, i.created_at.0))
    }

    pub fn running(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|i| i.state == State::Running)
    }
}

/// What probes found, by container id.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProbeResults {
    pub started: BTreeMap<String, bool>,
    pub ready: BTreeMap<String, bool>,
    /// Containers whose startup or liveness probe failed for good, with the probe's kind.
    pub failed: BTreeMap<String, &'static str>,
}

impl ProbeResults {
    /// Whether a running container counts as started: at once without a startup probe.
    pub fn is_started(&self, container: &Value, instance: &Instance) -> bool {
        let probed = || self.started.get(&instance.id).copied().unwrap_or(false);
        instance.state == State::Running && (container["startupProbe"].is_null() || probed())
    }

    pub fn is_ready(&self, container: &Value, instance: &Instance) -> bool {
        let probed = || self.ready.get(&instance.id).copied().unwrap_or(false);
        self.is_started(container, instance) && (container["readinessProbe"].is_null() || probed())
    }
}

/// Restart delay of one container: 10 s, doubled at each restart up to 5 min, forgotten after 10 quiet minutes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    pub delay: Duration,
    pub updated: Time,
}

impl Backoff {
    /// The delay after one more restart.
    pub fn next(previous: Option<Backoff>, now: Time) -> Backoff {
        let delay = match previous {
            Some(b) if now.since(b.updated) <= MAX_BACKOFF * 2 => (b.delay * 2).min(MAX_BACKOFF),
            _ => FIRST_BACKOFF,
        };
        Backoff { delay, updated: now }
    }

    /// Until when a container that ended at `finished` has to wait.
    fn until(self, finished: Time, now: Time) -> Option<Time> {
        let forgotten = now.since(self.updated) > MAX_BACKOFF * 2;
        let end = finished.plus(self.delay);
        (!forgotten && end > now).then_some(end)
    }
}

/// What the worker remembers between two plans.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// By container name.
    pub backoff: BTreeMap<String, Backoff>,
    /// Not before then: containers whose creation failed.
    pub retry: BTreeMap<String, Time>,
    pub sandbox_retry: Option<Time>,
    /// Containers that are being stopped, with the end of their grace.
    pub stopping: BTreeMap<String, Time>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    CreateSandbox {
        attempt: u32,
    },
    Start {
        name: String,
        attempt: u32,
    },
    Kill {
        id: String,
        name: String,
        reason: KillReason,
        grace: Duration,
    },
    /// Its grace is over.
    Finish {
        id: String,
    },
    /// All containers are over: the shared parts are no longer needed.
    StopSandbox {
        id: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    /// The pod goes away.
    Stop,
    /// "liveness" or "startup", and whether it is to run again.
    Probe(&'static str, bool),
    /// Its image was changed.
    Changed,
}

/// A container that has to wait for its restart.
#[derive(Debug, Clone, PartialEq)]
pub struct CrashLoop {
    pub name: String,
    pub delay: Duration,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// When to plan again even if nothing happens.
    pub wake: Option<Time>,
    pub crash_loops: Vec<CrashLoop>,
    /// Nothing of the pod runs and nothing will: it is Succeeded, Failed or being deleted.
    pub over: bool,
}

impl Plan {
    fn wake_at(&mut self, at: Time) {
        self.wake = Some(self.wake.map_or(at, |w| Time(w.0.min(at.0))));
    }
}

/// Whether a pod is to be stopped; `gone`: the API no longer has it.
pub fn must_stop(pod: &Value, gone: bool, now: Time) -> bool {
    gone || pod::is_deleting(pod) || pod::is_terminal(pod) || pod::deadline(pod).is_some_and(|d| d <= now)
}

struct Planner<'a> {
    pod: &'a Value,
    observed: &'a Observed,
    probes: &'a ProbeResults,
    memory: &'a Memory,
    now: Time,
    plan: Plan,
}

enum Progress {
    Done,
    Waiting,
    Failed,
}

/// Plans for `pod`, which is the last that was known if it is `gone`.
pub fn plan(pod: &Value, gone: bool, observed: &Observed, probes: &ProbeResults, memory: &Memory, now: Time) -> Plan {
    let mut plan = decide(pod, gone, observed, probes, memory, now);
    let stopping = observed.running().filter_map(|i| Some((i, *memory.stopping.get(&i.id)?)));
    for (instance, deadline) in stopping {
        match deadline <= now {
            true => plan.actions.push(Action::Finish { id: instance.id.clone() }),
            false => plan.wake_at(deadline),
        }
    }
    plan
}

fn decide(pod: &Value, gone: bool, observed: &Observed, probes: &ProbeResults, memory: &Memory, now: Time) -> Plan {
    if must_stop(pod, gone, now) {
        return stop(pod, observed, memory, now);
    }
    let mut planner = Planner { pod, observed, probes, memory, now, plan: Plan::default() };
    planner.decide();
    if let Some(deadline) = pod::deadline(pod) {
        planner.plan.wake_at(deadline);
    }
    planner.plan
}

/// Containers first, sidecars once those are gone, in the reverse of their order; then the sandbox.
fn stop(pod: &Value, observed: &Observed, memory: &Memory, now: Time) -> Plan {
    let mut plan = Plan::default();
    let grace = pod::grace(pod);
    let inits = pod["spec"]["initContainers"].items().iter();
    let sidecars: Vec<&str> = inits.filter(|c| pod::is_sidecar(c)).map(|c| c["name"].str()).collect();
    let running: Vec<&Instance> = observed.running().collect();
    let mut batch: Vec<&Instance> = running.iter().copied().filter(|i| !sidecars.contains(&i.name.as_str())).collect();
    if batch.is_empty() {
        let last = sidecars.iter().rev().find_map(|name| running.iter().find(|i| i.name == *name));
        batch.extend(last);
    }
    for instance in batch {
        let until = now.plus(grace);
        // One that is being stopped is asked again only if it is to end earlier.
        if memory.stopping.get(&instance.id).is_none_or(|deadline| until.plus(Duration::from_secs(1)) < *deadline) {
            let (id, name) = (instance.id.clone(), instance.name.clone());
            plan.actions.push(Action::Kill { id, name, reason: KillReason::Stop, grace });
        }
    }
    if observed.instances.iter().any(|i| i.state == State::Starting) {
        plan.wake_at(now.plus(STARTING));
    } else if running.is_empty() {
        match &observed.sandbox {
            Some(sandbox) if sandbox.ready => plan.actions.push(Action::StopSandbox { id: sandbox.id.clone() }),
            _ => plan.over = true,
        }
    }
    plan
}

impl Planner<'_> {
    fn decide(&mut self) {
        let ready = self.observed.sandbox.as_ref().filter(|s| s.ready);
        if ready.is_none() {
            return self.without_sandbox();
        }
        match self.init_containers() {
            Progress::Done => self.main_containers(),
            Progress::Waiting => {}
            Progress::Failed => self.finish(),
        }
    }

    fn without_sandbox(&mut self) {
        let mains = self.pod["spec"]["containers"].items();
        let failed_init = self.pod["spec"]["initContainers"].items().iter().any(|c| {
            let run = self.observed.latest(c["name"].str());
            !pod::is_sidecar(c) && run.is_some_and(|i| i.is_over() && i.failed() && !self.restarts(c, i))
        });
        let is_over = |c: &Value| {
            let run = self.observed.latest(c["name"].str());
            run.is_some_and(|i| i.is_over() && !self.restarts(c, i))
        };
        let all_over = mains.iter().all(is_over);
        if all_over || failed_init {
            self.plan.over = true;
            return;
        }
        if let Some(retry) = self.memory.sandbox_retry.filter(|t| *t > self.now) {
            return self.plan.wake_at(retry);
        }
        let attempt = self.observed.sandbox.as_ref().map_or(0, |s| s.attempt + 1);
        self.plan.actions.push(Action::CreateSandbox { attempt });
    }

    /// Whether this container runs again, now that it has ended.
    fn restarts(&self, container: &Value, instance: &Instance) -> bool {
        pod::restarts(self.pod, container, instance.code()) || is_changed(container, instance)
    }

    fn init_containers(&mut self) -> Progress {
        let mains = self.pod["spec"]["containers"].items();
        let initialized = mains.iter().any(|c| self.observed.latest(c["name"].str()).is_some_and(|i| i.current));
        let pod = self.pod;
        for container in pod["spec"]["initContainers"].items() {
            let name = container["name"].str();
            let run = self.observed.latest(name).filter(|i| i.current).cloned();
            let sidecar = pod::is_sidecar(container);
            if initialized && !sidecar {
                continue;
            }
            match run {
                None => {
                    self.start(name);
                    if !initialized {
                        return Progress::Waiting;
                    }
                }
                Some(i) if i.state == State::Running => {
                    self.check_probes(&i);
                    if !sidecar || (!initialized && !self.probes.is_started(container, &i)) {
                        return Progress::Waiting;
                    }
                }
                Some(i) if sidecar => {
                    self.restart(&i);
                    if !initialized {
                        return Progress::Waiting;
                    }
                }
                Some(i) if !i.failed() => {}
                Some(i) if !self.restarts(container, &i) => return Progress::Failed,
                Some(i) => {
                    self.restart(&i);
                    return Progress::Waiting;
                }
            }
        }
        Progress::Done
    }

    fn main_containers(&mut self) {
        let mut all_over = true;
        let pod = self.pod;
        for container in pod["spec"]["containers"].items() {
            let name = container["name"].str();
            match self.observed.latest(name).cloned() {
                None => {
                    all_over = false;
                    self.start(name);
                }
                Some(i) if i.state == State::Running => {
                    all_over = false;
                    self.check_change(container, &i);
                    self.check_probes(&i);
                }
                Some(i) if self.restarts(container, &i) => {
                    all_over = false;
                    self.restart(&i);
                }
                Some(_) => {}
            }
        }
        if all_over {
            self.finish();
        }
    }

    /// Nothing is left to do but to end what runs beside.
    fn finish(&mut self) {
        let end = stop(self.pod, self.observed, self.memory, self.now);
        self.plan.actions = end.actions;
        self.plan.over = end.over;
    }

    fn check_probes(&mut self, instance: &Instance) {
        let Some(kind) = self.probes.failed.get(&instance.id) else { return };
        if !self.memory.stopping.contains_key(&instance.id) {
            let container = pod::container(self.pod, &instance.name);
            let own = container.map(|c| &c[if *kind == "startup" { "startupProbe" } else { "livenessProbe" }]);
            let own = own.and_then(|p| p["terminationGracePeriodSeconds"].as_i64());
            let grace = own.map_or(pod::grace(self.pod), |s| Duration::from_secs(u64::try_from(s).unwrap_or(0)));
            // As upstream, which asks only the policies, not the rules: an exit code isn't known yet.
            let again = container.is_some_and(|c| pod::restarts(self.pod, c, 1));
            let (id, name) = (instance.id.clone(), instance.name.clone());
            self.plan.actions.push(Action::Kill { id, name, reason: KillReason::Probe(kind, again), grace });
        }
    }

    fn check_change(&mut self, container: &Value, instance: &Instance) {
        if is_changed(container, instance) && !self.memory.stopping.contains_key(&instance.id) {
            let (id, name) = (instance.id.clone(), instance.name.clone());
            let grace = pod::grace(self.pod);
            self.plan.actions.push(Action::Kill { id, name, reason: KillReason::Changed, grace });
        }
    }

    fn start(&mut self, name: &str) {
        self.start_attempt(name, self.observed.latest(name).map_or(0, |i| i.attempt + 1));
    }

    fn start_attempt(&mut self, name: &str, attempt: u32) {
        if self.observed.is_starting(name) {
            return self.plan.wake_at(self.now.plus(STARTING));
        }
        match self.memory.retry.get(name) {
            Some(retry) if *retry > self.now => self.plan.wake_at(*retry),
            _ => self.plan.actions.push(Action::Start { name: name.to_owned(), attempt }),
        }
    }

    fn restart(&mut self, instance: &Instance) {
        let backoff = self.memory.backoff.get(&instance.name);
        let finished = instance.finished_at.unwrap_or(instance.created_at);
        match backoff.and_then(|b| b.until(finished, self.now).map(|until| (b.delay, until))) {
            Some((delay, until)) => {
                self.plan.crash_loops.push(CrashLoop { name: instance.name.clone(), delay });
                self.plan.wake_at(until);
            }
            None => self.start_attempt(&instance.name, instance.attempt + 1),
        }
    }
}

/// Whether the container runs another image than the spec says by now.
fn is_changed(container: &Value, instance: &Instance) -> bool {
    !instance.image.is_empty() && container["image"].str() != instance.image
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
