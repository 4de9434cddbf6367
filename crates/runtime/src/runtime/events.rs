//! One thread that hears from all shims.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::client::Client;
use crate::error::{Context, Result};
use crate::proto::{Event, Exit, Framer, Reply};

/// Something that happened to a container or a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuntimeEvent {
    Started {
        sandbox: String,
        container: String,
        pid: i32,
    },
    Exited {
        sandbox: String,
        container: String,
        exit: Exit,
    },
    /// The sandbox was stopped, or its shim died.
    SandboxStopped {
        sandbox: String,
    },
}

#[derive(Debug, Default)]
struct Shared {
    /// Connections the thread has yet to take.
    new: Vec<(String, UnixStream, Framer)>,
    listeners: Vec<Sender<RuntimeEvent>>,
    closing: bool,
}

#[derive(Debug)]
pub(super) struct Events {
    shared: Arc<Mutex<Shared>>,
    wake: UnixStream,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Events {
    pub(super) fn new() -> Result<Self> {
        let begin = || -> io::Result<Self> {
            let (wake, woken) = UnixStream::pair()?;
            wake.set_nonblocking(true)?;
            let shared = Arc::new(Mutex::new(Shared::default()));
            let theirs = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("runtime-events".to_owned());
            thread.spawn(move || run(&theirs, &woken))?;
            Ok(Self { shared, wake })
        };
        begin().what(|| "start listening to shims".to_owned())
    }

    pub(super) fn subscribe(&self) -> Receiver<RuntimeEvent> {
        let (sender, receiver) = channel();
        lock(&self.shared).listeners.push(sender);
        receiver
    }

    /// Takes over a connection that has subscribed.
    pub(super) fn add(&self, sandbox: &str, client: Client) {
        let (socket, framer) = client.into_parts();
        lock(&self.shared).new.push((sandbox.to_owned(), socket, framer));
        self.wake();
    }

    fn wake(&self) {
        // A full pipe wakes the thread just as well.
        let _ = (&self.wake).write(&[0]);
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        lock(&self.shared).closing = true;
        self.wake();
    }
}

fn run(shared: &Mutex<Shared>, mut woken: &UnixStream) {
    let mut conns: BTreeMap<String, (UnixStream, Framer)> = BTreeMap::new();
    loop {
        {
            let mut shared = lock(shared);
            if shared.closing {
                return;
            }
            for (id, socket, mut framer) in std::mem::take(&mut shared.new) {
                // What came right behind the answer to the subscription.
                pass_on(&id, &mut framer, &mut shared.listeners);
                conns.insert(id, (socket, framer));
            }
        }
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = vec![entry(woken.as_raw_fd())];
        fds.extend(conns.values().map(|(socket, _)| entry(socket.as_raw_fd())));
        // SAFETY: the pointer and length are those of a live vector.
        if unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) } <= 0 {
            continue;
        }
        if fds[0].revents != 0 {
            let _ = woken.read(&mut [0; 64]);
        }
        let ready = conns.keys().zip(&fds[1..]).filter(|(_, fd)| fd.revents != 0);
        let ready: Vec<String> = ready.map(|(id, _)| id.clone()).collect();
        for id in ready {
            let Some((socket, framer)) = conns.get_mut(&id) else { continue };
            let alive = framer.read_from(socket).unwrap_or(false);
            let listeners = &mut lock(shared).listeners;
            if !pass_on(&id, framer, listeners) || !alive {
                conns.remove(&id);
                tell(listeners, &RuntimeEvent::SandboxStopped { sandbox: id });
            }
        }
    }
}

/// Passes complete messages on; false if the shim talks nonsense.
fn pass_on(sandbox: &str, framer: &mut Framer, listeners: &mut Vec<Sender<RuntimeEvent>>) -> bool {
    loop {
        let event = match framer.take_frame::<Reply>() {
            Ok(Some(Reply::Event(event))) => event,
            Ok(Some(_)) => continue,
            Ok(None) => return true,
            Err(_) => return false,
        };
        let sandbox = sandbox.to_owned();
        tell(
            listeners,
            &match event {
                Event::Started { id, pid } => RuntimeEvent::Started { sandbox, container: id, pid },
                Event::Exited { id, exit } => RuntimeEvent::Exited { sandbox, container: id, exit },
            },
        );
    }
}

fn tell(listeners: &mut Vec<Sender<RuntimeEvent>>, event: &RuntimeEvent) {
    listeners.retain(|l| l.send(event.clone()).is_ok());
}
