//! API priority and fairness (KEP-1040): each request is matched to a flow schema and waits for seats of its priority
//! level, in one of its queues, or is told to come back later.

mod allocation;
mod config;
mod dump;
mod level;
mod matching;
mod measures;
mod queues;
mod seats;
#[cfg(test)]
mod tests;

pub use config::follow;
pub use level::Seat;

use crate::cache::Cache;
use crate::http::query::Query;
use crate::request_info::RequestInfo;
use crate::settings::Settings;
use crate::user::User;
use compact_str::CompactString;
use config::Config;
use level::{Level, Place, Request, Ticket};
use matching::Rules;
use measures::Measures;
use parking_lot::RwLock;
use queues::Start;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Seats are lent and taken back at most so often (upstream's borrowingAdjustmentPeriod), and only while somebody asks.
const ADJUST: f64 = 10.0;

/// Seconds since the server started.
#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn now(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// What tells a schema's flows apart.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

/// A FlowSchema at work.
struct Schema {
    name: CompactString,
    uid: CompactString,
    precedence: i64,
    distinguisher: Distinguisher,
    rules: Rules,
    level: Arc<Level>,
    level_uid: CompactString,
    measures: Arc<Measures>,
}

/// What becomes of requests that are too many.
pub struct FlowControl {
    clock: Clock,
    /// All seats there are.
    seats: u32,
    config: RwLock<Arc<Config>>,
    /// When seats are lent next, in milliseconds.
    adjust_at: AtomicU64,
    patience: Duration,
}

/// Which schema and level a request was found to be of: what its answer says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Classified {
    pub schema_uid: CompactString,
    pub level_uid: CompactString,
}

/// A request is sent away for so many seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overload {
    pub retry_after: i64,
}

/// What a request gets at once.
enum Asked {
    Seat(Seat),
    Place(Place, Arc<Request>),
}

impl FlowControl {
    /// With the levels that are always there; [`follow`] brings the others.
    pub fn new(settings: &Settings) -> FlowControl {
        let clock = Clock(Instant::now());
        let total = settings.max_requests_inflight + settings.max_mutating_requests_inflight;
        let seats = u32::try_from(total).unwrap_or(u32::MAX);
        let config = RwLock::new(Arc::new(Config::default().digest(&[], &[], seats, clock.now())));
        // As long as upstream's queues let a request wait.
        let patience = (settings.request_timeout / 4).min(Duration::from_secs(60));
        FlowControl { clock, seats, config, adjust_at: AtomicU64::new(0), patience }
    }

    /// Waits for a turn. `cache` is that of the resource that is asked for.
    pub async fn enter(
        &self,
        info: &RequestInfo,
        query: &Query,
        user: &Arc<User>,
        cache: Option<&Cache>,
    ) -> (Classified, Result<Seat, Overload>) {
        self.adjust();
        let config = self.config.read().clone();
        let schema = config.classify(info, user);
        let classified = Classified { schema_uid: schema.uid.clone(), level_uid: schema.level_uid.clone() };
        let entered = match self.ask(schema, info, query, user, cache) {
            Ok(Asked::Seat(seat)) => Ok(seat),
            Ok(Asked::Place(place, request)) => self.wait(schema, place, request, info.verb == "watch").await,
            Err(reason) => Err(reason),
        };
        (classified, entered.map_err(|reason| self.refuse(schema, reason)))
    }

    fn ask(
        &self,
        schema: &Arc<Schema>,
        info: &RequestInfo,
        query: &Query,
        user: &Arc<User>,
        cache: Option<&Cache>,
    ) -> Result<Asked, &'static str> {
        let (level, measures, watch) = (&schema.level, &schema.measures, info.verb == "watch");
        let (widest, queues) = {
            let state = level.state.lock();
            (state.widest(), state.spec.queuing.map_or(0, |queuing| queuing.queues))
        };
        let (work, watchers) = seats::estimate(info, query, cache, widest);
        measures.estimated(work.seats());
        watchers.into_iter().for_each(|count| measures.watchers(count));
        let distinguisher = if queues > 1 { schema.distinguish(info, user) } else { CompactString::default() };
        let hash = hash(&schema.name, &distinguisher);
        let now = self.clock.now();
        let request = Arc::new(Request {
            schema: schema.clone(),
            distinguisher,
            arrived: now,
            user: user.clone(),
            verb: info.verb.clone(),
            target: info.target.clone(),
            path: if info.is_resource { String::new() } else { info.path.clone() },
        });
        let (call, called) = oneshot::channel();
        let mut state = level.state.lock();
        let ticket = Ticket { request: request.clone(), call };
        match state.set.start(now, work, hash, ticket) {
            Start::Refused(reason) => Err(reason),
            Start::Go(slot, _) => {
                let id = state.run(request, slot);
                drop(state);
                measures.waited(0.0, true);
                Ok(Asked::Seat(Seat::new(level.clone(), slot, id, schema, self.clock, watch)))
            }
            Start::Wait(queue, id) => {
                let length = state.set.length(queue);
                drop(state);
                measures.queued(1, work.seats());
                measures.length(length);
                let (level, measures) = (level.clone(), measures.clone());
                Ok(Asked::Place(Place { level, queue, id, called, clock: self.clock, work, measures }, request))
            }
        }
    }

    async fn wait(
        &self,
        schema: &Schema,
        mut place: Place,
        request: Arc<Request>,
        watch: bool,
    ) -> Result<Seat, &'static str> {
        let called = tokio::time::timeout(self.patience, &mut place.called).await;
        let waited = self.clock.now() - request.arrived;
        let Ok(Ok(slot)) = called else {
            place.measures.waited(waited, false);
            return Err("time-out");
        };
        place.measures.waited(waited, true);
        let level = place.level.clone();
        let id = level.state.lock().run(request, slot);
        Ok(Seat::new(level, slot, id, schema, self.clock, watch))
    }

    fn refuse(&self, schema: &Schema, reason: &'static str) -> Overload {
        schema.measures.refused(reason);
        let second = self.clock.now() as i64;
        // Counted from 1, since 0 stands for never.
        Overload { retry_after: schema.level.state.lock().drops.note(second + 1) }
    }

    /// Lends seats where they are wanted, if it is time to.
    fn adjust(&self) {
        let now = self.clock.now();
        let (at, millis) = (self.adjust_at.load(Ordering::Relaxed), (now * 1000.0) as u64);
        let next = millis + (ADJUST * 1000.0) as u64;
        if millis >= at && self.adjust_at.compare_exchange(at, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.config.read().clone().lend(now);
        }
    }

    /// Takes over what the objects say.
    fn configure(&self, levels: &[config::Object], schemas: &[config::Object]) {
        let mut config = self.config.write();
        let new = config.digest(levels, schemas, self.seats, self.clock.now());
        *config = Arc::new(new);
    }
}

impl Schema {
    fn distinguish(&self, info: &RequestInfo, user: &User) -> CompactString {
        match self.distinguisher {
            Distinguisher::Nothing => CompactString::default(),
            Distinguisher::User => user.name.clone(),
            Distinguisher::Namespace => info.target.namespace.clone(),
        }
    }
}

fn hash(schema: &str, distinguisher: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (schema, distinguisher).hash(&mut hasher);
    hasher.finish()
}
