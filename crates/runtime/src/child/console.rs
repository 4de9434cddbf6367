//! Receiving a container's terminal from libcontainer, which sends it to a socket it connects to.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::proto::{Framer, listen};

#[derive(Debug)]
pub(super) struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    /// Listens beside libcontainer's directories; several sessions of a container may begin at once.
    pub(super) fn new(root: &Path, id: &str) -> io::Result<Self> {
        let path = root.join(format!("{id}-console-{}.sock", std::process::id()));
        let _ = fs::remove_file(&path);
        Ok(Self { listener: listen(&path)?, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The terminal; it was sent before the command ran.
    pub(super) fn receive(self) -> io::Result<OwnedFd> {
        self.listener.set_nonblocking(true)?;
        let (socket, _) = self.listener.accept()?;
        let mut framer = Framer::default();
        framer.read_from(&socket)?;
        framer.take_fd().ok_or_else(|| io::Error::other("no terminal was sent"))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
