//! One conversation with a shim.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::proto::{self, Event, Framer, Op, Reply, Request, VERSION};

/// For requests the shim answers from memory.
pub(crate) const QUICK: Duration = Duration::from_secs(10);
/// For those that start a process: the machine may be busy starting a hundred others.
pub(crate) const SLOW: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(crate) struct Client {
    socket: UnixStream,
    framer: Framer,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let socket = proto::connect(socket).path("connect to", socket)?;
        socket.set_write_timeout(Some(QUICK)).what(|| "set a time-out".to_owned())?;
        Ok(Self { socket, framer: Framer::default() })
    }

    /// Sends a request and waits for its answer. A refusal is an error.
    pub(crate) fn ask(&mut self, op: Op, fds: Vec<OwnedFd>, within: Duration) -> Result<Reply> {
        proto::send(&self.socket, &Request { v: VERSION, op }, fds).what(|| "ask the shim".to_owned())?;
        loop {
            match self.next(within)? {
                Some(Reply::Error { code, message }) => return Err(Error::Shim { code, message }),
                Some(Reply::Event(_)) => {}
                Some(reply) => return Ok(reply),
                None => return Err(io::ErrorKind::TimedOut.into()).what(|| "get the shim's answer".to_owned()),
            }
        }
    }

    /// The next message; `None` if none comes in time.
    pub(crate) fn next(&mut self, within: Duration) -> Result<Option<Reply>> {
        // A time-out of zero would mean none at all.
        let within = within.max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(within)).what(|| "set a time-out".to_owned())?;
        match proto::recv(&self.socket, &mut self.framer) {
            Err(e) if e.kind() == io::ErrorKind::TimedOut => Ok(None),
            other => other.map(Some).what(|| "hear from the shim".to_owned()),
        }
    }

    /// Waits for as long as it takes.
    pub(crate) fn next_blocking(&mut self) -> Result<Reply> {
        self.socket.set_read_timeout(None).what(|| "lift a time-out".to_owned())?;
        proto::recv(&self.socket, &mut self.framer).what(|| "hear from the shim".to_owned())
    }

    /// After subscribing: waits until a container has ended, at most until `deadline`.
    pub(crate) fn wait_exit(&mut self, container: &str, deadline: Instant) -> Result<bool> {
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now()))? {
                Some(Reply::Event(Event::Exited { id, .. })) if id == container => return Ok(true),
                Some(_) => {}
                None => return Ok(false),
            }
        }
    }

    /// Waits for the shim to close the connection, as it does when it exits.
    pub(crate) fn wait_gone(&mut self, within: Duration) -> bool {
        matches!(self.next(within), Err(Error::Io { .. }))
    }

    pub(crate) fn take_file(&mut self) -> Option<File> {
        self.framer.take_fd().map(File::from)
    }

    pub(crate) fn into_parts(self) -> (UnixStream, Framer) {
        (self.socket, self.framer)
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
