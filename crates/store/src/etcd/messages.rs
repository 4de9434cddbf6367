//! etcd's messages (`etcdserverpb`, `mvccpb`), as far as a store needs them.

use super::wire::{Malformed, Writer, each};
use crate::Revision;
use bytes::Bytes;

/// `mvccpb.KeyValue`.
#[derive(Debug, Default)]
pub(super) struct KeyValue {
    pub(super) key: String,
    pub(super) value: Bytes,
    pub(super) create_revision: Revision,
    pub(super) mod_revision: Revision,
    pub(super) version: u64,
    pub(super) lease: u64,
}

impl KeyValue {
    fn read(bytes: &[u8]) -> Result<KeyValue, Malformed> {
        let mut kv = KeyValue::default();
        each(bytes, |number, field| {
            match number {
                // Keys of other programs need not be text; they concern nobody here.
                1 => kv.key = String::from_utf8_lossy(field.bytes()?).into_owned(),
                2 => kv.create_revision = field.int()?,
                3 => kv.mod_revision = field.int()?,
                4 => kv.version = field.int()?,
                // A copy: a slice would keep the whole answer alive for as long as the object.
                5 => kv.value = Bytes::copy_from_slice(field.bytes()?),
                6 => kv.lease = field.int()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(kv)
    }
}

/// `ResponseHeader`'s cluster and revision.
fn header(bytes: &[u8]) -> Result<(u64, Revision), Malformed> {
    let mut header = (0, 0);
    each(bytes, |number, field| {
        match number {
            1 => header.0 = field.int()?,
            3 => header.1 = field.int()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(header)
}

/// `RangeRequest`, for the keys in `key..end`; an empty `end` means `key` alone, `"\0"` means to the last.
#[derive(Default)]
pub(super) struct RangeRequest<'a> {
    pub(super) key: &'a [u8],
    pub(super) end: &'a [u8],
    pub(super) limit: u64,
    pub(super) revision: Revision,
    pub(super) keys_only: bool,
}

impl RangeRequest<'_> {
    pub(super) fn write(&self) -> Writer {
        let writer = Writer::default().bytes(1, self.key);
        // An end that is there but empty means "to the last key".
        let writer = if self.end.is_empty() { writer } else { writer.bytes(2, self.end) };
        writer.some_int(3, self.limit).some_int(4, self.revision).some_int(8, self.keys_only.into())
    }
}

#[derive(Debug, Default)]
pub(super) struct RangeResponse {
    pub(super) cluster: u64,
    pub(super) revision: Revision,
    pub(super) kvs: Vec<KeyValue>,
    /// All keys of the range, those that the limit left out too.
    pub(super) count: u64,
}

impl RangeResponse {
    pub(super) fn read(bytes: &[u8]) -> Result<RangeResponse, Malformed> {
        let mut response = RangeResponse::default();
        each(bytes, |number, field| {
            match number {
                1 => (response.cluster, response.revision) = header(field.bytes()?)?,
                2 => response.kvs.push(KeyValue::read(field.bytes()?)?),
                4 => response.count = field.int()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(response)
    }
}

/// What must hold of a key in a transaction.
pub(super) enum Compare<'a> {
    ModRevision(&'a str, Revision),
    Version(&'a str, u64),
}

impl Compare<'_> {
    fn write(&self) -> Writer {
        // Target and the field of the value; the result is EQUAL, 0.
        let (target, key, field, value) = match self {
            Compare::Version(key, version) => (0, key, 4, version),
            Compare::ModRevision(key, revision) => (2, key, 6, revision),
        };
        Writer::default().some_int(2, target).bytes(3, key.as_bytes()).int(field, *value)
    }
}

/// One operation of a transaction. Writes answer with what they replaced.
pub(super) enum Operation<'a> {
    Get(&'a str),
    Put { key: &'a str, value: &'a [u8], lease: u64 },
    Delete(&'a str),
}

impl Operation<'_> {
    fn write(&self) -> Writer {
        match self {
            Operation::Get(key) => {
                let range = RangeRequest { key: key.as_bytes(), ..RangeRequest::default() };
                Writer::default().message(1, range.write())
            }
            Operation::Put { key, value, lease } => {
                let put = Writer::default().bytes(1, key.as_bytes()).bytes(2, value).some_int(3, *lease).int(4, 1);
                Writer::default().message(2, put)
            }
            Operation::Delete(key) => {
                Writer::default().message(3, Writer::default().bytes(1, key.as_bytes()).int(3, 1))
            }
        }
    }
}

/// `TxnRequest`: if all of `compare` holds, `then`, otherwise `or`.
pub(super) fn txn(compare: Option<Compare<'_>>, then: &Operation<'_>, or: Option<&Operation<'_>>) -> Bytes {
    let mut writer = Writer::default();
    if let Some(compare) = compare {
        writer = writer.message(1, compare.write());
    }
    writer = writer.message(2, then.write());
    if let Some(or) = or {
        writer = writer.message(3, or.write());
    }
    writer.finish()
}

#[derive(Debug, Default)]
pub(super) struct TxnResponse {
    pub(super) revision: Revision,
    pub(super) succeeded: bool,
    /// What the operation read, or replaced.
    pub(super) kv: Option<KeyValue>,
    /// How many keys were deleted.
    pub(super) deleted: u64,
}

impl TxnResponse {
    pub(super) fn read(bytes: &[u8]) -> Result<TxnResponse, Malformed> {
        let mut response = TxnResponse::default();
        each(bytes, |number, field| {
            match number {
                1 => (_, response.revision) = header(field.bytes()?)?,
                2 => response.succeeded = field.int()? != 0,
                3 => each(field.bytes()?, |kind, answer| response.operation(kind, answer.bytes()?))?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(response)
    }

    /// `RangeResponse`, `PutResponse` or `DeleteRangeResponse`, by the number of `ResponseOp`'s field.
    fn operation(&mut self, kind: u32, bytes: &[u8]) -> Result<(), Malformed> {
        each(bytes, |number, field| {
            match (kind, number) {
                (1 | 2, 2) | (3, 3) => self.kv = Some(KeyValue::read(field.bytes()?)?),
                (3, 2) => self.deleted = field.int()?,
                _ => {}
            }
            Ok(())
        })
    }
}

/// `CompactionRequest`.
pub(super) fn compact(revision: Revision) -> Bytes {
    Writer::default().int(1, revision).finish()
}

/// `LeaseGrantRequest`.
pub(super) fn grant(seconds: u64) -> Bytes {
    Writer::default().int(1, seconds).finish()
}

/// `LeaseGrantResponse`'s id.
pub(super) fn granted(bytes: &[u8]) -> Result<u64, Malformed> {
    let mut id = 0;
    each(bytes, |number, field| {
        if number == 2 {
            id = field.int()?;
        }
        Ok(())
    })?;
    Ok(id)
}

/// A `WatchRequest` that follows every key from `revision` on.
pub(super) fn watch_everything(revision: Revision) -> Bytes {
    let create = Writer::default().bytes(1, b"\0").bytes(2, b"\0").int(3, revision).int(6, 1);
    Writer::default().message(1, create).finish()
}

/// `mvccpb.Event`.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) deleted: bool,
    pub(super) kv: KeyValue,
    pub(super) previous: Option<KeyValue>,
}

impl Event {
    fn read(bytes: &[u8]) -> Result<Event, Malformed> {
        let mut event = Event { deleted: false, kv: KeyValue::default(), previous: None };
        each(bytes, |number, field| {
            match number {
                1 => event.deleted = field.int()? != 0,
                2 => event.kv = KeyValue::read(field.bytes()?)?,
                3 => event.previous = Some(KeyValue::read(field.bytes()?)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(event)
    }
}

#[derive(Debug, Default)]
pub(super) struct WatchResponse {
    pub(super) created: bool,
    pub(super) canceled: bool,
    /// Why it was cancelled: what the watch asked for is compacted, up to here.
    pub(super) compacted: Revision,
    pub(super) reason: String,
    pub(super) events: Vec<Event>,
}

impl WatchResponse {
    pub(super) fn read(bytes: &[u8]) -> Result<WatchResponse, Malformed> {
        let mut response = WatchResponse::default();
        each(bytes, |number, field| {
            match number {
                3 => response.created = field.int()? != 0,
                4 => response.canceled = field.int()? != 0,
                5 => response.compacted = field.int()?,
                6 => response.reason = field.text()?.to_owned(),
                11 => response.events.push(Event::read(field.bytes()?)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(response)
    }
}
