//! A container as the shim sees it: a process, its output, how it ended.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::logs::{Lines, LogFile, now};
use crate::cgroups::Cgroups;
use crate::proto::{Exit, Live, Phase, Start};

/// One output of a container.
#[derive(Debug)]
pub(super) struct Stream {
    /// Until its end.
    pub(super) fd: Option<File>,
    name: &'static str,
    lines: Lines,
    /// Clients that see it live.
    watchers: Vec<File>,
}

#[derive(Debug)]
pub(super) struct Container {
    pub(super) start: Start,
    pub(super) phase: Phase,
    pub(super) pid: i32,
    pub(super) started_at: u64,
    pub(super) exit: Option<Exit>,
    /// Output and error, or a terminal's one output.
    pub(super) streams: Vec<Stream>,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) terminal: Option<OwnedFd>,
    pub(super) log: Option<LogFile>,
}

impl Container {
    pub(super) fn new(start: Start) -> io::Result<Self> {
        let log = start.log.clone().map(LogFile::open).transpose()?;
        Ok(Self {
            start,
            phase: Phase::Starting,
            pid: 0,
            started_at: 0,
            exit: None,
            streams: Vec::new(),
            stdin: None,
            terminal: None,
            log,
        })
    }

    pub(super) fn live(&self) -> Live {
        Live {
            id: self.start.id.clone(),
            phase: self.phase,
            pid: if self.phase == Phase::Running { self.pid } else { 0 },
            started_at: self.started_at,
            exit: self.exit.clone(),
        }
    }

    pub(super) fn add_stream(&mut self, fd: OwnedFd, name: &'static str) -> io::Result<()> {
        set_nonblocking(fd.as_fd())?;
        self.streams.push(Stream { fd: Some(File::from(fd)), name, lines: Lines::default(), watchers: Vec::new() });
        Ok(())
    }

    /// The container's terminal: read as output, kept for input and size.
    pub(super) fn set_terminal(&mut self, fd: OwnedFd) -> io::Result<()> {
        self.terminal = Some(fd.try_clone()?);
        self.add_stream(fd, "stdout")
    }

    /// A descriptor to write to the container's input.
    pub(super) fn input(&self) -> Option<io::Result<OwnedFd>> {
        let end = if self.start.tty { self.terminal.as_ref() } else { self.stdin.as_ref() };
        end.map(OwnedFd::try_clone)
    }

    /// Copies one stream to a client from now on. A client that doesn't keep up is dropped.
    pub(super) fn watch(&mut self, name: &str, fd: OwnedFd) -> io::Result<()> {
        set_nonblocking(fd.as_fd())?;
        if let Some(stream) = self.streams.iter_mut().find(|s| s.name == name) {
            stream.watchers.push(File::from(fd));
        }
        Ok(())
    }

    /// Reads one stream once and logs it; false at its end.
    fn read_once(&mut self, index: usize, buffer: &mut [u8]) -> io::Result<bool> {
        let Some(stream) = self.streams.get_mut(index) else { return Ok(true) };
        let Some(fd) = &mut stream.fd else { return Ok(true) };
        let n = match fd.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(n) => n,
            // A terminal whose last user is gone.
            Err(e) if e.raw_os_error() == Some(libc::EIO) => return Ok(false),
            Err(e) => return Err(e),
        };
        stream.watchers.retain_mut(|w| w.write(&buffer[..n]).is_ok_and(|written| written == n));
        if let Some(log) = &mut self.log {
            stream.lines.push(&buffer[..n], stream.name, now(), &mut log.buffer);
            log.flush();
        }
        Ok(true)
    }

    /// Handles a readable stream.
    pub(super) fn pump(&mut self, index: usize, buffer: &mut [u8]) {
        if matches!(self.read_once(index, buffer), Ok(false)) {
            self.end_stream(index);
        }
    }

    fn end_stream(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        stream.fd = None;
        stream.watchers.clear();
        if let Some(log) = &mut self.log {
            stream.lines.finish(stream.name, now(), &mut log.buffer);
            log.flush();
        }
        if self.start.tty {
            self.terminal = None;
        }
    }

    /// Takes in everything already written, when the process is gone.
    fn drain(&mut self, buffer: &mut [u8]) {
        for index in 0..self.streams.len() {
            while self.streams[index].fd.is_some() {
                match self.read_once(index, buffer) {
                    Ok(true) => {}
                    Ok(false) => self.end_stream(index),
                    Err(_) => break,
                }
            }
        }
    }

    /// The process has ended with a wait status: cleans up after it and records how.
    pub(super) fn ended(&mut self, status: i32, cgroups: &Cgroups, buffer: &mut [u8]) {
        let finished_at = now();
        if self.start.shared_pid {
            cgroups.kill(&self.start.cgroup);
        }
        self.drain(buffer);
        let (code, signal) = decode(status);
        self.finish(Exit {
            code,
            signal,
            oom_killed: cgroups.oom_kills(&self.start.cgroup) > 0,
            started_at: self.started_at,
            finished_at,
            message: None,
        });
        // Early, to free memory. Others may still be dying in it; deletion then does it.
        let _ = cgroups.try_remove(&self.start.cgroup);
    }

    /// It never ran. As CRI runtimes do, this is an exit with code 128.
    pub(super) fn failed(&mut self, message: &str, cgroups: &Cgroups) {
        cgroups.kill(&self.start.cgroup);
        let _ = cgroups.try_remove(&self.start.cgroup);
        self.streams.clear();
        self.finish(Exit { code: 128, finished_at: now(), message: Some(message.to_owned()), ..Exit::default() });
    }

    fn finish(&mut self, exit: Exit) {
        self.phase = Phase::Exited;
        self.stdin = None;
        // A record that cannot be written is still answered from memory while the shim lives.
        let _ = write_exit(&self.start.bundle, &exit);
        self.exit = Some(exit);
    }
}

/// Exit code as a shell reports it, and the signal if one was the cause.
pub(super) fn decode(status: i32) -> (i32, Option<i32>) {
    match libc::WIFSIGNALED(status) {
        true => (128 + libc::WTERMSIG(status), Some(libc::WTERMSIG(status))),
        false => (libc::WEXITSTATUS(status), None),
    }
}

/// Durable and whole: a new file, synced, then renamed.
fn write_exit(bundle: &Path, exit: &Exit) -> io::Result<()> {
    let part = bundle.join("exit.json.part");
    let mut file = File::create(&part)?;
    file.write_all(&serde_json::to_vec(exit)?)?;
    file.sync_data()?;
    std::fs::rename(part, bundle.join("exit.json"))
}

pub(super) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: fcntl on a descriptor borrowed for the call.
    let done = unsafe {
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
