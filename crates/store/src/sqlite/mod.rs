//! The built-in store: the engine over an append-only table in SQLite.
//!
//! One connection writes (the commit thread's), one checkpoints, one reads old history; no other process may open the
//! file. WAL with synchronous=FULL: a commit is one write and one fsync of the WAL.

mod checkpoint;
mod history;
mod log;
mod open;
mod record;

use crate::Error;
use crate::engine::{Backed, Engine, Limits, system_clock};
use history::Reader;
use log::SqliteLog;
use std::path::Path;
use std::sync::Arc;

/// How a [`SqliteStore`] is run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub limits: Limits,
}

/// A durable store in one file (and its `-wal`, `-shm` and `-lock`).
pub struct SqliteStore {
    engine: Engine,
    history: Arc<Reader>,
}

impl SqliteStore {
    /// Opens the store at `path`, or makes a new one there; the directory must exist. Blocks while it reads the file.
    ///
    /// Refuses a file that another process has open ([`Error::InUse`]), one that a newer program wrote
    /// ([`Error::NewerSchema`]) and one that is damaged or not a store ([`Error::Corrupt`]).
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<SqliteStore, Error> {
        let log = SqliteLog::open(path.as_ref())?;
        let history = Arc::new(Reader::new(path.as_ref()));
        let engine = Engine::start(log, history.clone(), options.limits, system_clock())?;
        Ok(SqliteStore { engine, history })
    }

    /// Finishes what was begun and lets go of the file; dropping the store does the same. Blocks meanwhile. Later calls
    /// answer [`Error::Closed`].
    pub fn close(&self) {
        // The writer's connection must be the last one: it then empties the WAL.
        self.history.close();
        self.engine.close();
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Backed for SqliteStore {
    fn engine(&self) -> &Engine {
        &self.engine
    }
}

#[cfg(test)]
mod tests;
