//! Further processes in running containers.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::Runtime;
use crate::client::{Client, SLOW};
use crate::error::{Context as _, Error, Result};
use crate::oci;
use crate::proto::{self, Op, Reply};
use crate::spec::ExecSpec;
use crate::state;

/// A process started by [`Runtime::exec`]. Dropping it kills the process.
///
/// The files may be taken. On a terminal, input and output are the same one and there is no error
/// stream. Output ends when no process holds it any more, which may be after the exit.
#[derive(Debug)]
pub struct ExecSession {
    pub stdin: Option<File>,
    pub stdout: Option<File>,
    pub stderr: Option<File>,
    /// In the host's process namespace.
    pub pid: i32,
    terminal: Option<File>,
    client: Client,
    code: Option<i32>,
}

impl Runtime {
    /// Runs a command in a running container and returns once it has been executed.
    pub fn exec(&self, container: &str, spec: &ExecSpec) -> Result<ExecSession> {
        let (sandbox, record) = self.container(container)?;
        let pod = self.sandbox(&sandbox)?;
        let shim = self.live_shim(&sandbox)?;
        let process = oci::exec_process(&record.spec, spec, &self.oci_context(&pod, &shim, container))?;
        let dir = self.dir(&sandbox).container(container);
        let file = dir.join(format!("exec-{}.json", &state::random_id()?[..16]));
        state::write(&file, &process)?;
        let (mut theirs, mut files) = (Vec::new(), [None, None, None]);
        if !spec.tty {
            let wanted = [spec.stdin, spec.stdout, spec.stderr];
            for (i, _) in wanted.iter().enumerate().filter(|(_, w)| **w) {
                let (reader, writer) = io::pipe().what(|| "make a pipe".to_owned())?;
                let (their, ours): (OwnedFd, OwnedFd) = match i {
                    0 => (reader.into(), writer.into()),
                    _ => (writer.into(), reader.into()),
                };
                theirs.push(their);
                files[i] = Some(File::from(ours));
            }
        }
        let op = Op::Exec(proto::Exec {
            id: container.to_owned(),
            child: self.config.child_path.clone(),
            process: file.clone(),
            tty: spec.tty,
            stdin: spec.stdin,
            stdout: spec.stdout,
            stderr: spec.stderr,
        });
        let mut client = self.client(&sandbox)?;
        let pid = match client.ask(op, theirs, SLOW) {
            Ok(Reply::Started { pid, .. }) => pid,
            other => {
                // The runtime child has removed it unless it wasn't reached.
                let _ = std::fs::remove_file(&file);
                return Err(other.err().unwrap_or_else(unexpected));
            }
        };
        let terminal = client.take_file();
        let [mut stdin, mut stdout, stderr] = files;
        if let Some(terminal) = &terminal {
            let copy = |wanted: bool| wanted.then(|| terminal.try_clone()).transpose();
            stdin = copy(spec.stdin).what(|| "duplicate the terminal".to_owned())?;
            stdout = copy(spec.stdout).what(|| "duplicate the terminal".to_owned())?;
        }
        Ok(ExecSession { stdin, stdout, stderr, pid, terminal, client, code: None })
    }
}

fn unexpected() -> Error {
    Error::Shim { code: proto::Code::Internal, message: "unexpected answer from the shim".to_owned() }
}

impl ExecSession {
    /// Waits for the process to end; its exit code, 128 + n after signal n.
    pub fn wait(&mut self) -> Result<i32> {
        loop {
            if let Some(code) = self.code {
                return Ok(code);
            }
            let reply = self.client.next_blocking()?;
            self.hear(reply)?;
        }
    }

    /// The same, `None` if it hasn't ended in time.
    pub fn wait_timeout(&mut self, within: Duration) -> Result<Option<i32>> {
        if self.code.is_none() {
            match self.client.next(within)? {
                Some(reply) => self.hear(reply)?,
                None => return Ok(None),
            }
        }
        Ok(self.code)
    }

    fn hear(&mut self, reply: Reply) -> Result<()> {
        match reply {
            Reply::Exited { code } => self.code = Some(code),
            Reply::Error { code, message } => return Err(Error::Shim { code, message }),
            _ => return Err(unexpected()),
        }
        Ok(())
    }

    /// Sets the terminal's size in characters. Without a terminal, nothing.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        match &self.terminal {
            Some(terminal) => crate::tty::resize(terminal, width, height).what(|| "resize the terminal".to_owned()),
            None => Ok(()),
        }
    }

    /// A further handle on the terminal, which can resize it while the session is waited for.
    pub fn terminal(&self) -> Option<&File> {
        self.terminal.as_ref()
    }
}

/// Readable when the process has ended, for callers with an event loop.
impl AsRawFd for ExecSession {
    fn as_raw_fd(&self) -> RawFd {
        self.client.as_raw_fd()
    }
}
