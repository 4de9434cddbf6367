//! Joining a running container's own input and output.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use super::Runtime;
use crate::client::QUICK;
use crate::error::{Context as _, Result};
use crate::proto::Op;

/// Copies of a container's streams from the moment of attaching. A reader that falls behind by
/// more than a pipe holds is dropped: its stream ends.
#[derive(Debug)]
pub struct AttachSession {
    /// `None` if the container has no open input.
    pub stdin: Option<File>,
    pub stdout: Option<File>,
    pub stderr: Option<File>,
}

/// What a reader may be behind by.
const PIPE_SIZE: libc::c_int = 1 << 20;

impl Runtime {
    /// Attaches to a running container. With a terminal there is no separate error stream.
    pub fn attach(&self, id: &str, stdin: bool, stdout: bool, stderr: bool) -> Result<AttachSession> {
        let (sandbox, record) = self.container(id)?;
        self.live_shim(&sandbox)?;
        let stderr = stderr && !record.spec.tty;
        let (mut theirs, mut files): (Vec<OwnedFd>, Vec<Option<File>>) = (Vec::new(), Vec::new());
        for wanted in [stdout, stderr] {
            files.push(match wanted {
                false => None,
                true => {
                    let (reader, writer) = io::pipe().what(|| "make a pipe".to_owned())?;
                    widen(&writer);
                    theirs.push(writer.into());
                    Some(File::from(OwnedFd::from(reader)))
                }
            });
        }
        let mut client = self.client(&sandbox)?;
        client.ask(Op::Attach { id: id.to_owned(), stdin, stdout, stderr }, theirs, QUICK)?;
        let stderr = files.pop().flatten();
        Ok(AttachSession { stdin: client.take_file(), stdout: files.pop().flatten(), stderr })
    }

    /// Ends a container's input, once no attached client holds it either.
    pub fn close_stdin(&self, id: &str) -> Result<()> {
        let (sandbox, _) = self.container(id)?;
        self.live_shim(&sandbox)?;
        self.client(&sandbox)?.ask(Op::CloseStdin { id: id.to_owned() }, Vec::new(), QUICK).map(|_| ())
    }

    /// Sets the size of a container's terminal in characters.
    pub fn resize(&self, id: &str, width: u16, height: u16) -> Result<()> {
        let (sandbox, _) = self.container(id)?;
        self.live_shim(&sandbox)?;
        self.client(&sandbox)?.ask(Op::Resize { id: id.to_owned(), width, height }, Vec::new(), QUICK).map(|_| ())
    }
}

fn widen(pipe: &io::PipeWriter) {
    use std::os::fd::AsRawFd;
    // SAFETY: changes the capacity of a pipe that is open; refusal leaves the usual one.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_SIZE) };
}
