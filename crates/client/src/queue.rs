//! The work queue of a controller: a key waits once however often it is added, and is never worked on twice at once
//! (upstream `client-go/util/workqueue`).

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The first pause after a failure, doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1000);

pub struct Queue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// In `ready`, or to be put there when its work is done.
    dirty: HashSet<K>,
    working: HashSet<K>,
    delayed: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    sequence: u64,
}

impl<K: Clone + Eq + Hash> Default for Queue<K> {
    fn default() -> Queue<K> {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
        };
        Queue { state: Mutex::new(state), wake: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    pub fn add(&self, key: K) {
        self.state.lock().add(key);
        self.wake.notify_one();
    }

    /// Adds `key` after a while; an earlier due time stands.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        let mut state = self.state.lock();
        if let Some(due) = state.due.get(&key).copied() {
            if due.0 <= at {
                return;
            }
            state.delayed.remove(&due);
        }
        state.sequence += 1;
        let slot = (at, state.sequence);
        state.due.insert(key.clone(), slot);
        state.delayed.insert(slot, key);
        drop(state);
        self.wake.notify_one();
    }

    /// Adds `key` after a pause that doubles with each failure in a row.
    pub fn add_failed(&self, key: K) {
        let pause = {
            let mut state = self.state.lock();
            let failures = state.failures.entry(key.clone()).or_default();
            *failures = failures.saturating_add(1);
            let doubled = FIRST_PAUSE.saturating_mul(1u32.checked_shl(*failures - 1).unwrap_or(u32::MAX));
            doubled.min(LONGEST_PAUSE)
        };
        self.add_after(key, pause);
    }

    /// How often `key` has failed in a row.
    pub fn failures(&self, key: &K) -> u32 {
        self.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    pub fn forget_failures(&self, key: &K) {
        self.state.lock().failures.remove(key);
    }

    /// The next key; it counts as being worked on until [`Queue::done`]. Cancel-safe.
    pub async fn next(&self) -> K {
        loop {
            let due = {
                let mut state = self.state.lock();
                state.promote(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.working.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                state.delayed.keys().next().map(|(at, _)| *at)
            };
            match due {
                Some(at) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.wake.notified().await,
            }
        }
    }

    pub fn done(&self, key: &K) {
        let mut state = self.state.lock();
        state.working.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.wake.notify_one();
        }
    }

    pub fn len(&self) -> usize {
        self.state.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K) {
        if self.dirty.insert(key.clone()) && !self.working.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry().filter(|e| e.key().0 <= now) {
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_is_worked_on_once() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        assert!(queue.is_empty());
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn delays_and_failures() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_after("late", Duration::from_secs(5));
        queue.add_after("late", Duration::from_secs(9));
        queue.add_failed("early");
        assert_eq!(queue.next().await, "early");
        assert_eq!(queue.next().await, "late");
        assert_eq!(start.elapsed().as_secs(), 5);
        queue.add_failed("early");
        assert_eq!(queue.failures(&"early"), 2);
        queue.forget_failures(&"early");
        assert_eq!(queue.failures(&"early"), 0);
    }
}
