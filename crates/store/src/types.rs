//! What goes into a store and comes out of it.

use bytes::Bytes;
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A point in the store's history. Every write gets its own.
pub type Revision = u64;

/// What a writer knows about the value it writes (the API server's parsed header). The store only carries it.
pub type Facts = Arc<dyn Any + Send + Sync>;

/// One stored value. Index, watchers and the API server's cache share it: one reference-counted buffer.
pub struct Version {
    pub key: Arc<str>,
    pub value: Bytes,
    /// The revision at which the key last came into being.
    pub create_revision: Revision,
    /// The revision of this write.
    pub mod_revision: Revision,
    /// Writes since creation, this one included: 1 is a newborn.
    pub version: u64,
    /// When the store deletes the key by itself, in Unix milliseconds, if that is known: etcd tells its writer only.
    pub expires_at: Option<u64>,
    /// What the writer said about the value; `None` when it was read from disk.
    pub facts: Option<Facts>,
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Version")
            .field("key", &self.key)
            .field("value", &format_args!("{} bytes", self.value.len()))
            .field("create_revision", &self.create_revision)
            .field("mod_revision", &self.mod_revision)
            .field("version", &self.version)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What must be true of a key for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Anything,
    /// The key doesn't exist.
    Absent,
    /// The key exists and this is its `mod_revision`.
    Revision(Revision),
}

/// What a write does to its key.
#[derive(Clone)]
pub enum Change {
    /// Stores a value. A `ttl` counts from the commit; without one, an earlier expiry is lifted.
    Put {
        value: Bytes,
        facts: Option<Facts>,
        ttl: Option<Duration>,
    },
    Delete,
}

/// One write of one key.
#[derive(Clone)]
pub struct Write {
    pub key: Arc<str>,
    pub expect: Expect,
    pub change: Change,
}

impl Write {
    /// Stores `value` if `expect` holds.
    pub fn put(key: impl Into<Arc<str>>, expect: Expect, value: impl Into<Bytes>) -> Write {
        let change = Change::Put { value: value.into(), facts: None, ttl: None };
        Write { key: key.into(), expect, change }
    }

    /// Deletes the key if `expect` holds.
    pub fn delete(key: impl Into<Arc<str>>, expect: Expect) -> Write {
        Write { key: key.into(), expect, change: Change::Delete }
    }
}

/// What became of a write.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is durable. `version` is the new one, `None` after a deletion; `previous` is the one it replaced.
    Committed { revision: Revision, version: Option<Arc<Version>>, previous: Option<Arc<Version>> },
    /// The key was not as expected, and nothing was written. `current` is what it is at the store's `revision`.
    Conflict { current: Option<Arc<Version>>, revision: Revision },
}

/// What a range read found.
#[derive(Debug, Clone)]
pub struct Range {
    /// The revision all of `items` are the state of.
    pub revision: Revision,
    pub items: Vec<Arc<Version>>,
    /// Whether the limit left keys out, and how many.
    pub more: bool,
    pub remaining: u64,
}

/// One change of one key.
#[derive(Debug, Clone)]
pub struct Event {
    pub revision: Revision,
    pub key: Arc<str>,
    /// The new version, `None` if the key was deleted.
    pub version: Option<Arc<Version>>,
    /// What it replaced, `None` if the key did not exist.
    pub previous: Option<Arc<Version>>,
}

/// The first string after all those that start with `prefix`: the exclusive end of a range over the prefix. Empty,
/// which means "to the last key", if there is none.
pub fn prefix_end(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // The surrogates' gap is skipped by hand: a `char` cannot hold them, and UTF-8 sorts by code point.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            end.push(next);
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::prefix_end;

    #[test]
    fn prefix_end_is_the_next_string() {
        for (prefix, end) in [
            ("", ""),
            ("/registry/pods/", "/registry/pods0"),
            ("a\u{10ffff}", "b"),
            ("\u{10ffff}", ""),
            ("a\u{d7ff}", "a\u{e000}"),
            ("a\u{7f}", "a\u{80}"),
        ] {
            assert_eq!(prefix_end(prefix), end);
            assert!(end.is_empty() || format!("{prefix}\u{10ffff}").as_str() < end);
        }
    }
}
