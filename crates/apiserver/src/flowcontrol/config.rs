//! From FlowSchemas and PriorityLevelConfigurations to what requests are held against (upstream `configController`).

use super::allocation::{Claim, divide};
use super::level::{Level, Seats, Spec, State};
use super::matching::Rules;
use super::measures::Measures;
use super::{Distinguisher, FlowControl, Schema};
use crate::cache::Cache;
use crate::request_info::RequestInfo;
use crate::server::Server;
use crate::user::{MASTERS, User};
use canopus_api::{Gvr, ListOptions, Patch, Result, Target, Value, WriteOptions, value};
use canopus_resources::flowcontrol::bootstrap;
use compact_str::CompactString;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Of what was seen of demand, so much is kept from one adjustment to the next.
const SMOOTHING: f64 = 0.977;
/// Changes come in crowds.
const SETTLE: Duration = Duration::from_millis(50);

/// An object of either kind.
pub(super) type Object = Arc<canopus_api::Object>;

#[derive(Default)]
pub(super) struct Config {
    /// In the order in which they are tried.
    pub(super) schemas: Vec<Arc<Schema>>,
    pub(super) levels: BTreeMap<CompactString, Arc<Level>>,
    /// What is counted outlives the schemas, by level and schema.
    measures: BTreeMap<(CompactString, CompactString), Arc<Measures>>,
    nominal: u32,
    /// The share of the last division.
    pub(super) fair: Mutex<f64>,
}

impl Config {
    pub(super) fn classify(&self, info: &RequestInfo, user: &User) -> &Arc<Schema> {
        let found = self.schemas.iter().find(|schema| schema.rules.matches(info, user));
        // The last is catch-all, or else one that was matched by everybody before.
        found.unwrap_or_else(|| &self.schemas[self.schemas.len() - 1])
    }

    /// The next configuration. Levels that go on existing keep their requests.
    pub(super) fn digest(&self, levels: &[Object], schemas: &[Object], seats: u32, now: f64) -> Config {
        let mut next = Config { measures: self.measures.clone(), ..Config::default() };
        let mut uids: BTreeMap<CompactString, CompactString> = BTreeMap::new();
        for object in levels {
            if let Some(spec) = Spec::new(object.name(), &object.value()["spec"]) {
                next.take_level(self, object.name(), spec, now);
                uids.insert(object.name().into(), object.facts.uid.clone());
            }
        }
        for name in ["exempt", "catch-all"] {
            let imagined = bootstrap::mandatory("PriorityLevelConfiguration", name);
            if let Some(spec) =
                imagined.filter(|_| !next.levels.contains_key(name)).and_then(|o| Spec::new(name, &o["spec"]))
            {
                next.take_level(self, name, spec, now);
            }
        }
        let configured: BTreeSet<CompactString> = next.levels.keys().cloned().collect();
        for (name, level) in self.levels.iter().filter(|(name, _)| !configured.contains(*name)) {
            let mut state = level.state.lock();
            state.quiescing = true;
            if !state.set.is_idle() {
                next.levels.insert(name.clone(), level.clone());
            }
        }
        next.share(seats, now);
        next.take_schemas(schemas, &configured, &uids);
        next.lend(now);
        next
    }

    fn take_level(&mut self, old: &Config, name: &str, spec: Spec, now: f64) {
        let level = match old.levels.get(name) {
            Some(level) => {
                let mut state = level.state.lock();
                state.quiescing = false;
                if state.spec != spec {
                    state.set.configure(now, spec.exempt, spec.queuing);
                    state.spec = spec;
                }
                level.clone()
            }
            None => Arc::new(Level::new(name, spec, now)),
        };
        self.levels.insert(name.into(), level);
    }

    /// Divides the server's seats by the shares.
    fn share(&mut self, seats: u32, now: f64) {
        let shares: u32 = self.levels.values().map(|level| level.state.lock().spec.shares).sum();
        let percent = |of: u32, percent: u32| (f64::from(of) * f64::from(percent) / 100.0).round() as u32;
        for level in self.levels.values() {
            let mut state = level.state.lock();
            let nominal = (f64::from(seats) * f64::from(state.spec.shares) / f64::from(shares.max(1))).ceil() as u32;
            let lendable = percent(nominal, state.spec.lendable);
            let borrowing = state.spec.borrowing.map_or(seats, |limit| percent(nominal, limit));
            let new = state.seats == Seats::default();
            state.seats.nominal = nominal;
            state.seats.least = nominal - lendable;
            state.seats.most = nominal.saturating_add(borrowing);
            if new {
                state.seats.current = nominal - lendable / 2;
                let current = state.seats.current;
                state.set.set_limit(now, current);
            }
            self.nominal += nominal;
        }
    }

    fn take_schemas(
        &mut self,
        objects: &[Object],
        configured: &BTreeSet<CompactString>,
        uids: &BTreeMap<CompactString, CompactString>,
    ) {
        let mut specs: Vec<(CompactString, CompactString, Value)> =
            objects.iter().map(|o| (o.name().into(), o.facts.uid.clone(), o.value()["spec"].clone())).collect();
        for name in ["exempt", "catch-all"] {
            if let Some(imagined) =
                bootstrap::mandatory("FlowSchema", name).filter(|_| !specs.iter().any(|s| s.0 == name))
            {
                specs.push((name.into(), CompactString::default(), imagined["spec"].clone()));
            }
        }
        for (name, uid, spec) in specs {
            let level = CompactString::from(spec["priorityLevelConfiguration"]["name"].str());
            let Some(found) = self.levels.get(&level).filter(|_| configured.contains(&level)).cloned() else {
                continue;
            };
            let distinguisher = match spec["distinguisherMethod"]["type"].str() {
                "ByUser" => Distinguisher::User,
                "ByNamespace" => Distinguisher::Namespace,
                _ => Distinguisher::Nothing,
            };
            let measures = self.measures.entry((level.clone(), name.clone())).or_default().clone();
            self.schemas.push(Arc::new(Schema {
                name,
                uid,
                precedence: spec["matchingPrecedence"].int(),
                distinguisher,
                rules: Rules::new(&spec["rules"]),
                level: found,
                level_uid: uids.get(&level).cloned().unwrap_or_default(),
                measures,
            }));
        }
        self.schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        // What nobody asks for any more isn't shown for ever.
        let schemas = &self.schemas;
        self.measures.retain(|(_, name), _| schemas.iter().any(|schema| schema.name == *name));
    }

    /// Lends seats of levels that don't need them to those that do (upstream `updateBorrowing`).
    pub(super) fn lend(&self, now: f64) {
        let mut states: Vec<_> = self.levels.values().map(|level| level.state.lock()).collect();
        states.iter_mut().for_each(|state| observe(state, now));
        let floor = |state: &State| {
            let wanted = state.seats.seen.most.round() as u32;
            match state.spec.exempt {
                true => state.seats.least.max(wanted),
                false => state.seats.least.max(state.seats.nominal.min(wanted)),
            }
        };
        let exempt: u32 = states.iter().filter(|s| s.spec.exempt).map(|s| floor(s)).sum();
        let left = i64::from(self.nominal) - i64::from(exempt);
        let limited = || states.iter().filter(|state| !state.spec.exempt);
        let least: i64 = limited().map(|state| i64::from(state.seats.least)).sum();
        let floors: i64 = limited().map(|state| i64::from(floor(state))).sum();
        let claims: Vec<Claim> = limited()
            .map(|state| {
                let low = f64::from(floor(state));
                Claim { target: state.seats.smoothed.max(low), low, high: f64::from(state.seats.most) }
            })
            .collect();
        let divided = divide(f64::from(self.nominal), &claims);
        let fraction = (left - least) as f64 / (floors - least).max(1) as f64;
        let mut next = 0;
        for state in &mut states {
            let (low, seats) = (floor(state), state.seats);
            let current = if state.spec.exempt {
                low
            } else {
                next += 1;
                state.seats.target = claims[next - 1].target;
                match &divided {
                    _ if left <= least => seats.least,
                    _ if left <= floors => seats.least + (f64::from(low - seats.least) * fraction).round() as u32,
                    Some((parts, _)) => parts[next - 1].round() as u32,
                    None => seats.current,
                }
            };
            state.seats.current = current;
            state.set.set_limit(now, current);
        }
        *self.fair.lock() = divided.filter(|_| left > floors).map_or(0.0, |(_, share)| share);
    }
}

fn observe(state: &mut State, now: f64) {
    let Some(seen) = state.set.demand.take(now) else { return };
    let envelope = seen.average + seen.deviation;
    state.seats.smoothed = envelope.max(SMOOTHING * state.seats.smoothed + (1.0 - SMOOTHING) * envelope);
    state.seats.seen = seen;
}

fn caches(server: &Server) -> Result<(Arc<Cache>, Arc<Cache>)> {
    let cache = |plural: &str| server.cache("flowcontrol.apiserver.k8s.io", "v1", plural);
    Ok((cache("prioritylevelconfigurations")?, cache("flowschemas")?))
}

/// Takes over the objects that there are, and follows them for as long as the server lives.
pub async fn follow(server: &Arc<Server>) -> Result<()> {
    let (levels, schemas) = caches(server)?;
    let everything = ListOptions::default();
    let newest = server.newest().await?;
    levels.reached(newest).await?;
    schemas.reached(newest).await?;
    let mut changes =
        (levels.subscribe("", &everything, Some(newest))?, schemas.subscribe("", &everything, Some(newest))?);
    digest(server, &levels, &schemas);
    tell(server, &levels, &schemas).await;
    let (server, closing): (Weak<Server>, _) = (Arc::downgrade(server), server.closing.clone());
    tokio::spawn(async move {
        loop {
            let (of_levels, of_schemas) = (&mut changes.0, &mut changes.1);
            let more = tokio::select! {
                event = of_levels.events.recv() => event.is_some(),
                event = of_schemas.events.recv() => event.is_some(),
                () = closing.cancelled() => return,
            };
            tokio::time::sleep(SETTLE).await;
            while changes.0.events.try_recv().is_ok() || changes.1.events.try_recv().is_ok() {}
            let Some(server) = server.upgrade() else { return };
            if !more {
                // Too many changes at once: from here on.
                match (levels.subscribe("", &everything, None), schemas.subscribe("", &everything, None)) {
                    (Ok(a), Ok(b)) => changes = (a, b),
                    _ => return,
                }
            }
            if let Err(error) = crate::bootstrap::flowcontrol::ensure(&server).await {
                tracing::warn!(%error, "failed to restore a flow control object");
            }
            digest(&server, &levels, &schemas);
            tell(&server, &levels, &schemas).await;
        }
    });
    Ok(())
}

fn digest(server: &Server, levels: &Cache, schemas: &Cache) {
    let everything = ListOptions::default();
    let all = |cache: &Cache| cache.snapshot("", &everything).0;
    server.flow.configure(&all(levels), &all(schemas));
}

/// Writes to the schemas' status whether their levels exist.
async fn tell(server: &Arc<Server>, levels: &Cache, schemas: &Cache) {
    let all = schemas.snapshot("", &ListOptions::default()).0;
    let told = all.iter().map(|schema| {
        let value = schema.value();
        let level = value["spec"]["priorityLevelConfiguration"]["name"].str();
        tell_of(server, schema.name().to_owned(), dangling(&value, level, levels.by_key(level).is_some()))
    });
    futures::future::join_all(told).await;
}

async fn tell_of(server: &Arc<Server>, schema: String, condition: Option<Value>) {
    let Some(mut condition) = condition else { return };
    let user = User::new("system:apiserver", &[MASTERS]);
    let gvr = Gvr::new("flowcontrol.apiserver.k8s.io", "v1", "flowschemas");
    condition.set("lastTransitionTime", server.surroundings.now());
    let applied = value!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "metadata": {"name": &schema}, "status": {"conditions": [condition]},
    });
    let mut target = Target::new(&gvr, "", &schema);
    target.subresource = "status".into();
    let options = WriteOptions {
        field_manager: "api-priority-and-fairness-config-consumer-v1".into(),
        force: true,
        ..WriteOptions::default()
    };
    match server.patch(&user, &target, Patch::Apply(applied), &options).await {
        Err(error) if !error.is_not_found() => tracing::warn!(%error, schema, "failed to set Dangling"),
        _ => {}
    }
}

/// The condition that says whether a schema's level is missing; None if it says so already.
fn dangling(schema: &Value, level: &str, exists: bool) -> Option<Value> {
    let about = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = match exists {
        true => ("False", "Found", format!("{about} and it exists")),
        false => ("True", "NotFound", format!("{about} but there is no such object")),
    };
    let found = schema["status"]["conditions"].items().iter().find(|c| c["type"].str() == "Dangling");
    let same = found.is_some_and(|c| {
        (c["status"].str(), c["reason"].str(), c["message"].str()) == (status, reason, message.as_str())
    });
    (!same).then(|| value!({"type": "Dangling", "status": status, "reason": reason, "message": message}))
}

impl FlowControl {
    pub(super) fn config(&self) -> Arc<Config> {
        self.config.read().clone()
    }
}
