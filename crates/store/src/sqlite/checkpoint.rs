//! Checkpoints: moving the WAL's pages into the database, on a thread of their own.
//!
//! A passive checkpoint doesn't stop the writer, but under steady load it never quite catches up either, and only a WAL
//! that is checkpointed to its end can begin anew. So when the WAL has grown long, the commit thread itself moves the
//! few pages that a passive checkpoint has just left.

use super::open;
use crate::Error;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Frames (pages) in the WAL that are worth a checkpoint: 8 MB.
const WORTH: i64 = 2048;
/// Frames in the WAL at which the commit thread helps: 64 MB.
const LONG: i64 = 16384;

pub(super) struct Checkpointer {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Frames in the WAL, and how many of them the last checkpoint found or put in the database.
    frames: AtomicI64,
    checkpointed: AtomicI64,
    /// A checkpoint is under way.
    busy: AtomicBool,
    /// The WAL is long, and nearly all of it is checkpointed.
    long: AtomicBool,
    failed: Mutex<Option<String>>,
}

/// A passive checkpoint. Returns the frames in the WAL and how many of them are in the database now.
fn passive(connection: &Connection) -> Result<(i64, i64), rusqlite::Error> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))
}

impl Checkpointer {
    /// Starts the thread. It sleeps until the WAL of `writer` is worth a checkpoint.
    pub(super) fn start(path: &Path, writer: &mut Connection) -> Result<Checkpointer, Error> {
        let shared = Arc::new(Shared::default());
        let connection = open::companion(path).map_err(|error| open::fault(path, &error))?;
        let hook = {
            let shared = shared.clone();
            move |_: &mut rusqlite::hooks::Wal, frames| {
                shared.frames.store(i64::from(frames), Ordering::Relaxed);
                Ok(())
            }
        };
        writer.wal_hook(Some(hook)).map_err(|error| open::fault(path, &error))?;
        let (wake, work) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("store-ckpt".into())
            .spawn({
                let shared = shared.clone();
                move || run(&connection, &work, &shared)
            })
            .map_err(|error| Error::Open { path: path.into(), detail: error.to_string() })?;
        Ok(Checkpointer { wake: Some(wake), thread: Some(thread), shared })
    }

    /// To be called by the writer after its commits.
    pub(super) fn between_groups(&self, writer: &Connection) -> Result<(), Error> {
        let shared = &self.shared;
        if shared.busy.load(Ordering::Acquire) {
            return Ok(());
        }
        if let Some(error) = shared.failed.lock().as_ref() {
            return Err(Error::Failed(format!("failed to checkpoint: {error}").into()));
        }
        if shared.long.swap(false, Ordering::Relaxed) {
            passive(writer).map_err(|error| Error::Failed(format!("failed to checkpoint: {error}").into()))?;
            return Ok(());
        }
        let frames = shared.frames.load(Ordering::Relaxed);
        let mut checkpointed = shared.checkpointed.load(Ordering::Relaxed);
        if frames < checkpointed {
            // The WAL has begun anew.
            checkpointed = 0;
            shared.checkpointed.store(0, Ordering::Relaxed);
        }
        if frames - checkpointed >= WORTH
            && let Some(wake) = &self.wake
        {
            shared.busy.store(true, Ordering::Relaxed);
            // The only way to fail is that the thread is gone, which has left its reason in `failed`.
            let _ = wake.try_send(());
        }
        Ok(())
    }
}

fn run(connection: &Connection, work: &Receiver<()>, shared: &Shared) {
    while work.recv().is_ok() {
        match passive(connection) {
            Ok((frames, checkpointed)) => {
                shared.checkpointed.store(checkpointed.max(0), Ordering::Relaxed);
                shared.long.store(frames >= LONG, Ordering::Relaxed);
            }
            Err(error) => *shared.failed.lock() = Some(error.to_string()),
        }
        shared.busy.store(false, Ordering::Release);
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // It doesn't panic; if it did, there would be nothing left to do about it here.
            let _ = thread.join();
        }
    }
}
