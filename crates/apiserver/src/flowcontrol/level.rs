//! A priority level at work: its queues, its share of the server's seats, who is being handled.

use super::allocation::Seen;
use super::measures::Measures;
use super::queues::{Call, QueueSet, Queuing, Slot, Work};
use super::{Clock, Schema};
use crate::user::User;
use canopus_api::{Target, Value};
use compact_str::CompactString;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What a PriorityLevelConfiguration says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spec {
    pub(super) exempt: bool,
    pub(super) shares: u32,
    pub(super) lendable: u32,
    pub(super) borrowing: Option<u32>,
    pub(super) queuing: Option<Queuing>,
}

impl Spec {
    /// None if it makes no sense, which validation should have seen to.
    pub(super) fn new(name: &str, spec: &Value) -> Option<Spec> {
        let number = |of: &Value| u32::try_from(of.int()).ok();
        let exempt = spec["type"].str() == "Exempt";
        if exempt != (name == "exempt") {
            return None;
        }
        let limiter = if exempt { &spec["exempt"] } else { &spec["limited"] };
        if !exempt && limiter.is_null() {
            return None;
        }
        let response = &limiter["limitResponse"];
        let queuing = if exempt || response["type"].str() != "Queue" {
            None
        } else {
            let size = |field: &str| usize::try_from(response["queuing"][field].int()).ok();
            let queuing =
                Queuing { queues: size("queues")?, hand: size("handSize")?, length: size("queueLengthLimit")? };
            (1..=15).contains(&queuing.hand).then_some(())?;
            (queuing.hand <= queuing.queues).then_some(())?;
            Some(queuing)
        };
        let borrowing = &limiter["borrowingLimitPercent"];
        Some(Spec {
            exempt,
            shares: number(&limiter["nominalConcurrencyShares"])?,
            lendable: number(&limiter["lendablePercent"])?.min(100),
            borrowing: if borrowing.is_null() { None } else { Some(number(borrowing)?) },
            queuing,
        })
    }
}

/// A level's seats.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Seats {
    pub(super) nominal: u32,
    pub(super) least: u32,
    pub(super) most: u32,
    pub(super) current: u32,
    pub(super) target: f64,
    pub(super) smoothed: f64,
    pub(super) seen: Seen,
}

/// A request as the dumps show it.
pub(super) struct Request {
    pub(super) schema: Arc<Schema>,
    pub(super) distinguisher: CompactString,
    pub(super) arrived: f64,
    pub(super) user: Arc<User>,
    pub(super) verb: CompactString,
    pub(super) target: Target,
    pub(super) path: String,
}

/// Who waits in a queue.
pub(super) struct Ticket {
    pub(super) request: Arc<Request>,
    pub(super) call: oneshot::Sender<Slot>,
}

impl Call for Ticket {
    fn call(self, slot: Slot) -> bool {
        self.call.send(slot).is_ok()
    }
}

pub(super) struct Level {
    pub(super) name: CompactString,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pub(super) spec: Spec,
    pub(super) set: QueueSet<Ticket>,
    pub(super) seats: Seats,
    /// It isn't configured any more, and goes when it is idle.
    pub(super) quiescing: bool,
    pub(super) running: HashMap<u64, (Arc<Request>, Slot)>,
    last: u64,
    pub(super) drops: Drops,
}

impl Level {
    pub(super) fn new(name: &str, spec: Spec, now: f64) -> Level {
        let mut set = QueueSet::new(now);
        set.configure(now, spec.exempt, spec.queuing);
        let state = State {
            spec,
            set,
            seats: Seats::default(),
            quiescing: false,
            running: HashMap::new(),
            last: 0,
            drops: Drops::default(),
        };
        Level { name: name.into(), state: Mutex::new(state) }
    }
}

impl State {
    /// What a request may be thought to take at most, in this level.
    pub(super) fn widest(&self) -> Option<u32> {
        let hand = u32::try_from(self.spec.queuing?.hand).ok()?;
        let nominal = self.seats.nominal;
        Some((nominal * 15).div_ceil(100).min(nominal / hand).max(1))
    }

    pub(super) fn run(&mut self, request: Arc<Request>, slot: Slot) -> u64 {
        self.last += 1;
        self.running.insert(self.last, (request, slot));
        self.last
    }
}

/// The right to be handled. Dropping it gives the seats back.
pub struct Seat {
    level: Arc<Level>,
    slot: Slot,
    id: u64,
    measures: Arc<Measures>,
    clock: Clock,
    started: f64,
    watch: bool,
}

impl Seat {
    pub(super) fn new(level: Arc<Level>, slot: Slot, id: u64, schema: &Schema, clock: Clock, watch: bool) -> Seat {
        let measures = schema.measures.clone();
        measures.executing(1, slot.work.seats());
        Seat { level, slot, id, measures, started: clock.now(), clock, watch }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let now = self.clock.now();
        self.measures.executed(now - self.started, self.watch);
        let mut state = self.level.state.lock();
        state.running.remove(&self.id);
        state.set.finish(now, &self.slot);
        drop(state);
        let seats = self.slot.work.seats();
        if self.slot.work.linger <= 0.0 {
            return self.measures.released(seats);
        }
        let (level, slot, clock, measures) = (self.level.clone(), self.slot, self.clock, self.measures.clone());
        let release = move || {
            level.state.lock().set.release(clock.now(), &slot);
            measures.released(seats);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                tokio::time::sleep(std::time::Duration::from_secs_f64(slot.work.linger.min(60.0))).await;
                release();
            })),
            Err(_) => release(),
        }
    }
}

/// A place in a queue. Dropping it leaves the queue, or gives back what was granted in the same moment.
pub(super) struct Place {
    pub(super) level: Arc<Level>,
    pub(super) queue: usize,
    pub(super) id: u64,
    pub(super) called: oneshot::Receiver<Slot>,
    pub(super) clock: Clock,
    pub(super) work: Work,
    pub(super) measures: Arc<Measures>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.measures.queued(-1, self.work.seats());
        let mut state = self.level.state.lock();
        let now = self.clock.now();
        if !state.set.leave(now, self.queue, self.id)
            && let Ok(slot) = self.called.try_recv()
        {
            state.set.finish(now, &slot.in_vain());
        }
    }
}

/// How long those who are sent away are told to stay away: longer, the more of them there are (upstream
/// `droppedRequestsTracker`).
#[derive(Debug)]
pub(super) struct Drops {
    /// Second and count, oldest first; the last is under way.
    history: std::collections::VecDeque<(i64, i64)>,
    after: i64,
    raised: i64,
}

const LONGEST: i64 = 30;

impl Default for Drops {
    fn default() -> Drops {
        Drops { history: Default::default(), after: 1, raised: 0 }
    }
}

impl Drops {
    /// One more is sent away, for so many seconds.
    pub(super) fn note(&mut self, second: i64) -> i64 {
        match self.history.back_mut() {
            Some((at, count)) if *at == second => *count += 1,
            _ => {
                self.adapt(second);
                self.history.push_back((second, 1));
            }
        }
        self.after
    }

    fn adapt(&mut self, second: i64) {
        let oldest = second - (2 * self.after).min(LONGEST);
        while self.history.front().is_some_and(|(at, _)| *at < oldest) {
            self.history.pop_front();
        }
        let recent = self.history.iter().filter(|(at, _)| second - at <= self.after);
        let dropped: i64 = recent.map(|(_, count)| count).sum();
        if second - self.raised >= self.after && dropped >= 3 * self.after {
            self.after = (2 * self.after).min(LONGEST);
            self.raised = second;
        } else if dropped < self.after && self.after > 1 {
            self.after -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_refusals_mean_a_longer_wait() {
        let mut drops = Drops::default();
        for second in 100..130 {
            for _ in 0..100 {
                drops.note(second);
            }
        }
        assert_eq!(drops.note(130), 16);
        // Calm, with one now and then.
        let mut last = 0;
        for second in (140..1000).step_by(20) {
            last = drops.note(second);
        }
        assert_eq!(last, 1);
    }
}
