//! Reading old records, on a thread that starts when somebody first asks.

use super::open;
use super::record::{self, COLUMNS, Fault};
use crate::Error;
use crate::Revision;
use crate::log::{History, Record, SCAN_BYTES, SCAN_RECORDS, Scan, Scanned};
use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

enum Job {
    Fetch(Vec<Revision>, oneshot::Sender<Result<Vec<Record>, Error>>),
    Scan(Scan, oneshot::Sender<Result<Scanned, Error>>),
}

pub(super) struct Reader {
    path: PathBuf,
    thread: Mutex<Thread>,
}

enum Thread {
    NotYet,
    Running(Sender<Job>, JoinHandle<()>),
    Closed,
}

impl Reader {
    pub(super) fn new(path: &Path) -> Reader {
        Reader { path: path.into(), thread: Mutex::new(Thread::NotYet) }
    }

    fn submit(&self, job: Job) -> Result<(), Error> {
        let mut thread = self.thread.lock();
        if let Thread::NotYet = *thread {
            *thread = self.start()?;
        }
        match &*thread {
            Thread::Running(jobs, _) => jobs.send(job).map_err(|_| Error::Closed),
            _ => Err(Error::Closed),
        }
    }

    fn start(&self) -> Result<Thread, Error> {
        let connection = open::companion(&self.path).map_err(|error| open::fault(&self.path, &error))?;
        let (jobs, work) = channel();
        let path = self.path.clone();
        let thread = std::thread::Builder::new()
            .name("store-history".into())
            .spawn(move || run(&path, &connection, &work))
            .map_err(|error| Error::Open { path: self.path.clone(), detail: error.to_string() })?;
        Ok(Thread::Running(jobs, thread))
    }

    /// Lets go of the file.
    pub(super) fn close(&self) {
        if let Thread::Running(jobs, thread) = std::mem::replace(&mut *self.thread.lock(), Thread::Closed) {
            drop(jobs);
            // Had it panicked, its callers would have been told by their reply channels.
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl History for Reader {
    async fn fetch(&self, revisions: Vec<Revision>) -> Result<Vec<Record>, Error> {
        let (reply, answer) = oneshot::channel();
        self.submit(Job::Fetch(revisions, reply))?;
        answer.await.map_err(|_| Error::Closed)?
    }

    async fn scan(&self, scan: Scan) -> Result<Scanned, Error> {
        let (reply, answer) = oneshot::channel();
        self.submit(Job::Scan(scan, reply))?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

fn run(path: &Path, connection: &Connection, work: &Receiver<Job>) {
    let fault = |fault: Fault| match fault {
        Fault::Sqlite(error) => open::fault(path, &error),
        Fault::Checksum(revision) => {
            Error::Corrupt { path: path.into(), detail: format!("the checksum of revision {revision} is wrong") }
        }
    };
    // Whoever asked may have gone away, which is fine.
    while let Ok(job) = work.recv() {
        match job {
            Job::Fetch(revisions, reply) => drop(reply.send(fetch(connection, &revisions).map_err(fault))),
            Job::Scan(wanted, reply) => drop(reply.send(scan(connection, &wanted).map_err(fault))),
        }
    }
}

fn fetch(connection: &Connection, revisions: &[Revision]) -> Result<Vec<Record>, Fault> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM log WHERE revision = ?1"))?;
    let mut records = Vec::with_capacity(revisions.len());
    for revision in revisions {
        let record = statement.query_row(params![*revision as i64], |row| Ok(record::read(row))).optional()?;
        records.extend(record.transpose()?);
    }
    Ok(records)
}

fn scan(connection: &Connection, wanted: &Scan) -> Result<Scanned, Fault> {
    let sql = format!(
        "SELECT {COLUMNS} FROM log WHERE revision BETWEEN ?1 AND ?2 AND key >= ?3 AND (?4 = '' OR key < ?4)
         ORDER BY revision"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let Scan { from, to, start, end } = wanted;
    let mut rows = statement.query(params![*from as i64, *to as i64, &**start, &**end])?;
    let mut events = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let record = record::read(row)?;
        let covered = record.revision;
        bytes += record.version.as_ref().map_or(0, |version| version.value.len());
        events.push(record.into_event());
        if events.len() >= SCAN_RECORDS || bytes >= SCAN_BYTES {
            return Ok(Scanned { events, covered });
        }
    }
    Ok(Scanned { events, covered: *to })
}
