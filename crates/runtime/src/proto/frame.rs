//! Frames: four bytes of length, little-endian, then JSON. Descriptors ride on a frame's first byte.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// No frame is longer.
pub const MAX_FRAME: usize = 1 << 20;
/// No frame carries more descriptors, and no peer may leave more lying.
const MAX_FDS: usize = 4;

/// A frame on its way out.
#[derive(Debug)]
pub struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

/// Makes a frame of `message`.
pub fn encode(message: &impl Serialize, fds: Vec<OwnedFd>) -> io::Result<Outgoing> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > MAX_FRAME || fds.len() > MAX_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message too large"));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(Outgoing { bytes, sent: 0, fds })
}

impl Outgoing {
    /// Bytes still to be sent.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Sends as much as the socket takes; true when all is sent.
    pub fn write_to(&mut self, socket: &impl AsRawFd) -> io::Result<bool> {
        while self.remaining() > 0 {
            let raw: Vec<RawFd> = self.fds.iter().map(AsRawFd::as_raw_fd).collect();
            let rights = [ControlMessage::ScmRights(&raw)];
            let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
            let data = [IoSlice::new(&self.bytes[self.sent..])];
            match sendmsg::<()>(socket.as_raw_fd(), &data, control, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(n) => {
                    self.sent += n;
                    self.fds.clear();
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }
}

/// Collects what arrives until a frame is complete.
#[derive(Debug, Default)]
pub struct Framer {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Framer {
    /// Reads once. `Ok(false)` at the end of the stream; a time-out or `EAGAIN` is an error.
    pub fn read_from(&mut self, socket: &impl AsRawFd) -> io::Result<bool> {
        let mut chunk = [0u8; 4096];
        let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
        let mut data = [IoSliceMut::new(&mut chunk)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut control), flags)?;
        for item in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = item {
                // SAFETY: the kernel has just made these descriptors for us alone.
                self.fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let n = message.bytes;
        self.bytes.extend_from_slice(&chunk[..n]);
        match self.fds.len() <= 2 * MAX_FDS {
            true => Ok(n > 0),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors")),
        }
    }

    /// The next whole frame, if there is one.
    pub fn take_frame<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(head) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
        }
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        let parsed = serde_json::from_slice(&self.bytes[4..4 + length]);
        self.bytes.drain(..4 + length);
        if self.bytes.is_empty() {
            // A connection that waits for events keeps no buffer.
            self.bytes = Vec::new();
        }
        Ok(Some(parsed?))
    }

    /// The oldest descriptor received and not taken yet.
    pub fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fds.pop_front()
    }
}

/// Sends one frame on a blocking socket.
pub fn send(socket: &impl AsRawFd, message: &impl Serialize, fds: Vec<OwnedFd>) -> io::Result<()> {
    match encode(message, fds)?.write_to(socket)? {
        true => Ok(()),
        false => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Waits for one frame on a blocking socket; the socket's time-out bounds each wait.
pub fn recv<T: DeserializeOwned>(socket: &impl AsRawFd, framer: &mut Framer) -> io::Result<T> {
    loop {
        if let Some(message) = framer.take_frame()? {
            return Ok(message);
        }
        match framer.read_from(socket) {
            Ok(true) => {}
            Ok(false) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(e) => return Err(e),
        }
    }
}

/// A name for a socket whose path may be longer than an address holds: through its directory.
fn short(path: &Path) -> io::Result<(File, PathBuf)> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a socket path"));
    };
    let dir = File::open(dir)?;
    let through = PathBuf::from(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd())).join(name);
    Ok((dir, through))
}

pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_dir, through) = short(path)?;
    UnixStream::connect(through)
}

pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let (_dir, through) = short(path)?;
    UnixListener::bind(through)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn frames_and_descriptors_arrive_in_order() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(&a, &"one", vec![writer.into()]).unwrap();
        send(&a, &vec!["x"; 3000], vec![]).unwrap();
        let mut framer = Framer::default();
        assert_eq!(recv::<String>(&b, &mut framer).unwrap(), "one");
        assert_eq!(recv::<Vec<String>>(&b, &mut framer).unwrap().len(), 3000);
        File::from(framer.take_fd().unwrap()).write_all(b"hi").unwrap();
        assert!(framer.take_fd().is_none());
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hi");
        drop(a);
        assert_eq!(recv::<String>(&b, &mut framer).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn nonsense_is_an_error() {
        for bytes in [&[0xff, 0xff, 0xff, 0xff][..], b"\x02\0\0\0{]"] {
            let (mut a, b) = UnixStream::pair().unwrap();
            a.write_all(bytes).unwrap();
            assert!(recv::<String>(&b, &mut Framer::default()).is_err());
        }
    }

    #[test]
    fn long_paths_work() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(150));
        std::fs::create_dir(&deep).unwrap();
        let listener = listen(&deep.join("sock")).unwrap();
        connect(&deep.join("sock")).unwrap();
        listener.accept().unwrap();
    }
}
