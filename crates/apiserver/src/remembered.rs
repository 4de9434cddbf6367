//! Answers of others, kept for a while.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Bounded: when it is full, what has run out goes, then all.
pub struct Remembered<K, V> {
    most: usize,
    known: Mutex<HashMap<K, (V, Instant)>>,
}

impl<K: Eq + Hash, V: Clone> Remembered<K, V> {
    pub fn new(most: usize) -> Remembered<K, V> {
        Remembered { most, known: Mutex::default() }
    }

    pub fn get(&self, key: &K) -> Option<V> {
        let known = self.known.lock();
        known.get(key).filter(|(_, until)| *until > Instant::now()).map(|(value, _)| value.clone())
    }

    pub fn put(&self, key: K, value: V, lifetime: Duration) {
        if lifetime.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut known = self.known.lock();
        if known.len() >= self.most {
            known.retain(|_, (_, until)| *until > now);
            if known.len() >= self.most {
                known.clear();
            }
        }
        known.insert(key, (value, now + lifetime));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded() {
        let known = Remembered::new(2);
        let hour = Duration::from_secs(3600);
        known.put("never", 0, Duration::ZERO);
        known.put("a", 1, hour);
        known.put("gone", 2, Duration::from_nanos(1));
        std::thread::yield_now();
        assert_eq!((known.get(&"never"), known.get(&"gone"), known.get(&"a")), (None, None, Some(1)));
        known.put("b", 3, hour);
        assert_eq!((known.get(&"a"), known.get(&"b")), (Some(1), Some(3)));
        known.put("c", 4, hour);
        assert_eq!((known.get(&"a"), known.get(&"c"), known.known.lock().len()), (None, Some(4), 1));
    }
}
