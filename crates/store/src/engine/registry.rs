//! Who watches what. A commit wakes the watchers whose prefix it touched and nobody else.

use super::watcher::Slot;
use crate::Event;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

#[derive(Default)]
pub(crate) struct Registry {
    prefixes: BTreeMap<Arc<str>, Watchers>,
    /// Counts the calls of `matching`, so that a prefix is found once a call.
    pass: u64,
}

#[derive(Default)]
struct Watchers {
    slots: Vec<Arc<Slot>>,
    pass: u64,
}

impl Registry {
    pub(crate) fn insert(&mut self, slot: &Arc<Slot>) {
        self.prefixes.entry(slot.prefix.clone()).or_default().slots.push(slot.clone());
    }

    pub(crate) fn remove(&mut self, slot: &Arc<Slot>) {
        if let Some(watchers) = self.prefixes.get_mut(&slot.prefix) {
            watchers.slots.retain(|other| !Arc::ptr_eq(other, slot));
            if watchers.slots.is_empty() {
                self.prefixes.remove(&slot.prefix);
            }
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.prefixes.values().flat_map(|watchers| &watchers.slots)
    }

    /// The watchers that one of `events` concerns.
    pub(crate) fn matching(&mut self, events: &[Event]) -> Vec<Arc<Slot>> {
        self.pass += 1;
        let mut found = Vec::new();
        for event in events {
            self.visit(&event.key, &mut found);
        }
        found
    }

    /// Walks down from `key` through the watched strings that are prefixes of it, longest first. If the greatest string
    /// not above the bound isn't a prefix, then any that is lies within what the two have in common.
    fn visit(&mut self, key: &str, found: &mut Vec<Arc<Slot>>) {
        let mut bound = key;
        loop {
            let below = (Bound::Unbounded, Bound::Included(bound));
            let Some((prefix, watchers)) = self.prefixes.range_mut::<str, _>(below).next_back() else { return };
            if !bound.starts_with(&**prefix) {
                bound = common(bound, prefix);
                continue;
            }
            if watchers.pass != self.pass {
                watchers.pass = self.pass;
                found.extend(watchers.slots.iter().cloned());
            }
            match prefix.char_indices().next_back() {
                Some((last, _)) => bound = &bound[..last],
                None => return,
            }
        }
    }
}

fn common<'a>(a: &'a str, b: &str) -> &'a str {
    let mut length = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    while !a.is_char_boundary(length) {
        length -= 1;
    }
    &a[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_exactly_the_prefixes_of_a_key() {
        let prefixes = ["", "/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/a/é", "/a/ê", "/b", "é", "/a/b/"];
        let mut registry = Registry::default();
        for prefix in prefixes {
            registry.insert(&Arc::new(Slot::new(prefix, 1)));
        }
        for key in ["/a/b/c/d", "/a/b", "/", "/a/éx", "/a/èx", "/a/z", "/abc", "x", "é", "0"] {
            let event = Event { revision: 1, key: key.into(), version: None, previous: None };
            let found = registry.matching(&[event.clone(), event]);
            let mut found: Vec<&str> = found.iter().map(|slot| &*slot.prefix).collect();
            found.sort();
            let mut expected: Vec<&str> = prefixes.into_iter().filter(|prefix| key.starts_with(prefix)).collect();
            expected.sort();
            assert_eq!(found, expected, "{key}");
        }
    }
}
