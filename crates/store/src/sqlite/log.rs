//! The log as a table.

use super::checkpoint::Checkpointer;
use super::open;
use super::record::{self, COLUMNS, Fault};
use crate::log::{Log, Record};
use crate::{Error, Event, Revision};
use rusqlite::{Connection, params};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Free pages that are worth giving back to the file system: at least so many, and a quarter of the file.
const SPARE_PAGES: i64 = 1024;
/// Pages given back per step.
const VACUUM_PAGES: i64 = 128;

pub(super) struct SqliteLog {
    // The order matters: whoever waits for the lock must find the file closed.
    checkpointer: Checkpointer,
    connection: Connection,
    path: PathBuf,
    compacted: Revision,
    _lock: File,
}

impl SqliteLog {
    pub(super) fn open(path: &Path) -> Result<SqliteLog, Error> {
        let lock = open::lock(path)?;
        let mut connection = open::writer(path)?;
        let compacted = open::number(&connection, "SELECT value FROM state WHERE name = 'compacted'")
            .map_err(|error| open::fault(path, &error))?;
        let checkpointer = Checkpointer::start(path, &mut connection)?;
        let compacted = compacted.max(0) as Revision;
        Ok(SqliteLog { checkpointer, connection, path: path.into(), compacted, _lock: lock })
    }

    fn corrupt(&self, detail: String) -> Error {
        Error::Corrupt { path: self.path.clone(), detail }
    }

    fn insert(&mut self, group: &[Event]) -> Result<(), rusqlite::Error> {
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        {
            let sql = format!("INSERT INTO log ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
            let mut statement = transaction.prepare_cached(&sql)?;
            group.iter().try_for_each(|event| record::insert(&mut statement, event))?;
        }
        transaction.commit()
    }

    fn delete(&mut self, up_to: Revision, drop: &[Revision]) -> Result<(), rusqlite::Error> {
        // Without an fsync of its own: the next commit's covers it, and the WAL keeps the order.
        self.connection.execute_batch("PRAGMA synchronous = NORMAL")?;
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        if up_to > self.compacted {
            transaction.execute("UPDATE state SET value = ?1 WHERE name = 'compacted'", params![up_to as i64])?;
        }
        {
            let mut statement = transaction.prepare_cached("DELETE FROM log WHERE revision = ?1")?;
            for revision in drop {
                statement.execute(params![*revision as i64])?;
            }
        }
        transaction.commit()?;
        self.compacted = up_to;
        self.connection.execute_batch("PRAGMA synchronous = FULL")
    }

    /// Gives some free pages back. Returns whether there are more.
    fn vacuum(&mut self) -> Result<bool, rusqlite::Error> {
        let free = open::number(&self.connection, "PRAGMA freelist_count")?;
        let pages = open::number(&self.connection, "PRAGMA page_count")?;
        let spare = free - (pages / 4).max(SPARE_PAGES);
        if spare <= 0 {
            return Ok(false);
        }
        self.connection.execute_batch("PRAGMA synchronous = NORMAL")?;
        {
            let sql = format!("PRAGMA incremental_vacuum({})", spare.min(VACUUM_PAGES));
            let mut statement = self.connection.prepare(&sql)?;
            // It frees one page per step.
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
        }
        self.connection.execute_batch("PRAGMA synchronous = FULL")?;
        Ok(true)
    }
}

fn failed(doing: &str, error: &rusqlite::Error) -> Error {
    Error::Failed(format!("{doing}: {error}").into())
}

impl Log for SqliteLog {
    fn compacted(&self) -> Revision {
        self.compacted
    }

    fn replay(&mut self, visit: &mut dyn FnMut(Record) -> Result<(), Error>) -> Result<(), Error> {
        let fault = |error: rusqlite::Error| open::fault(&self.path, &error);
        let sql = format!("SELECT {COLUMNS} FROM log ORDER BY revision");
        let mut statement = self.connection.prepare(&sql).map_err(fault)?;
        let mut rows = statement.query([]).map_err(fault)?;
        // An empty store is at revision 1.
        let mut last = self.compacted.max(1);
        while let Some(row) = rows.next().map_err(fault)? {
            let record = match record::read(row) {
                Ok(record) => record,
                Err(Fault::Sqlite(error)) => return Err(fault(error)),
                Err(Fault::Checksum(revision)) => {
                    return Err(self.corrupt(format!("the checksum of revision {revision} is wrong")));
                }
            };
            // What is newer than the last compaction is there without gaps.
            if record.revision > self.compacted {
                if record.revision != last + 1 {
                    return Err(self.corrupt(format!("revision {} is missing", last + 1)));
                }
                last = record.revision;
            }
            visit(record)?;
        }
        Ok(())
    }

    fn append(&mut self, group: &[Event]) -> Result<(), Error> {
        self.insert(group).map_err(|error| failed("failed to commit", &error))
    }

    fn compact(&mut self, up_to: Revision, drop: &[Revision]) -> Result<(), Error> {
        self.delete(up_to, drop).map_err(|error| failed("failed to compact", &error))?;
        self.between_groups()
    }

    fn tidy(&mut self) -> Result<bool, Error> {
        let more = self.vacuum().map_err(|error| failed("failed to vacuum", &error))?;
        self.between_groups()?;
        Ok(more)
    }

    fn between_groups(&mut self) -> Result<(), Error> {
        self.checkpointer.between_groups(&self.connection)
    }
}
