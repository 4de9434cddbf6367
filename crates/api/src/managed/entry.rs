//! Entries of `metadata.managedFields`.

use super::set::{DecodeError, Set};
use crate::time::Time;
use crate::value::{Map, Value};
use compact_str::CompactString;
use std::cmp::Ordering;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

/// What one manager owns, and since when.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub manager: CompactString,
    pub operation: Operation,
    pub api_version: CompactString,
    pub subresource: CompactString,
    pub time: Option<Time>,
    pub set: Set,
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    ApiVersion,
    #[error("missing fieldsType in managed fields entry {0}")]
    MissingType(usize),
    #[error("invalid fieldsType {1:?} in managed fields entry {0}")]
    InvalidType(usize, CompactString),
    #[error("error decoding set: {0}")]
    Set(#[from] DecodeError),
}

impl Entry {
    /// Whether both are the same manager: for appliers, whatever the version.
    pub fn same_manager(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// The order of upstream's manager identifiers (JSON of manager, operation, apiVersion, subresource).
    pub(super) fn by_identity(&self, other: &Entry) -> Ordering {
        (&self.manager, self.operation, &self.api_version, &self.subresource).cmp(&(
            &other.manager,
            other.operation,
            &other.api_version,
            &other.subresource,
        ))
    }

    /// Reads one entry. `trusted`: this module wrote it.
    fn decode(value: Value, at: usize, trusted: bool) -> Result<Entry, Error> {
        let mut map = match value {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        let mut text = |name: &str| match map.remove(name) {
            Some(Value::Str(s)) => s,
            _ => CompactString::default(),
        };
        let operation = match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err(Error::Operation),
        };
        let api_version = text("apiVersion");
        if api_version.is_empty() {
            return Err(Error::ApiVersion);
        }
        match text("fieldsType") {
            kind if kind == "FieldsV1" => {}
            kind if kind.is_empty() => return Err(Error::MissingType(at)),
            kind => return Err(Error::InvalidType(at, kind)),
        }
        let (manager, subresource, time) = (text("manager"), text("subresource"), Time::parse(&text("time")));
        let set = match map.remove("fieldsV1") {
            Some(Value::Object(root)) if trusted => Set::trusted(root),
            other => Set::decode(&other.unwrap_or_default())?,
        };
        Ok(Entry { manager, operation, api_version, subresource, time, set })
    }

    fn encode(self) -> Value {
        let operation = if self.operation == Operation::Apply { "Apply" } else { "Update" };
        let mut fields: Vec<(CompactString, Value)> = Vec::with_capacity(7);
        let mut put = |name: &'static str, value: Value| fields.push((CompactString::const_new(name), value));
        put("apiVersion", Value::Str(self.api_version));
        put("fieldsType", Value::Str(CompactString::const_new("FieldsV1")));
        put("fieldsV1", self.set.into_value());
        if !self.manager.is_empty() {
            put("manager", Value::Str(self.manager));
        }
        put("operation", operation.into());
        if !self.subresource.is_empty() {
            put("subresource", Value::Str(self.subresource));
        }
        if let Some(time) = self.time {
            put("time", time.into());
        }
        Value::Object(fields.into_iter().collect())
    }
}

/// Reads all entries. Of those with the same identity the last counts.
pub(super) fn decode(value: Value, trusted: bool) -> Result<Vec<Entry>, Error> {
    let Value::Array(items) = value else { return Ok(Vec::new()) };
    let mut out: Vec<Entry> = Vec::with_capacity(items.len() + 1);
    for (i, item) in items.into_iter().enumerate() {
        let entry = Entry::decode(item, i, trusted)?;
        match out.iter_mut().find(|e| e.same_manager(&entry)) {
            Some(same) => *same = entry,
            None => out.push(entry),
        }
    }
    Ok(out)
}

/// Whether these managedFields are acceptable, as upstream checks them after mutating admission.
pub fn validate(managed_fields: &Value) -> Result<(), Error> {
    decode(managed_fields.clone(), false).map(|_| ())
}

/// Writes the entries into `object`, in upstream's order.
pub(super) fn store(mut entries: Vec<Entry>, object: &mut Value) {
    if entries.is_empty() {
        object.remove_path(&["metadata", "managedFields"]);
        return;
    }
    let seconds = |e: &Entry| e.time.map_or(0, Time::unix);
    entries.sort_by(|a, b| {
        (a.operation, seconds(a), &a.manager, &a.api_version, &a.subresource).cmp(&(
            b.operation,
            seconds(b),
            &b.manager,
            &b.api_version,
            &b.subresource,
        ))
    });
    let encoded = Value::Array(entries.into_iter().map(Entry::encode).collect());
    object.obj_mut("metadata").insert("managedFields", encoded);
}

/// Whether a client asks for its object to be tracked no longer: `managedFields: []` or `[{}]`.
pub(super) fn is_reset(managed_fields: &Value) -> bool {
    match managed_fields {
        Value::Array(items) => match items.as_slice() {
            [] => true,
            [one] => one.as_object().is_some_and(Map::is_empty),
            _ => false,
        },
        _ => false,
    }
}
