use super::*;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Writes down who was called.
#[derive(Clone)]
struct Caller(&'static str, Rc<RefCell<Vec<(&'static str, Slot)>>>);

impl Call for Caller {
    fn call(self, slot: Slot) -> bool {
        self.1.borrow_mut().push((self.0, slot));
        self.0 != "gone"
    }
}

struct Level {
    set: QueueSet<Caller>,
    called: Rc<RefCell<Vec<(&'static str, Slot)>>>,
}

impl Level {
    fn new(limit: u32, queuing: Option<Queuing>) -> Level {
        let mut set = QueueSet::new(0.0);
        set.configure(0.0, false, queuing);
        set.set_limit(0.0, limit);
        Level { set, called: Rc::default() }
    }

    fn ask(&mut self, now: f64, work: Work, flow: u64, name: &'static str) -> Start<Caller> {
        self.set.start(now, work, flow, Caller(name, self.called.clone()))
    }

    fn go(&mut self, now: f64, work: Work, flow: u64) -> Slot {
        match self.ask(now, work, flow, "") {
            Start::Go(slot, _) => slot,
            _ => panic!("it has to wait"),
        }
    }

    fn names(&self) -> Vec<&'static str> {
        self.called.borrow().iter().map(|(name, _)| *name).collect()
    }

    fn last(&self) -> Slot {
        self.called.borrow().last().unwrap().1
    }
}

const TWO: Option<Queuing> = Some(Queuing { queues: 2, hand: 1, length: 3 });

#[test]
fn hands_are_of_different_cards() {
    let mut hands = BTreeSet::new();
    for hash in 0..5000_u64 {
        let mut hand = [0; 15];
        let size = deal(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15), 8, 3, &mut hand);
        let cards: BTreeSet<usize> = hand[..size].iter().copied().collect();
        assert!(cards.len() == 3 && cards.iter().all(|card| *card < 8), "{hand:?}");
        hands.insert(cards);
    }
    assert_eq!(hands.len(), 56, "every hand is dealt");
}

#[test]
fn without_queues_what_is_too_much_is_refused() {
    let mut level = Level::new(2, None);
    let first = level.go(0.0, Work::ONE, 0);
    level.go(0.0, Work::ONE, 0);
    assert!(matches!(level.ask(0.0, Work::ONE, 0, ""), Start::Refused("concurrency-limit")));
    level.set.finish(1.0, &first);
    level.go(1.0, Work::ONE, 0);
    assert_eq!((level.set.executing, level.set.refused, level.set.dispatched), (2, 1, 3));
}

#[test]
fn exempt_means_no_limit() {
    let mut level = Level::new(0, None);
    level.set.configure(0.0, true, None);
    let slots: Vec<Slot> = (0..1000).map(|_| level.go(0.0, Work::ONE, 0)).collect();
    slots.iter().for_each(|slot| level.set.finish(1.0, slot));
    assert!(level.set.is_idle());
}

#[test]
fn queues_take_turns() {
    let mut level = Level::new(1, TWO);
    let first = level.go(0.0, Work::ONE, 0);
    // A crowd in one queue, and one who comes last in the other.
    for name in ["a1", "a2", "a3"] {
        assert!(matches!(level.ask(0.1, Work::ONE, 0, name), Start::Wait(0, _)));
    }
    assert!(matches!(level.ask(0.2, Work::ONE, 1, "b1"), Start::Wait(1, _)));
    assert!(matches!(level.ask(0.2, Work::ONE, 0, "a4"), Start::Refused("queue-full")));
    level.set.finish(1.0, &first);
    for now in 2..5 {
        level.set.finish(f64::from(now), &level.last());
    }
    assert_eq!(level.names(), ["b1", "a1", "a2", "a3"]);
    level.set.finish(6.0, &level.last());
    assert!(level.set.is_idle() && level.set.seats == 0 && level.set.seats_waiting == 0 && level.set.active == 0);
}

#[test]
fn a_flow_that_asks_for_more_gets_no_more() {
    let mut level = Level::new(4, Some(Queuing { queues: 2, hand: 1, length: 100 }));
    let mut running: Vec<(u64, Slot)> = Vec::new();
    let mut served = [0_u32; 2];
    let mut wake = 0;
    for step in 0..400 {
        let now = f64::from(step) * 0.01;
        // The first flow always has plenty waiting, the second as much as it is given.
        for (flow, name) in [(0, "greedy"), (0, "greedy"), (0, "greedy"), (1, "modest")] {
            if let Start::Go(slot, _) = level.ask(now, Work::ONE, flow, name) {
                running.push((flow, slot));
            }
        }
        // One request is done at each step.
        if !running.is_empty() {
            let (flow, slot) = running.remove(0);
            served[flow as usize] += 1;
            level.set.finish(now, &slot);
        }
        let called = level.called.borrow();
        for (name, slot) in &called[wake..] {
            running.push((u64::from(*name == "modest"), *slot));
        }
        wake = called.len();
    }
    let share = f64::from(served[1]) / f64::from(served[0] + served[1]);
    assert!((0.45..0.55).contains(&share), "{served:?}");
}

#[test]
fn wide_requests_wait_for_room_and_hold_up_others() {
    let mut level = Level::new(4, TWO);
    let wide = Work { first: 3, ..Work::ONE };
    let running = [level.go(0.0, Work::ONE, 0), level.go(0.0, Work::ONE, 1)];
    assert!(matches!(level.ask(0.0, wide, 0, "wide"), Start::Wait(..)));
    assert!(matches!(level.ask(0.0, Work { first: 9, ..Work::ONE }, 1, "widest"), Start::Wait(..)));
    level.set.finish(0.1, &running[0]);
    // It would fit, but it is the other queue's turn.
    assert!(level.names().is_empty());
    level.set.finish(0.2, &running[1]);
    assert_eq!(level.names(), ["wide"], "who wants more than there is goes alone");
    level.set.finish(0.3, &level.last());
    assert_eq!(level.names(), ["wide", "widest"]);
}

#[test]
fn seats_linger() {
    let mut level = Level::new(2, TWO);
    let slot = level.go(0.0, Work { first: 1, after: 2, linger: 0.5 }, 0);
    assert!(matches!(level.ask(0.0, Work::ONE, 1, "next"), Start::Wait(..)));
    level.set.finish(0.1, &slot);
    assert!(level.names().is_empty());
    level.set.release(0.6, &slot);
    assert_eq!(level.names(), ["next"]);
}

#[test]
fn who_leaves_frees_the_place() {
    let mut level = Level::new(1, TWO);
    let slot = level.go(0.0, Work::ONE, 0);
    let Start::Wait(queue, id) = level.ask(0.0, Work::ONE, 0, "impatient") else { panic!("there is no room") };
    assert!(matches!(level.ask(0.0, Work::ONE, 0, "gone"), Start::Wait(..)));
    assert!(matches!(level.ask(0.0, Work::ONE, 0, "patient"), Start::Wait(..)));
    assert!(level.set.leave(0.5, queue, id));
    assert!(!level.set.leave(0.5, queue, id));
    level.set.finish(1.0, &slot);
    // One was called in vain; the next gets the seat.
    assert_eq!(level.names(), ["gone", "patient"]);
    level.set.finish(2.0, &level.last());
    assert!(level.set.is_idle() && level.set.seats == 0 && level.set.active == 0);
    assert_eq!((level.set.timed_out, level.set.dispatched), (1, 2));
}

#[test]
fn fewer_queues_drain() {
    let mut level = Level::new(1, Some(Queuing { queues: 4, hand: 1, length: 3 }));
    let slot = level.go(0.0, Work::ONE, 0);
    assert!(matches!(level.ask(0.0, Work::ONE, 3, "in the last"), Start::Wait(3, _)));
    level.set.configure(0.1, false, TWO);
    assert_eq!(level.set.queues.len(), 4);
    level.set.finish(0.2, &slot);
    level.set.finish(0.3, &level.last());
    assert_eq!(level.set.queues.len(), 2);
    // A raised limit lets in who waits.
    let slot = level.go(1.0, Work::ONE, 0);
    assert!(matches!(level.ask(1.0, Work::ONE, 0, "later"), Start::Wait(..)));
    level.set.set_limit(1.1, 2);
    assert_eq!(level.names(), ["in the last", "later"]);
    level.set.finish(1.2, &slot);
}
