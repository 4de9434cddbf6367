//! What changed between two versions of an object, as sets of fields (structured-merge-diff's `Compare`).

use super::list::item_keys;
use super::reset::Reset;
use super::set::{Set, field};
use crate::schema::{Atom, ItemKind, Schema};
use crate::value::{Map, Value};
use compact_str::CompactString;
use std::cmp::Ordering;
use std::collections::HashMap;

/// The fields that differ. No field is in more than one of the sets.
#[derive(Debug, Default)]
pub struct Delta {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

impl Delta {
    /// Compares two objects of type `ty`; each must conform to it.
    pub fn between(ty: Schema<'_>, old: &Value, new: &Value) -> Delta {
        if old == new {
            return Delta::default();
        }
        let mut out = Nodes::default();
        compare(Atom::root(ty), Some(old), Some(new), &mut out);
        Delta { added: set_of(out.added), modified: set_of(out.modified), removed: set_of(out.removed) }
    }

    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// What was set: added and modified together.
    pub fn written(&self) -> Set {
        let mut out = self.added.clone();
        out.add(&self.modified);
        out
    }

    /// Forgets what nobody may own.
    pub fn without(mut self, reset: Reset) -> Delta {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            reset.filter(set);
        }
        self
    }
}

type Entries = Vec<(CompactString, Value)>;

fn set_of(entries: Entries) -> Set {
    Set::trusted(entries.into_iter().collect())
}

/// The three sets below one place, while they are made.
#[derive(Default)]
struct Nodes {
    added: Entries,
    modified: Entries,
    removed: Entries,
}

/// In which of the sets a place itself is.
#[derive(Clone, Copy, PartialEq)]
enum Mark {
    None,
    Added,
    Modified,
    Removed,
}

impl Nodes {
    /// Hangs what was found at and below `step` under this place.
    fn attach(&mut self, step: impl Fn() -> CompactString, below: Nodes, mark: Mark) {
        let put = |into: &mut Entries, children: Entries, member: bool| {
            if children.is_empty() && !member {
                return;
            }
            let mut node: Map = children.into_iter().collect();
            if member && !node.is_empty() {
                node.insert(".", Value::object());
            }
            into.push((step(), Value::Object(node)));
        };
        put(&mut self.added, below.added, mark == Mark::Added);
        put(&mut self.modified, below.modified, mark == Mark::Modified);
        put(&mut self.removed, below.removed, mark == Mark::Removed);
    }
}

/// Equality as structured-merge-diff has it: integers and floats compare by number.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Int(i), Value::Float(f)) | (Value::Float(f), Value::Int(i)) => *i as f64 == *f,
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) if a.is_shared_with(b) => true,
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|((j, a), (k, b))| j == k && same(a, b))
        }
        _ => a == b,
    }
}

/// One side is always there. Says in which set the place itself belongs.
fn compare(atom: Atom, old: Option<&Value>, new: Option<&Value>, out: &mut Nodes) -> Mark {
    let (left, right) = (deduce(atom, old), deduce(atom, new));
    match (old, new) {
        (_, None) => handle(left, old, new, out),
        (None, Some(_)) => handle(right, old, new, out),
        (Some(_), Some(_)) if left.kind() == right.kind() => handle(right, old, new, out),
        (Some(_), Some(_)) => {
            let first = handle(left, old, new, out);
            let second = handle(right, old, new, out);
            if first == Mark::None { second } else { first }
        }
    }
}

/// What an untyped place is, going by its value.
enum Deduced<'a> {
    Known(Atom<'a>),
    Scalar,
    List,
    Map,
}

impl Deduced<'_> {
    fn kind(&self) -> u8 {
        match self {
            Deduced::Known(_) => 0,
            Deduced::Scalar => 1,
            Deduced::List => 2,
            Deduced::Map => 3,
        }
    }
}

fn deduce<'a>(atom: Atom<'a>, value: Option<&Value>) -> Deduced<'a> {
    match (atom, value) {
        (Atom::Deduced, Some(Value::Array(_))) => Deduced::List,
        (Atom::Deduced, Some(Value::Object(_) | Value::Null) | None) => Deduced::Map,
        (Atom::Deduced, Some(_)) => Deduced::Scalar,
        (known, _) => Deduced::Known(known),
    }
}

fn handle(what: Deduced, old: Option<&Value>, new: Option<&Value>, out: &mut Nodes) -> Mark {
    match what {
        Deduced::Scalar | Deduced::List => leaf(old, new),
        Deduced::Map => entries(Atom::Deduced, false, old, new, out),
        Deduced::Known(Atom::Scalar(_)) => leaf(old, new),
        Deduced::Known(Atom::List { item, kind }) => items(item.atom(), kind, old, new, out),
        Deduced::Known(atom @ (Atom::Map { atomic, .. } | Atom::Object { atomic, .. })) => {
            entries(atom, atomic, old, new, out)
        }
        Deduced::Known(Atom::Deduced) => Mark::None,
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Mark {
    match (old, new) {
        (None, _) => Mark::Added,
        (_, None) => Mark::Removed,
        (Some(old), Some(new)) if same(old, new) => Mark::None,
        _ => Mark::Modified,
    }
}

/// The mark of a place that is walked: it is added or removed as a whole, or not at all.
fn walked(old: Option<&Value>, new: Option<&Value>) -> Mark {
    match (old, new) {
        (None, _) => Mark::Added,
        (_, None) => Mark::Removed,
        _ => Mark::None,
    }
}

fn entries(atom: Atom, atomic: bool, old: Option<&Value>, new: Option<&Value>, out: &mut Nodes) -> Mark {
    static EMPTY: std::sync::LazyLock<Map> = std::sync::LazyLock::new(Map::new);
    let (left, right) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
    let (left, right) = (left.unwrap_or(&EMPTY), right.unwrap_or(&EMPTY));
    if atomic || (left.is_empty() && right.is_empty()) {
        return leaf(old, new);
    }
    let (mut l, mut r) = (left.iter().peekable(), right.iter().peekable());
    loop {
        let order = match (l.peek(), r.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let old = if order != Ordering::Greater { l.next() } else { None };
        let new = if order != Ordering::Less { r.next() } else { None };
        let Some((name, _)) = old.or(new) else { break };
        let (old, new) = (old.map(|(_, v)| v), new.map(|(_, v)| v));
        if matches!((old, new), (Some(old), Some(new)) if old == new) {
            continue;
        }
        let Some(place) = atom.entry(name) else { continue };
        let mut below = Nodes::default();
        let mark = compare(place.atom(), old, new, &mut below);
        out.attach(|| field(name), below, mark);
    }
    walked(old, new)
}

fn items(item: Atom, kind: ItemKind, old: Option<&Value>, new: Option<&Value>, out: &mut Nodes) -> Mark {
    let (left, right) = (old.map_or(&[][..], Value::items), new.map_or(&[][..], Value::items));
    if kind.is_atomic() || (left.is_empty() && right.is_empty()) {
        return leaf(old, new);
    }
    let (left_keys, right_keys) = (item_keys(item, kind, left), item_keys(item, kind, right));
    for pair in pairs(&left_keys, &right_keys) {
        let (olds, news) = (pick(left, &pair.left), pick(right, &pair.right));
        let (old, new) = (olds.first().copied(), news.first().copied());
        let mut below = Nodes::default();
        let mark = match (olds.len(), news.len()) {
            (0 | 1, 0 | 1) if old == new => continue,
            (0 | 1, 0 | 1) => compare(item, old, new, &mut below),
            // Duplicates are compared as if they were atomic.
            (2.., 2..) if olds.len() == news.len() && olds.iter().zip(&news).all(|(a, b)| same(a, b)) => continue,
            (2.., 2..) => Mark::Modified,
            (2.., _) => {
                new.inspect(|new| out.attach_item(item, pair.key, None, Some(new)));
                Mark::Removed
            }
            (_, _) => {
                old.inspect(|old| out.attach_item(item, pair.key, Some(old), None));
                Mark::Added
            }
        };
        out.attach(|| pair.key.clone(), below, mark);
    }
    walked(old, new)
}

impl Nodes {
    fn attach_item(&mut self, item: Atom, key: &CompactString, old: Option<&Value>, new: Option<&Value>) {
        let mut below = Nodes::default();
        let mark = compare(item, old, new, &mut below);
        self.attach(|| key.clone(), below, mark);
    }
}

fn pick<'a>(items: &'a [Value], at: &[usize]) -> Vec<&'a Value> {
    at.iter().filter_map(|i| items.get(*i)).collect()
}

struct Pair<'a> {
    key: &'a CompactString,
    left: Vec<usize>,
    right: Vec<usize>,
}

/// The items of both lists by key, in order of first appearance. Items without a key are left out.
fn pairs<'a>(left: &'a [Option<CompactString>], right: &'a [Option<CompactString>]) -> Vec<Pair<'a>> {
    let mut out: Vec<Pair<'a>> = Vec::with_capacity(left.len().max(right.len()));
    let mut index: HashMap<&CompactString, usize> = HashMap::new();
    let hashed = left.len() + right.len() > 32;
    let sides = left.iter().enumerate().map(|(i, k)| (false, i, k));
    for (is_right, i, key) in sides.chain(right.iter().enumerate().map(|(i, k)| (true, i, k))) {
        let Some(key) = key else { continue };
        let found = if hashed { index.get(key).copied() } else { out.iter().position(|p| p.key == key) };
        let at = found.unwrap_or_else(|| {
            out.push(Pair { key, left: Vec::new(), right: Vec::new() });
            if hashed {
                index.insert(key, out.len() - 1);
            }
            out.len() - 1
        });
        if is_right { out[at].right.push(i) } else { out[at].left.push(i) }
    }
    out
}
