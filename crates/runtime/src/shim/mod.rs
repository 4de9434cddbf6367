//! The shim: one small process per pod that holds its namespaces, starts its containers, is their
//! parent, logs what they print and remembers how they ended.
//!
//! Single-threaded around one `poll`, so that it can fork safely and costs little memory. It knows
//! nothing of images, Kubernetes or the agent, and answers any client that may open its socket.

mod container;
mod logs;
mod requests;
mod setup;
mod spawn;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{ForkResult, fork};

use crate::cgroups::Cgroups;
use crate::proto::{Event, Framer, Outgoing, Phase, Reply, Request, encode, listen};
use crate::state::{self, SandboxRecord, ShimRecord};
use container::Container;
use spawn::Child;

/// The pod outlives sessions, terminals and unhandled pipes.
const IGNORED: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGPIPE];
/// A client that lets more than this pile up unread is cut off.
const MAX_BACKLOG: usize = 4 << 20;
/// Read from a container's output at once.
const READ_SIZE: usize = 16 * 1024;

/// The program: `canopus-shim <sandbox directory>`. Returns, in the process that was started, once
/// the sandbox is ready; a forked child carries on. Failures go to standard error.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    let Some(dir) = args.into_iter().nth(1).map(PathBuf::from) else {
        eprintln!("usage: canopus-shim <sandbox directory>");
        return 2;
    };
    match daemonize(&dir) {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("{e}");
            1
        }
    }
}

/// Forks, and waits until the child is ready or has said why it cannot be.
fn daemonize(dir: &Path) -> io::Result<()> {
    let (mut ready, mut tell) = io::pipe()?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => {
            drop(tell);
            let mut answer = String::new();
            ready.read_to_string(&mut answer)?;
            match answer.as_str() {
                "ready" => Ok(()),
                "" => Err(io::Error::other("the shim died while it set the sandbox up")),
                failure => Err(io::Error::other(failure.to_owned())),
            }
        }
        ForkResult::Child => {
            drop(ready);
            let code = match Shim::set_up(dir) {
                Ok(mut shim) => {
                    let _ = tell.write_all(b"ready");
                    drop(tell);
                    shim.run();
                    0
                }
                Err(e) => {
                    let _ = tell.write_all(e.to_string().as_bytes());
                    1
                }
            };
            std::process::exit(code)
        }
    }
}

/// A client.
#[derive(Debug)]
struct Conn {
    socket: UnixStream,
    framer: Framer,
    out: Vec<Outgoing>,
    subscribed: bool,
}

/// A runtime child and who waits for it.
#[derive(Debug)]
struct Pending {
    child: Child,
    conn: u64,
    what: Work,
}

#[derive(Debug)]
enum Work {
    Start(String),
    Exec,
}

/// A process run by an exec session.
#[derive(Debug)]
struct Exec {
    pid: i32,
    conn: u64,
}

struct Shim {
    dir: PathBuf,
    listener: UnixListener,
    signals: SignalFd,
    cgroups: Cgroups,
    conns: BTreeMap<u64, Conn>,
    next_conn: u64,
    containers: Vec<Container>,
    pending: Vec<Pending>,
    execs: Vec<Exec>,
    /// Ended while a runtime child had yet to say what they were.
    strays: Vec<(i32, i32)>,
    init: Option<i32>,
    /// Asked by a signal to end when nothing runs.
    terminate: bool,
    /// Clients that wait for the end.
    shutdown: Vec<u64>,
    quit: bool,
}

/// What a file descriptor in the poll set is.
enum Token {
    Listener,
    Signals,
    Conn(u64),
    Output(usize, usize),
}

impl Shim {
    fn set_up(dir: &Path) -> io::Result<Self> {
        let record: SandboxRecord = state::read(&dir.join(state::SANDBOX_FILE)).map_err(io::Error::other)?;
        nix::unistd::setsid()?;
        std::env::set_current_dir("/")?;
        redirect_stdio(&dir.join("shim.log"))?;
        nix::sys::prctl::set_child_subreaper(true)?;
        // As hard to kill as the host allows; refused without CAP_SYS_RESOURCE.
        let _ = fs::write("/proc/self/oom_score_adj", "-998");
        for number in IGNORED {
            // SAFETY: ignoring a signal installs no handler.
            unsafe { signal(Signal::try_from(number)?, SigHandler::SigIgn) }?;
        }
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.add(Signal::SIGTERM);
        mask.thread_block()?;
        let init = setup::namespaces(dir, &record.spec)?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let cgroups = Cgroups::probe()?;
        fs::create_dir_all(dir.join(state::OCI_DIR))?;
        let own = ShimRecord::of_this_process(init)?;
        state::write(&dir.join(state::SHIM_FILE), &own).map_err(io::Error::other)?;
        let listener = listen(&dir.join(state::SOCKET))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            dir: dir.to_owned(),
            listener,
            signals,
            cgroups,
            conns: BTreeMap::new(),
            next_conn: 0,
            containers: Vec::new(),
            pending: Vec::new(),
            execs: Vec::new(),
            strays: Vec::new(),
            init,
            terminate: false,
            shutdown: Vec::new(),
            quit: false,
        })
    }

    fn run(&mut self) {
        let mut buffer = vec![0; READ_SIZE];
        while !self.quit {
            let (mut fds, tokens) = self.poll_set();
            // SAFETY: the pointer and length are those of a live vector.
            let n = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
            if n <= 0 {
                continue;
            }
            for (fd, token) in fds.iter().zip(&tokens).filter(|(fd, _)| fd.revents != 0) {
                match token {
                    Token::Output(container, stream) => {
                        if let Some(container) = self.containers.get_mut(*container) {
                            container.pump(*stream, &mut buffer);
                        }
                    }
                    Token::Signals => self.on_signal(&mut buffer),
                    Token::Conn(id) => self.on_conn(*id, fd.revents),
                    Token::Listener => self.accept(),
                }
            }
            self.finish_shutdown();
        }
    }

    fn poll_set(&self) -> (Vec<libc::pollfd>, Vec<Token>) {
        let mut fds = Vec::new();
        let mut tokens = Vec::new();
        let mut add = |fd: RawFd, events, token| {
            fds.push(libc::pollfd { fd, events, revents: 0 });
            tokens.push(token);
        };
        // Streams come first, while their indices hold.
        for (i, container) in self.containers.iter().enumerate() {
            for (j, stream) in container.streams.iter().enumerate() {
                if let Some(fd) = &stream.fd {
                    add(fd.as_raw_fd(), libc::POLLIN, Token::Output(i, j));
                }
            }
        }
        add(self.signals.as_raw_fd(), libc::POLLIN, Token::Signals);
        for (id, conn) in &self.conns {
            let out = if conn.out.is_empty() { 0 } else { libc::POLLOUT };
            add(conn.socket.as_raw_fd(), libc::POLLIN | out, Token::Conn(*id));
        }
        add(self.listener.as_raw_fd(), libc::POLLIN, Token::Listener);
        (fds, tokens)
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            if socket.set_nonblocking(true).is_ok() {
                let conn = Conn { socket, framer: Framer::default(), out: Vec::new(), subscribed: false };
                self.conns.insert(self.next_conn, conn);
                self.next_conn += 1;
            }
        }
    }

    fn on_conn(&mut self, id: u64, events: libc::c_short) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if events & libc::POLLOUT != 0 && !conn.flush() {
            return self.drop_conn(id);
        }
        if events & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) == 0 {
            return;
        }
        match conn.framer.read_from(&conn.socket) {
            Ok(true) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            _ => return self.drop_conn(id),
        }
        loop {
            let Some(conn) = self.conns.get_mut(&id) else { return };
            match conn.framer.take_frame::<serde_json::Value>() {
                Ok(Some(message)) => match serde_json::from_value::<Request>(message) {
                    Ok(request) => self.handle(id, request.op),
                    Err(e) => self.refuse(id, crate::proto::Code::Version, format!("request not understood: {e}")),
                },
                Ok(None) => return,
                Err(_) => return self.drop_conn(id),
            }
        }
    }

    /// Forgets a client, and kills what it was running with exec.
    fn drop_conn(&mut self, id: u64) {
        self.conns.remove(&id);
        for exec in self.execs.iter().filter(|e| e.conn == id) {
            // SAFETY: a child not waited for yet, so the number is still its own.
            unsafe { libc::kill(exec.pid, libc::SIGKILL) };
        }
    }

    fn reply(&mut self, id: u64, reply: &Reply, fds: Vec<OwnedFd>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let keep = match encode(reply, fds) {
            Ok(frame) => {
                conn.out.push(frame);
                conn.flush()
            }
            Err(_) => false,
        };
        if !keep {
            self.drop_conn(id);
        }
    }

    fn refuse(&mut self, id: u64, code: crate::proto::Code, message: impl Into<String>) {
        self.reply(id, &Reply::Error { code, message: message.into() }, Vec::new());
    }

    fn publish(&mut self, event: &Event) {
        let ids: Vec<u64> = self.conns.iter().filter(|(_, c)| c.subscribed).map(|(id, _)| *id).collect();
        for id in ids {
            self.reply(id, &Reply::Event(event.clone()), Vec::new());
        }
    }

    fn on_signal(&mut self, buffer: &mut [u8]) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            if info.ssi_signo == libc::SIGTERM as u32 {
                self.terminate = true;
            }
        }
        self.reap(buffer);
    }

    /// Waits for every child that has ended. Runtime children come first: they tell what others are.
    fn reap(&mut self, buffer: &mut [u8]) {
        loop {
            let mut status = 0;
            // SAFETY: waitpid writes one integer.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid <= 0 {
                break;
            }
            match self.pending.iter().position(|p| p.child.pid == pid) {
                Some(i) => {
                    let pending = self.pending.swap_remove(i);
                    self.settle(pending, status);
                }
                None => self.strays.push((pid, status)),
            }
        }
        for (pid, status) in std::mem::take(&mut self.strays) {
            if !self.ended(pid, status, buffer) && !self.pending.is_empty() {
                self.strays.push((pid, status));
            }
        }
    }

    /// Attributes the end of a process to what it was; false if it was nothing known.
    fn ended(&mut self, pid: i32, status: i32, buffer: &mut [u8]) -> bool {
        let running = |c: &&mut Container| c.phase == Phase::Running && c.pid == pid;
        if let Some(container) = self.containers.iter_mut().find(running) {
            container.ended(status, &self.cgroups, buffer);
            let id = container.start.id.clone();
            let _ = fs::remove_dir_all(self.dir.join(state::OCI_DIR).join(&id));
            self.publish_exit(&id);
            return true;
        }
        if let Some(i) = self.execs.iter().position(|e| e.pid == pid) {
            let exec = self.execs.swap_remove(i);
            let (code, _) = container::decode(status);
            self.reply(exec.conn, &Reply::Exited { code }, Vec::new());
            return true;
        }
        if self.init == Some(pid) {
            self.init = None;
        }
        false
    }

    fn publish_exit(&mut self, id: &str) {
        let exit = self.containers.iter().find(|c| c.start.id == id).and_then(|c| c.exit.clone());
        if let Some(exit) = exit {
            self.publish(&Event::Exited { id: id.to_owned(), exit });
        }
    }
}

impl Conn {
    /// Sends what can be sent; false if the client is to be dropped.
    fn flush(&mut self) -> bool {
        while let Some(frame) = self.out.first_mut() {
            match frame.write_to(&self.socket) {
                Ok(true) => drop(self.out.remove(0)),
                Ok(false) => break,
                Err(_) => return false,
            }
        }
        self.out.iter().map(Outgoing::remaining).sum::<usize>() <= MAX_BACKLOG
    }
}

/// Standard input and output lead nowhere, errors (panics) into a file.
fn redirect_stdio(log: &Path) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let errors = OpenOptions::new().create(true).append(true).open(log)?;
    for (fd, target) in [(&null, 0), (&null, 1), (&errors, 2)] {
        // SAFETY: dup2 of open descriptors onto the standard ones.
        if unsafe { libc::dup2(fd.as_raw_fd(), target) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
