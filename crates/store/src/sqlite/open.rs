//! Opening the file: lock, identity, schema.

use super::record::TABLE;
use crate::Error;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Marks the file as ours in SQLite's header: "Cnps".
const APPLICATION: i64 = 0x436e_7073;
/// The schema this program writes, and the newest that it reads.
const SCHEMA: i64 = 1;

/// Pages of 4 KB, as in `DESIGN.md`'s measurements: the unit of WAL writes.
const PAGE: i64 = 4096;

/// The file's name with something appended.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Takes the lock that keeps other processes out, for as long as the file is open.
pub(super) fn lock(path: &Path) -> Result<File, Error> {
    // Not on the database itself: SQLite's own locks there belong to the process, and closing any handle drops them.
    let lock = private(&beside(path, "-lock")).map_err(|error| failed(path, error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { path: path.into() }),
        Err(TryLockError::Error(error)) => Err(failed(path, error)),
    }
}

/// A file that only we may read: secrets are inside.
fn private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn failed(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::Open { path: path.into(), detail: error.to_string() }
}

/// What a failure of SQLite says about the file.
pub(super) fn fault(path: &Path, error: &rusqlite::Error) -> Error {
    let corrupt = match error.sqlite_error_code() {
        Some(code) => matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase),
        // The file was read well, but what it holds is of the wrong type or no text.
        None => true,
    };
    match corrupt {
        true => Error::Corrupt { path: path.into(), detail: error.to_string() },
        false => failed(path, error),
    }
}

/// Opens the writing connection, and makes the schema if the file is new.
pub(super) fn writer(path: &Path) -> Result<Connection, Error> {
    if !path.exists() {
        private(path).map_err(|error| failed(path, error))?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| failed(path, error))?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| fault(path, &error))?;
    prepare(path, &connection).and_then(|()| identify(path, &connection))?;
    Ok(connection)
}

fn prepare(path: &Path, connection: &Connection) -> Result<(), Error> {
    let pragmas = [
        // These two only mean something before the first table is made.
        ("page_size", PAGE.to_string()),
        ("auto_vacuum", "INCREMENTAL".into()),
        ("synchronous", "FULL".into()),
        // The checkpoint thread does that.
        ("wal_autocheckpoint", "0".into()),
        ("cache_size", "-1024".into()),
        ("temp_store", "MEMORY".into()),
    ];
    let set = |name: &str, value: &str| -> Result<(), rusqlite::Error> {
        connection.pragma_update_and_check(None, name, value, |_| Ok(())).or_else(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => Ok(()),
            error => Err(error),
        })
    };
    for (name, value) in pragmas {
        set(name, &value).map_err(|error| fault(path, &error))?;
    }
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(|error| fault(path, &error))?;
    match mode.as_str() {
        "wal" => Ok(()),
        mode => Err(failed(path, format!("the file system allows no WAL (journal mode is {mode})"))),
    }
}

fn identify(path: &Path, connection: &Connection) -> Result<(), Error> {
    let pragma = |name| number(connection, &format!("PRAGMA {name}")).map_err(|error| fault(path, &error));
    let (application, found) = (pragma("application_id")?, pragma("user_version")?);
    let tables = number(connection, "SELECT count(*) FROM sqlite_schema").map_err(|error| fault(path, &error))?;
    if tables == 0 && application == 0 && found == 0 {
        return create(connection).map_err(|error| fault(path, &error));
    }
    if application != APPLICATION {
        return Err(Error::Corrupt { path: path.into(), detail: "it is another program's database".into() });
    }
    if found > SCHEMA {
        return Err(Error::NewerSchema { path: path.into(), found, known: SCHEMA });
    }
    Ok(())
}

fn create(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         {TABLE};
         CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
         INSERT INTO state VALUES ('compacted', 0);
         PRAGMA application_id = {APPLICATION};
         PRAGMA user_version = {SCHEMA};
         COMMIT;"
    ))
}

/// Opens a connection beside the writer's.
pub(super) fn companion(path: &Path) -> Result<Connection, rusqlite::Error> {
    // Checkpoints write, so this isn't read-only.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch("PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -256; PRAGMA synchronous = FULL")?;
    Ok(connection)
}

/// A statement's only number.
pub(super) fn number(connection: &Connection, sql: &str) -> Result<i64, rusqlite::Error> {
    connection.query_row(sql, [], |row| row.get(0))
}
