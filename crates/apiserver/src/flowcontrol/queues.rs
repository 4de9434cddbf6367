//! Fair queuing for requests (KEP-1040): shuffle sharding into queues, virtual time, seats. Time is an argument, in
//! seconds; nothing here waits.

use super::allocation::Demand;
use std::collections::VecDeque;

/// How long a request is thought to take when it is let in.
const SERVICE: f64 = 0.003;

/// `spec.limited.limitResponse.queuing`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Queuing {
    pub(super) queues: usize,
    pub(super) hand: usize,
    pub(super) length: usize,
}

/// What a request occupies: seats while it is handled, and seats for a while after.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Work {
    pub(super) first: u32,
    pub(super) after: u32,
    pub(super) linger: f64,
}

impl Work {
    pub(super) const ONE: Work = Work { first: 1, after: 0, linger: 0.0 };

    /// Seats are taken for the wider of the two phases.
    pub(super) fn seats(&self) -> u32 {
        self.first.max(self.after)
    }

    fn total(&self) -> f64 {
        f64::from(self.first) * SERVICE + f64::from(self.after) * self.linger
    }
}

/// A request that waits, with what its caller needs to be told.
struct Waiting<T> {
    id: u64,
    work: Work,
    arrived: f64,
    token: T,
}

struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    executing: usize,
    seats: u64,
    /// When, in virtual time, its next request starts.
    next: f64,
    work: f64,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { waiting: VecDeque::new(), executing: 0, seats: 0, next: 0.0, work: 0.0 }
    }
}

impl<T> Queue<T> {
    fn busy(&self) -> bool {
        !self.waiting.is_empty() || self.executing > 0
    }

    /// A queue that hasn't used its share doesn't save it up: nothing starts before it arrives.
    fn bound(&mut self) {
        if let Some(oldest) = self.waiting.front() {
            self.next = self.next.max(oldest.arrived);
        }
    }
}

/// The right to be handled, to be given back by [`QueueSet::finish`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Slot {
    queue: Option<usize>,
    pub(super) work: Work,
    started: f64,
}

impl Slot {
    pub(super) fn queue(&self) -> Option<usize> {
        self.queue
    }

    /// Of a request that won't be handled after all.
    pub(super) fn in_vain(self) -> Slot {
        Slot { work: Work { linger: 0.0, ..self.work }, ..self }
    }

    pub(super) fn started(&self) -> f64 {
        self.started
    }
}

pub(super) enum Start<T> {
    Go(Slot, T),
    /// In this queue, under this number.
    Wait(usize, u64),
    Refused(&'static str),
}

/// What is told who waited: to go, with the slot. Whether anybody still waits.
pub(super) trait Call {
    fn call(self, slot: Slot) -> bool;
}

/// A queue as shown to who debugs.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct QueueView {
    pub(super) waiting: Vec<u64>,
    pub(super) executing: usize,
    pub(super) seats: u64,
    pub(super) next: f64,
    pub(super) first_seats: u64,
    pub(super) most_seats: u64,
    pub(super) work: f64,
}

/// The requests of one priority level.
pub(super) struct QueueSet<T> {
    exempt: bool,
    queuing: Option<Queuing>,
    limit: u32,
    queues: Vec<Queue<T>>,
    /// Virtual time, and the real time of its last reading.
    meter: f64,
    read: f64,
    robin: usize,
    active: usize,
    pub(super) waiting: usize,
    pub(super) executing: usize,
    pub(super) seats: u64,
    pub(super) seats_waiting: u64,
    enqueued: u64,
    pub(super) dispatched: u64,
    pub(super) refused: u64,
    pub(super) timed_out: u64,
    pub(super) demand: Demand,
}

impl<T: Call> QueueSet<T> {
    pub(super) fn new(now: f64) -> QueueSet<T> {
        QueueSet {
            exempt: false,
            queuing: None,
            limit: 0,
            queues: Vec::new(),
            meter: 0.0,
            read: now,
            robin: 0,
            active: 0,
            waiting: 0,
            executing: 0,
            seats: 0,
            seats_waiting: 0,
            enqueued: 0,
            dispatched: 0,
            refused: 0,
            timed_out: 0,
            demand: Demand::new(now),
        }
    }

    /// Sets the queues up; who waits in one too many goes on waiting there.
    pub(super) fn configure(&mut self, now: f64, exempt: bool, queuing: Option<Queuing>) {
        self.sync(now);
        (self.exempt, self.queuing) = (exempt, queuing);
        let wanted = queuing.map_or(0, |queuing| queuing.queues);
        if self.queues.len() < wanted {
            self.queues.resize_with(wanted, Queue::default);
        }
        self.shrink();
        self.dispatch(now);
    }

    pub(super) fn set_limit(&mut self, now: f64, limit: u32) {
        self.sync(now);
        self.limit = limit;
        self.dispatch(now);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting == 0 && self.executing == 0
    }

    /// A request arrives. `hash` chooses its hand of queues.
    pub(super) fn start(&mut self, now: f64, work: Work, hash: u64, token: T) -> Start<T> {
        self.sync(now);
        let Some(queuing) = self.queuing else {
            if !self.fits(work.seats()) {
                self.refused += 1;
                return Start::Refused("concurrency-limit");
            }
            return Start::Go(self.occupy(now, None, work), token);
        };
        let chosen = self.choose(queuing, hash);
        let queue = &mut self.queues[chosen];
        if self.seats >= u64::from(self.limit) && queue.waiting.len() >= queuing.length {
            self.refused += 1;
            return Start::Refused("queue-full");
        }
        if !queue.busy() {
            queue.next = self.meter;
        } else if queue.waiting.is_empty() {
            queue.next = queue.next.max(self.meter);
        }
        if self.waiting == 0 && self.seats < u64::from(self.limit) && self.fits(work.seats()) {
            self.robin = chosen;
            return Start::Go(self.occupy(now, Some(chosen), work), token);
        }
        self.enqueued += 1;
        let id = self.enqueued;
        let queue = &mut self.queues[chosen];
        self.active += usize::from(!queue.busy());
        queue.work += work.total();
        queue.waiting.push_back(Waiting { id, work, arrived: self.meter, token });
        self.waiting += 1;
        self.seats_waiting += u64::from(work.seats());
        self.note_demand(now);
        self.dispatch(now);
        Start::Wait(chosen, id)
    }

    /// Takes out who won't wait any longer; false if it isn't there, because it was called.
    pub(super) fn leave(&mut self, now: f64, queue: usize, id: u64) -> bool {
        self.sync(now);
        let Some(at) = self.queues.get(queue).and_then(|q| q.waiting.iter().position(|w| w.id == id)) else {
            return false;
        };
        self.remove(queue, at);
        self.refused += 1;
        self.timed_out += 1;
        self.queues[queue].bound();
        self.note_demand(now);
        self.shrink();
        true
    }

    /// A request is done. Its seats are kept if it lingers: see [`QueueSet::release`].
    pub(super) fn finish(&mut self, now: f64, slot: &Slot) {
        self.sync(now);
        self.executing -= 1;
        if let Some(queue) = slot.queue.map(|i| &mut self.queues[i]) {
            queue.executing -= 1;
            // What it was thought to take, set right.
            queue.next -= f64::from(slot.work.first) * (SERVICE - (now - slot.started));
            queue.bound();
            self.active -= usize::from(!queue.busy());
        }
        if slot.work.linger <= 0.0 {
            self.release(now, slot);
        } else {
            self.dispatch(now);
        }
    }

    /// Gives a finished request's seats back.
    pub(super) fn release(&mut self, now: f64, slot: &Slot) {
        self.sync(now);
        let seats = u64::from(slot.work.seats());
        self.seats -= seats;
        if let Some(queue) = slot.queue.map(|i| &mut self.queues[i]) {
            queue.seats -= seats;
        }
        self.note_demand(now);
        self.shrink();
        self.dispatch(now);
    }

    pub(super) fn view(&self) -> Vec<QueueView> {
        let queue = |queue: &Queue<T>| QueueView {
            waiting: queue.waiting.iter().map(|w| w.id).collect(),
            executing: queue.executing,
            seats: queue.seats,
            next: queue.next,
            first_seats: queue.waiting.iter().map(|w| u64::from(w.work.first)).sum(),
            most_seats: queue.waiting.iter().map(|w| u64::from(w.work.seats())).sum(),
            work: queue.work,
        };
        self.queues.iter().map(queue).collect()
    }

    /// How many wait in a queue.
    pub(super) fn length(&self, queue: usize) -> usize {
        self.queues.get(queue).map_or(0, |queue| queue.waiting.len())
    }

    /// Those who wait, by queue and place.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (usize, usize, Work, &T)> {
        self.queues
            .iter()
            .enumerate()
            .flat_map(|(q, queue)| queue.waiting.iter().enumerate().map(move |(place, w)| (q, place, w.work, &w.token)))
    }

    /// Virtual time runs as fast as each active queue gets on.
    fn sync(&mut self, now: f64) {
        let passed = (now - self.read).max(0.0);
        self.read = self.read.max(now);
        if self.active > 0 {
            let used = (self.seats + self.seats_waiting).min(u64::from(self.limit)) as f64;
            self.meter += passed * used / self.active as f64;
        }
    }

    fn note_demand(&mut self, now: f64) {
        self.demand.set(now, (self.seats + self.seats_waiting) as f64);
    }

    fn fits(&self, seats: u32) -> bool {
        if self.exempt {
            return true;
        }
        if seats > self.limit {
            // One that is too wide for the level goes alone.
            return self.executing == 0;
        }
        self.seats + u64::from(seats) <= u64::from(self.limit)
    }

    fn occupy(&mut self, now: f64, queue: Option<usize>, mut work: Work) -> Slot {
        if queue.is_some() && work.after > self.limit && self.limit > 0 {
            // As much work, in a narrower shape.
            work.linger *= f64::from(work.after) / f64::from(self.limit);
            work.after = self.limit;
        }
        let seats = u64::from(work.seats());
        self.executing += 1;
        self.dispatched += 1;
        self.seats += seats;
        if let Some(queue) = queue.map(|i| &mut self.queues[i]) {
            self.active += usize::from(!queue.busy());
            queue.executing += 1;
            queue.seats += seats;
            queue.next += work.total();
        }
        self.note_demand(now);
        Slot { queue, work, started: now }
    }

    /// Of the hand that `hash` deals, the queue with the least work.
    fn choose(&mut self, queuing: Queuing, hash: u64) -> usize {
        let mut hand = [0; 15];
        let size = deal(hash, queuing.queues, queuing.hand.min(15), &mut hand);
        // The order of visits isn't that of the deal, for the sake of flows whose hands overlap.
        let offset = usize::try_from(self.dispatched).unwrap_or(0) % size;
        let visits = (0..size).map(|i| hand[(offset + i) % size]);
        visits.min_by(|a, b| self.queues[*a].work.total_cmp(&self.queues[*b].work)).unwrap_or(0)
    }

    fn remove(&mut self, queue: usize, at: usize) -> Option<Waiting<T>> {
        let queue = &mut self.queues[queue];
        let gone = queue.waiting.remove(at)?;
        queue.work = if queue.waiting.is_empty() { 0.0 } else { queue.work - gone.work.total() };
        self.waiting -= 1;
        self.seats_waiting -= u64::from(gone.work.seats());
        self.active -= usize::from(!queue.busy());
        Some(gone)
    }

    /// Lets in whoever can be let in, fairest first.
    fn dispatch(&mut self, now: f64) {
        while self.waiting > 0 && (self.exempt || self.seats < u64::from(self.limit)) {
            let Some(queue) = self.fairest() else { return };
            let Some(oldest) = self.queues[queue].waiting.front() else { return };
            if !self.fits(oldest.work.seats()) {
                return;
            }
            self.robin = queue;
            let Some(request) = self.remove(queue, 0) else { return };
            let slot = self.occupy(now, Some(queue), request.work);
            self.queues[queue].bound();
            if !request.token.call(slot) {
                // It has just gone away.
                self.dispatched -= 1;
                self.executing -= 1;
                let seats = u64::from(slot.work.seats());
                self.seats -= seats;
                let queue = &mut self.queues[queue];
                queue.executing -= 1;
                queue.seats -= seats;
                queue.next -= slot.work.total();
                self.active -= usize::from(!queue.busy());
                self.note_demand(now);
            }
        }
    }

    /// The queue whose oldest request would be done first, in virtual time.
    fn fairest(&self) -> Option<usize> {
        let count = self.queues.len();
        let rounds = (1..=count).map(|i| (self.robin + i) % count);
        let finish = |i: usize| Some((i, self.queues[i].next + self.queues[i].waiting.front()?.work.total()));
        rounds.filter_map(finish).min_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i)
    }

    /// Lets go of queues beyond those configured that are empty. Only from the end, since requests know their queues.
    fn shrink(&mut self) {
        let wanted = self.queuing.map_or(0, |queuing| queuing.queues);
        while self.queues.len() > wanted && self.queues.last().is_some_and(|queue| !queue.busy() && queue.seats == 0) {
            self.queues.pop();
        }
    }
}

/// Deals a hand of different cards out of a deck; `hash` is the shuffle. Returns how many.
fn deal(mut hash: u64, deck: usize, size: usize, hand: &mut [usize; 15]) -> usize {
    for (i, card) in hand.iter_mut().enumerate().take(size) {
        let left = (deck - i) as u64;
        *card = (hash % left) as usize;
        hash /= left;
    }
    for i in (1..size).rev() {
        // Its number among the cards that were left, made a number among all.
        for j in (0..i).rev() {
            hand[i] += usize::from(hand[i] >= hand[j]);
        }
    }
    size
}

#[cfg(test)]
#[path = "queues_tests.rs"]
mod tests;
