//! A row of the log.

use crate::log::Record;
use crate::{Event, Revision, Version};
use bytes::Bytes;
use rusqlite::{Row, Statement, params};
use std::sync::Arc;

/// The columns in the order in which [`read`] and [`insert`] use them. The value comes last, so that looking at the
/// others doesn't touch its overflow pages.
pub(super) const COLUMNS: &str = "revision, key, created, version, expires, crc, value";

/// The log's table. `value` is NULL for a deletion. `crc` covers all other columns, since SQLite itself would not
/// notice a flipped bit.
pub(super) const TABLE: &str = "CREATE TABLE log (
    revision INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    created INTEGER NOT NULL,
    version INTEGER NOT NULL,
    expires INTEGER,
    crc INTEGER NOT NULL,
    value BLOB
) STRICT";

/// Why a row cannot be what was once written.
pub(super) enum Fault {
    Sqlite(rusqlite::Error),
    Checksum(Revision),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sqlite(error)
    }
}

fn checksum(revision: u64, key: &str, numbers: [u64; 3], value: Option<&[u8]>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&revision.to_le_bytes());
    crc.update(&(key.len() as u64).to_le_bytes());
    crc.update(key.as_bytes());
    for number in numbers {
        crc.update(&number.to_le_bytes());
    }
    if let Some(value) = value {
        crc.update(&[1]);
        crc.update(value);
    }
    crc.finalize()
}

/// SQLite's integers are signed; revisions and times never come near the difference.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn insert(statement: &mut Statement<'_>, event: &Event) -> Result<(), rusqlite::Error> {
    let Event { revision, key, version, .. } = event;
    let version = version.as_deref();
    let created = version.map_or(0, |version| version.create_revision);
    let writes = version.map_or(0, |version| version.version);
    let expires = version.and_then(|version| version.expires_at);
    let value = version.map(|version| &*version.value);
    // An expiry can't be 0 and matter, so 0 stands for none.
    let crc = checksum(*revision, key, [created, writes, expires.unwrap_or(0)], value);
    let (revision, created, writes, expires) =
        (signed(*revision), signed(created), signed(writes), expires.map(signed));
    statement.execute(params![revision, &**key, created, writes, expires, crc, value])?;
    Ok(())
}

pub(super) fn read(row: &Row<'_>) -> Result<Record, Fault> {
    let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
    let revision = number(0)?;
    let text = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
    let (created, writes) = (number(2)?, number(3)?);
    let expires = row.get::<_, Option<i64>>(4)?.map(|at| at as u64);
    let value = row.get_ref(6)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
    let crc = checksum(revision, text, [created, writes, expires.unwrap_or(0)], value);
    if number(5)? != u64::from(crc) {
        return Err(Fault::Checksum(revision));
    }
    let key: Arc<str> = text.into();
    let version = value.map(|value| {
        Arc::new(Version {
            key: key.clone(),
            value: Bytes::copy_from_slice(value),
            create_revision: created,
            mod_revision: revision,
            version: writes,
            expires_at: expires,
            facts: None,
        })
    });
    Ok(Record { revision, key, version })
}
