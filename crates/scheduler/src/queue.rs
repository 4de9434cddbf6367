//! Which pod is next (upstream `pkg/scheduler/backend/queue`). A pod waits to be tried (active), for a pause to end
//! after an attempt (backoff), or for something to happen that may let it fit (unschedulable). Takes the time as an
//! argument.

use crate::framework::ClusterEvent;
use crate::plugins::{self, PLUGINS};
use crate::pod::Pod;
use compact_str::CompactString;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A pod is tried again after this long even if nothing is known to have happened.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

/// A pod that waits, or is being tried.
#[derive(Clone, Debug)]
pub struct Queued {
    pub pod: Arc<Pod>,
    /// How often it was tried.
    pub attempts: u32,
    /// How often it was rejected; how often in a row something failed.
    rejections: u32,
    errors: u32,
    /// Since when it waits.
    since: Instant,
    /// The plugins that rejected it the last time.
    rejected_by: BTreeSet<&'static str>,
    place: Place,
}

/// Among active pods: by priority, then by time, then as they came.
type Order = (Reverse<i64>, Instant, u64);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// Being tried.
    Taken,
    Active(Order),
    Backoff(Instant, u64),
    /// Pausing after an error: not tried early when there is nothing else to do.
    ErrorBackoff(Instant, u64),
    Unschedulable,
    /// Held back by a plugin before its first try.
    Gated,
}

/// How an attempt ended that did not place the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It fits nowhere, say these plugins; none, when there are no nodes.
    Rejected(BTreeSet<&'static str>),
    Error,
}

#[derive(Default)]
pub struct Queue {
    pods: HashMap<CompactString, Queued>,
    active: BTreeMap<Order, CompactString>,
    backoff: BTreeMap<(Instant, u64), CompactString>,
    error_backoff: BTreeMap<(Instant, u64), CompactString>,
    unschedulable: BTreeSet<CompactString>,
    /// What happened while a pod is being tried.
    in_flight: HashMap<CompactString, Vec<ClusterEvent>>,
    sequence: u64,
}

impl Queue {
    /// A pod without a node: new, or changed.
    pub fn put(&mut self, pod: Arc<Pod>, now: Instant) {
        let uid = pod.uid.clone();
        let Some(known) = self.pods.get_mut(&uid) else {
            if let Some(events) = self.in_flight.get_mut(&uid) {
                events.push(ClusterEvent::PodChanged(pod));
                return;
            }
            let fresh = Queued {
                pod,
                attempts: 0,
                rejections: 0,
                errors: 0,
                since: now,
                rejected_by: BTreeSet::new(),
                place: Place::Taken,
            };
            return self.enqueue(fresh, now);
        };
        let event = ClusterEvent::PodChanged(pod.clone());
        known.pod = pod;
        match known.place {
            Place::Gated => {
                let waiting = self.take(&uid);
                waiting.into_iter().for_each(|w| self.enqueue(w, now));
            }
            Place::Active(_) => {
                let waiting = self.take(&uid);
                waiting.into_iter().for_each(|w| self.activate(w));
            }
            Place::Unschedulable if worth_trying(known, &event) => self.requeue(&uid, now),
            _ => {}
        }
    }

    /// The pod is gone, or has a node.
    pub fn remove(&mut self, uid: &str) {
        self.take(uid);
    }

    /// The next pod to try. It counts as being tried until [`Queue::failed`] or [`Queue::done`].
    pub fn pop(&mut self, now: Instant) -> Option<Queued> {
        self.flush(now);
        let uid = match self.active.first_key_value() {
            Some((_, uid)) => uid.clone(),
            // Nothing better to do: the pause is there to let others through.
            None => self.backoff.first_key_value()?.1.clone(),
        };
        let mut next = self.take(&uid)?;
        next.attempts += 1;
        self.in_flight.insert(uid, Vec::new());
        Some(next)
    }

    /// The attempt has found a node, or the pod needs none any more.
    pub fn done(&mut self, uid: &str) {
        self.in_flight.remove(uid);
    }

    /// The attempt failed: the pod waits for its next one. `pod` is its newest state.
    pub fn failed(&mut self, mut tried: Queued, pod: Arc<Pod>, failure: Failure, now: Instant) {
        let events = self.in_flight.remove(&pod.uid).unwrap_or_default();
        let uid = pod.uid.clone();
        if self.pods.contains_key(&uid) {
            return;
        }
        tried.pod = pod;
        tried.since = now;
        match failure {
            Failure::Rejected(by) => {
                (tried.rejected_by, tried.errors) = (by, 0);
                tried.rejections += 1;
                let again = events.iter().any(|event| worth_trying(&tried, event));
                tried.place = Place::Unschedulable;
                self.unschedulable.insert(uid.clone());
                self.pods.insert(uid.clone(), tried);
                if again {
                    self.requeue(&uid, now);
                }
            }
            Failure::Error => {
                tried.rejected_by.clear();
                tried.errors += 1;
                let at = (now + pause(tried.errors), self.number());
                tried.place = Place::ErrorBackoff(at.0, at.1);
                self.error_backoff.insert(at, uid.clone());
                self.pods.insert(uid, tried);
            }
        }
    }

    /// Something happened: pods that it may help are tried again.
    pub fn event(&mut self, event: &ClusterEvent, now: Instant) {
        for events in self.in_flight.values_mut() {
            events.push(event.clone());
        }
        let helped = |uid: &&CompactString| self.pods.get(*uid).is_some_and(|q| worth_trying(q, event));
        let again: Vec<_> = self.unschedulable.iter().filter(helped).cloned().collect();
        for uid in again {
            self.requeue(&uid, now);
        }
    }

    /// When there will be something to do though nothing happens. None: never.
    pub fn wake_at(&self) -> Option<Instant> {
        let pauses = self.error_backoff.keys().next().map(|(at, _)| *at);
        let waiting = self.unschedulable.iter().filter_map(|uid| self.pods.get(uid)).map(|q| q.since).min();
        [pauses, waiting.map(|since| since + LONGEST_WAIT)].into_iter().flatten().min()
    }

    /// How many pods are (active, in backoff, unschedulable, gated).
    pub fn lengths(&self) -> (usize, usize, usize, usize) {
        let backoff = self.backoff.len() + self.error_backoff.len();
        let (active, unschedulable) = (self.active.len(), self.unschedulable.len());
        (active, backoff, unschedulable, self.pods.len() - active - backoff - unschedulable)
    }

    /// Ends pauses and waits that are over.
    fn flush(&mut self, now: Instant) {
        let over = |map: &BTreeMap<(Instant, u64), CompactString>| -> Vec<_> {
            map.iter().take_while(|((at, _), _)| *at <= now).map(|(_, uid)| uid.clone()).collect()
        };
        let mut over: Vec<_> = [over(&self.backoff), over(&self.error_backoff)].concat();
        let tired = |uid: &&CompactString| self.pods.get(*uid).is_some_and(|q| q.since + LONGEST_WAIT <= now);
        over.extend(self.unschedulable.iter().filter(tired).cloned());
        for uid in over {
            let waiting = self.take(&uid);
            waiting.into_iter().for_each(|w| self.activate(w));
        }
    }

    /// From unschedulable to active, or to backoff while its pause lasts.
    fn requeue(&mut self, uid: &str, now: Instant) {
        let Some(mut waiting) = self.take(uid) else { return };
        let until = waiting.since + pause(waiting.rejections);
        if until <= now {
            return self.activate(waiting);
        }
        let at = (until, self.number());
        waiting.place = Place::Backoff(at.0, at.1);
        self.backoff.insert(at, waiting.pod.uid.clone());
        self.pods.insert(waiting.pod.uid.clone(), waiting);
    }

    /// To active, unless a plugin holds it back.
    fn enqueue(&mut self, mut waiting: Queued, now: Instant) {
        if PLUGINS.iter().any(|p| p.pre_enqueue(&waiting.pod).is_some()) {
            waiting.place = Place::Gated;
            self.pods.insert(waiting.pod.uid.clone(), waiting);
            return;
        }
        waiting.since = now;
        self.activate(waiting);
    }

    fn activate(&mut self, mut waiting: Queued) {
        let order = (Reverse(waiting.pod.priority), waiting.since, self.number());
        waiting.place = Place::Active(order);
        self.active.insert(order, waiting.pod.uid.clone());
        self.pods.insert(waiting.pod.uid.clone(), waiting);
    }

    /// Out of wherever it is.
    fn take(&mut self, uid: &str) -> Option<Queued> {
        let mut taken = self.pods.remove(uid)?;
        match std::mem::replace(&mut taken.place, Place::Taken) {
            Place::Active(order) => drop(self.active.remove(&order)),
            Place::Backoff(at, n) => drop(self.backoff.remove(&(at, n))),
            Place::ErrorBackoff(at, n) => drop(self.error_backoff.remove(&(at, n))),
            Place::Unschedulable => drop(self.unschedulable.remove(uid)),
            Place::Gated | Place::Taken => {}
        }
        Some(taken)
    }

    fn number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

/// Whether one of the plugins that rejected the pod says that `event` may help.
fn worth_trying(queued: &Queued, event: &ClusterEvent) -> bool {
    if queued.rejected_by.is_empty() {
        // There were no nodes.
        return matches!(event, ClusterEvent::NodeAdded(_));
    }
    queued.rejected_by.iter().filter_map(|name| plugins::by_name(name)).any(|p| p.hint(&queued.pod, event))
}

/// How long a pod pauses after so many attempts.
fn pause(attempts: u32) -> Duration {
    let doubled = FIRST_BACKOFF.saturating_mul(1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(LONGEST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    const SECOND: Duration = Duration::from_secs(1);

    fn names(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.pop(now)).map(|q| q.pod.name.to_string()).collect()
    }

    fn shared(name: &str, spec: &str) -> Arc<Pod> {
        Arc::new(pod(name, spec))
    }

    fn rejected() -> Failure {
        Failure::Rejected(["NodeResourcesFit"].into())
    }

    #[test]
    fn priority_then_time() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(shared("first", "{}"), now);
        queue.put(shared("second", "{}"), now + SECOND);
        queue.put(shared("important", "{priority: 10}"), now + SECOND * 2);
        assert_eq!(names(&mut queue, now + SECOND * 2), ["important", "first", "second"]);
    }

    #[test]
    fn a_rejected_pod_waits_for_something_that_helps() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let big = shared("big", "{containers: [{resources: {requests: {cpu: 4}}}]}");
        queue.put(big.clone(), now);
        let tried = queue.pop(now).unwrap();
        queue.failed(tried, big.clone(), rejected(), now);
        assert_eq!(queue.lengths(), (0, 0, 1, 0));
        assert_eq!(queue.wake_at(), Some(now + LONGEST_WAIT));
        queue.event(&ClusterEvent::NodeAdded(node("small", "{cpu: 1, pods: 10}")), now + SECOND * 2);
        assert!(queue.pop(now + SECOND * 2).is_none());
        queue.event(&ClusterEvent::NodeAdded(node("large", "{cpu: 8, pods: 10}")), now + SECOND * 2);
        assert_eq!(queue.lengths(), (1, 0, 0, 0));
        let tried = queue.pop(now + SECOND * 2).unwrap();
        assert_eq!(tried.attempts, 2);
        // Its second pause lasts two seconds, but there is nobody to let through.
        queue.failed(tried, big, rejected(), now + SECOND * 2);
        queue.event(&ClusterEvent::PodRemoved(shared("other", "{}")), now + SECOND * 3);
        assert_eq!(queue.lengths(), (0, 1, 0, 0));
        queue.put(shared("new", "{}"), now + SECOND * 3);
        assert_eq!(names(&mut queue, now + SECOND * 3), ["new", "big"]);
    }

    #[test]
    fn nothing_that_happens_during_an_attempt_is_missed() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let big = shared("big", "{containers: [{resources: {requests: {cpu: 4}}}]}");
        queue.put(big.clone(), now);
        let tried = queue.pop(now).unwrap();
        queue.event(&ClusterEvent::NodeAdded(node("large", "{cpu: 8, pods: 10}")), now);
        queue.failed(tried, big, rejected(), now);
        assert_eq!(queue.lengths(), (0, 1, 0, 0));
    }

    #[test]
    fn after_an_error_the_pause_is_kept() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let p = shared("p", "{}");
        queue.put(p.clone(), now);
        let tried = queue.pop(now).unwrap();
        queue.failed(tried, p, Failure::Error, now);
        assert_eq!(queue.wake_at(), Some(now + SECOND));
        assert!(queue.pop(now).is_none());
        assert!(queue.pop(now + SECOND).is_some());
        assert_eq!([1, 2, 4, 5, 90].map(pause).map(|d| d.as_secs()), [1, 2, 8, 10, 10]);
    }

    #[test]
    fn gates_hold_a_pod_back() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(shared("p", "{schedulingGates: [{name: example.com/wait}]}"), now);
        assert!(queue.pop(now).is_none());
        assert_eq!(queue.lengths(), (0, 0, 0, 1));
        queue.put(shared("p", "{}"), now + SECOND);
        assert!(queue.pop(now + SECOND).is_some());
    }

    #[test]
    fn without_nodes_only_a_node_helps() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let p = shared("p", "{}");
        queue.put(p.clone(), now);
        let tried = queue.pop(now).unwrap();
        queue.failed(tried, p.clone(), Failure::Rejected(BTreeSet::new()), now);
        queue.event(&ClusterEvent::PodRemoved(p), now);
        assert!(queue.pop(now).is_none());
        queue.event(&ClusterEvent::NodeAdded(node("n", "{pods: 1}")), now);
        assert!(queue.pop(now).is_some());
    }
}
