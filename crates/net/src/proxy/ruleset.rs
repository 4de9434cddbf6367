//! The rules that a state asks for, and the difference that a new state makes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use super::base::{self, TABLE, words};
use super::elements::{Key, Value, cluster_pool, elements};
use super::marks::POOL_MASK;
use super::state::{Family, Protocol, ProxyConfig, ProxyState, ServicePort, ServicePortKey};

/// The model of what the kernel holds once everything rendered has been loaded. It numbers the Services; a number
/// stays with its Service and isn't used again soon, since remembered clients refer to it.
#[derive(Debug, Default)]
pub struct Ruleset {
    config: Arc<ProxyConfig>,
    services: BTreeMap<ServicePortKey, Numbered>,
    next_id: u32,
    ids: BTreeSet<u32>,
    /// Most endpoints that a pool may have; 0 before anything was rendered.
    capacity: u32,
    tables: BTreeMap<Family, Table>,
}

#[derive(Debug)]
struct Numbered {
    id: u32,
    port: Arc<ServicePort>,
}

/// One family's table.
#[derive(Debug, Default)]
struct Table {
    /// Who wants an element that others may want too, by number; the lowest has it.
    claims: BTreeMap<Key, BTreeMap<u32, Value>>,
    sticky: BTreeSet<u32>,
    remember: BTreeSet<u32>,
}

/// What has to be done to get to a new state.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Script for `nft -f`; empty when nothing changed. It replaces everything when `full`.
    pub script: String,
    pub full: bool,
    /// Pools from which clients remembered for an endpoint that is gone must be removed.
    pub forget: BTreeSet<(Family, u32)>,
    /// A UDP Service changed: flows to endpoints that are gone must be forgotten.
    pub udp: bool,
    /// Endpoints of the largest pool that changed.
    largest: u32,
}

/// Tables are made ready for pools of this many endpoints at least.
const LEAST_CAPACITY: u32 = 16;

/// Renders a state from nothing.
pub fn render_full(state: &ProxyState) -> String {
    Ruleset::default().replace(state).script
}

/// Renders the element changes that lead from one state, loaded from nothing, to another.
pub fn render_delta(old: &ProxyState, new: &ProxyState) -> String {
    let mut ruleset = Ruleset::default();
    ruleset.replace(old);
    ruleset.update(new).script
}

impl Ruleset {
    /// Starts over with this state.
    pub fn replace(&mut self, state: &ProxyState) -> Update {
        *self = Ruleset { config: state.config.clone(), ..Ruleset::default() };
        self.tables = state.config.families.iter().map(|family| (*family, Table::default())).collect();
        let changes = self.change(state, None);
        self.capacity = changes.largest.next_power_of_two().max(LEAST_CAPACITY);
        let tables: String =
            state.config.families.iter().map(|family| base::render(&state.config, *family, self.capacity)).collect();
        Update { script: tables + &changes.script, full: true, forget: BTreeSet::new(), ..changes }
    }

    /// Goes on to this state by the smallest change. A new configuration, or a pool larger than any that was expected,
    /// starts over.
    pub fn update(&mut self, state: &ProxyState) -> Update {
        self.go_on(state, None)
    }

    /// The same, when only these Service ports can have changed since the last time.
    pub fn update_some(&mut self, state: &ProxyState, changed: &BTreeSet<ServicePortKey>) -> Update {
        self.go_on(state, Some(changed))
    }

    fn go_on(&mut self, state: &ProxyState, changed: Option<&BTreeSet<ServicePortKey>>) -> Update {
        if self.config != state.config || self.capacity == 0 {
            return self.replace(state);
        }
        let update = self.change(state, changed);
        if update.largest > self.capacity { self.replace(state) } else { update }
    }

    fn change(&mut self, state: &ProxyState, changed: Option<&BTreeSet<ServicePortKey>>) -> Update {
        let mut touched: BTreeMap<Family, BTreeMap<Key, Change>> = BTreeMap::new();
        let mut update = Update::default();
        let is_gone = |key: &&ServicePortKey| !state.services.contains_key(*key);
        let (gone, present): (Vec<ServicePortKey>, Vec<_>) = match changed {
            Some(changed) => (
                changed.iter().filter(is_gone).cloned().collect(),
                changed.iter().filter_map(|key| state.services.get_key_value(key)).collect(),
            ),
            None => (self.services.keys().filter(is_gone).cloned().collect(), state.services.iter().collect()),
        };
        for key in gone {
            if let Some(old) = self.services.remove(&key) {
                self.ids.remove(&old.id);
                self.change_one(key.protocol, old.id, Some(&old.port), None, &mut touched, &mut update);
            }
        }
        for (key, port) in present {
            let (id, old) = match self.services.get(key) {
                Some(old) if Arc::ptr_eq(&old.port, port) || old.port == *port => continue,
                Some(old) => (old.id, Some(old.port.clone())),
                None => (self.take_id(), None),
            };
            self.change_one(key.protocol, id, old.as_deref(), Some(port), &mut touched, &mut update);
            self.services.insert(key.clone(), Numbered { id, port: port.clone() });
        }
        for (family, changes) in touched {
            let table = self.tables.entry(family).or_default();
            let sizes = changes.values().filter_map(|change| match change.after {
                Some(Value::Pick { endpoints, .. }) => Some(endpoints),
                _ => None,
            });
            update.largest = update.largest.max(sizes.max().unwrap_or_default());
            table.render(family, changes, &mut update.script);
        }
        update
    }

    fn take_id(&mut self) -> u32 {
        let last = POOL_MASK >> 1;
        // Two rounds at most: there are more numbers than a cluster can have Service ports.
        while {
            self.next_id = if self.next_id >= last { 1 } else { self.next_id + 1 };
            !self.ids.insert(self.next_id)
        } {}
        self.next_id
    }

    /// Notes every element in which the Service port changes.
    fn change_one(
        &mut self,
        protocol: Protocol,
        id: u32,
        old: Option<&ServicePort>,
        new: Option<&ServicePort>,
        touched: &mut BTreeMap<Family, BTreeMap<Key, Change>>,
        update: &mut Update,
    ) {
        update.udp |= protocol == Protocol::Udp;
        let remembers = old.is_some_and(|port| port.affinity_seconds.is_some()) && new.is_some();
        for (family, table) in &mut self.tables {
            let of = |port: Option<&ServicePort>| {
                port.map(|port| elements(id, protocol, port, &self.config, *family)).unwrap_or_default()
            };
            let (before, mut after) = (of(old), of(new));
            if remembers && base::remembers(*family) {
                update.forget.extend(shrunk(&before, &after).into_iter().map(|pool| (*family, pool)));
            }
            let touched = touched.entry(*family).or_default();
            for (key, value) in before {
                match after.remove(&key) {
                    Some(same) if same == value => {}
                    other => table.touch(id, key, Some(value), other, touched),
                }
            }
            for (key, value) in after {
                table.touch(id, key, None, Some(value), touched);
            }
        }
    }

    /// The families that have a table.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        self.tables.keys().copied()
    }

    /// The endpoints that a pool of a family has now.
    pub fn endpoints(&self, family: Family, pool: u32) -> BTreeSet<(IpAddr, u16)> {
        let Some((key, service)) = self.services.iter().find(|(_, s)| cluster_pool(s.id) == pool & !1) else {
            return BTreeSet::new();
        };
        elements(service.id, key.protocol, &service.port, &self.config, family)
            .into_iter()
            .filter_map(|(key, value)| match (key, value) {
                (Key::Endpoint(of, _), Value::Address(ip, port)) if of == pool => Some((ip, port)),
                _ => None,
            })
            .collect()
    }
}

/// Pools that lose an endpoint, in whatever slot it is.
fn shrunk(before: &BTreeMap<Key, Value>, after: &BTreeMap<Key, Value>) -> BTreeSet<u32> {
    let endpoints = |all: &BTreeMap<Key, Value>| -> BTreeSet<(u32, IpAddr, u16)> {
        let one = |(key, value): (&Key, &Value)| match (key, value) {
            (Key::Endpoint(pool, _), Value::Address(ip, port)) => Some((*pool, *ip, *port)),
            _ => None,
        };
        all.iter().filter_map(one).collect()
    };
    endpoints(before).difference(&endpoints(after)).map(|(pool, ..)| *pool).collect()
}

/// What an element held before, and what it holds after.
#[derive(Debug)]
struct Change {
    before: Option<Value>,
    after: Option<Value>,
}

impl Table {
    fn touch(
        &mut self,
        id: u32,
        key: Key,
        before: Option<Value>,
        after: Option<Value>,
        touched: &mut BTreeMap<Key, Change>,
    ) {
        let (before, after) = if key.is_shared() { self.claim(id, &key, after) } else { (before, after) };
        match touched.get_mut(&key) {
            Some(change) => change.after = after,
            None => {
                touched.insert(key, Change { before, after });
            }
        }
    }

    /// Sets or ends the claim of a Service on a shared element; returns what it held before and holds now.
    fn claim(&mut self, id: u32, key: &Key, value: Option<Value>) -> (Option<Value>, Option<Value>) {
        let claims = self.claims.entry(key.clone()).or_default();
        let before = claims.values().next().cloned();
        match value {
            Some(value) => claims.insert(id, value),
            None => claims.remove(&id),
        };
        let after = claims.values().next().cloned();
        if claims.is_empty() {
            self.claims.remove(key);
        }
        (before, after)
    }

    fn render(&mut self, family: Family, changes: BTreeMap<Key, Change>, out: &mut String) {
        for change in changes.values() {
            match change.after {
                Some(Value::Pick { endpoints, sticky: true })
                    if base::remembers(family) && self.sticky.insert(endpoints) =>
                {
                    out.push_str(&base::sticky_chain(family, endpoints));
                }
                Some(Value::Remember(seconds)) if self.remember.insert(seconds) => {
                    out.push_str(&base::remember_chain(family, seconds));
                }
                _ => {}
            }
        }
        let differing = || changes.iter().filter(|(_, change)| change.before != change.after);
        let ip = words(family).ip;
        batches(out, &format!("delete element {ip} {TABLE}"), differing().map(|(key, c)| (key, c.before.as_ref())));
        batches(out, &format!("add element {ip} {TABLE}"), differing().map(|(key, c)| (key, c.after.as_ref())));
    }
}

/// One command per container, its elements one a line.
fn batches<'a>(out: &mut String, command: &str, elements: impl Iterator<Item = (&'a Key, Option<&'a Value>)>) {
    let mut open = None;
    for (key, value) in elements {
        let Some(value) = value else { continue };
        let container = key.container();
        if open != Some(container) {
            if open.is_some() {
                out.push_str(" }\n");
            }
            let _ = write!(out, "{command} {container} {{");
            open = Some(container);
        } else {
            out.push(',');
        }
        let _ = write!(out, "\n\t{key}{value}");
    }
    if open.is_some() {
        out.push_str(" }\n");
    }
}
