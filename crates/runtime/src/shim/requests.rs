//! What clients ask of the shim.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use super::container::Container;
use super::logs::now;
use super::spawn::spawn;
use super::{Exec, Pending, Shim, Work};
use crate::proto::{self, Code, Event, Op, Outcome, Phase, Reply, Status, VERSION};
use crate::state;
use crate::verb::Verb;

/// Why a request fails.
struct Refusal(Code, String);

impl From<io::Error> for Refusal {
    fn from(e: io::Error) -> Self {
        Self(Code::Internal, e.to_string())
    }
}

type Answer = Result<Option<(Reply, Vec<OwnedFd>)>, Refusal>;

fn done() -> Answer {
    Ok(Some((Reply::Done, Vec::new())))
}

impl Shim {
    /// Answers a request, at once or when its runtime child has reported.
    pub(super) fn handle(&mut self, conn: u64, op: Op) {
        let answer = match op {
            Op::Status => self.status(),
            Op::Start(start) => self.start(conn, start),
            Op::Kill { id, signal, all } => self.kill(&id, signal, all),
            Op::Delete { id } => self.delete(&id),
            Op::Exec(exec) => self.exec(conn, &exec),
            Op::Log { id, rotate } => self.log(&id, rotate),
            Op::Attach { id, stdin, stdout, stderr } => self.attach(conn, &id, stdin, stdout, stderr),
            Op::CloseStdin { id } => self.find(&id).map(|c| c.stdin = None).and_then(|()| done()),
            Op::Resize { id, width, height } => self.resize(&id, width, height),
            Op::Subscribe => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.subscribed = true;
                }
                done()
            }
            Op::Shutdown => self.shutdown(conn),
        };
        match answer {
            Ok(None) => {}
            Ok(Some((reply, fds))) => self.reply(conn, &reply, fds),
            Err(Refusal(code, message)) => self.refuse(conn, code, message),
        }
    }

    fn find(&mut self, id: &str) -> Result<&mut Container, Refusal> {
        let found = self.containers.iter_mut().find(|c| c.start.id == id);
        found.ok_or_else(|| Refusal(Code::NotFound, format!("no such container: {id}")))
    }

    fn running(&mut self, id: &str) -> Result<&mut Container, Refusal> {
        let container = self.find(id)?;
        match container.phase {
            Phase::Running => Ok(container),
            phase => Err(Refusal(Code::State, format!("container {id} is not running but {phase:?}").to_lowercase())),
        }
    }

    fn status(&self) -> Answer {
        let containers = self.containers.iter().map(Container::live).collect();
        let status = Status { version: VERSION, pid: std::process::id() as i32, containers };
        Ok(Some((Reply::Status(status), Vec::new())))
    }

    fn start(&mut self, conn: u64, start: proto::Start) -> Answer {
        if self.containers.iter().any(|c| c.start.id == start.id) {
            return Err(Refusal(Code::State, format!("container {} was started before", start.id)));
        }
        let mut container = Container::new(start)?;
        let start = &container.start;
        let stdio = if start.tty { Vec::new() } else { container_stdio(start.stdin)? };
        let root = self.dir.join(state::OCI_DIR);
        let verb = if start.tty { Verb::StartTty } else { Verb::Start };
        let args = [
            OsStr::new(verb.name()),
            root.as_os_str(),
            OsStr::new(&start.id),
            OsStr::new(&start.cgroup),
            start.bundle.as_os_str(),
        ];
        let child = {
            let theirs: Vec<OwnedFd> = stdio.iter().map(|(t, _)| t.try_clone()).collect::<io::Result<_>>()?;
            spawn(&start.child, &args, &theirs)?
        };
        let work = Work::Start(start.id.clone());
        let mut ours = stdio.into_iter().map(|(_, ours)| ours);
        container.stdin = ours.next().flatten();
        for (fd, name) in ours.flatten().zip(["stdout", "stderr"]) {
            container.add_stream(fd, name)?;
        }
        self.containers.push(container);
        self.pending.push(Pending { child, conn, what: work });
        Ok(None)
    }

    fn exec(&mut self, conn: u64, exec: &proto::Exec) -> Answer {
        let mut stdio = Vec::new();
        if !exec.tty {
            for wanted in [exec.stdin, exec.stdout, exec.stderr] {
                stdio.push(if wanted { self.take_fd(conn)? } else { null()? });
            }
        }
        let cgroup = self.running(&exec.id)?.start.cgroup.clone();
        let root = self.dir.join(state::OCI_DIR);
        let verb = if exec.tty { Verb::ExecTty } else { Verb::Exec };
        let args = [
            OsStr::new(verb.name()),
            root.as_os_str(),
            OsStr::new(&exec.id),
            OsStr::new(&cgroup),
            exec.process.as_os_str(),
        ];
        let child = spawn(&exec.child, &args, &stdio)?;
        self.pending.push(Pending { child, conn, what: Work::Exec });
        Ok(None)
    }

    /// A runtime child has ended.
    pub(super) fn settle(&mut self, pending: Pending, status: i32) {
        let (outcome, fd) = pending.child.outcome(status);
        match pending.what {
            Work::Start(id) => self.settle_start(pending.conn, &id, outcome, fd),
            Work::Exec => self.settle_exec(pending.conn, outcome, fd),
        }
    }

    fn settle_start(&mut self, conn: u64, id: &str, outcome: Outcome, fd: Option<OwnedFd>) {
        let Some(i) = self.containers.iter().position(|c| c.start.id == id) else { return };
        match outcome {
            Outcome::Running { pid, .. } => {
                let container = &mut self.containers[i];
                container.phase = Phase::Running;
                container.pid = pid;
                container.started_at = now();
                if let Some(terminal) = fd {
                    // Fails only for want of descriptors; the container then runs without a log.
                    let _ = container.set_terminal(terminal);
                }
                self.reply(conn, &Reply::Started { pid, fd: false }, Vec::new());
                self.publish(&Event::Started { id: id.to_owned(), pid });
            }
            Outcome::Failed { code, message } => {
                self.containers[i].failed(&message, &self.cgroups);
                let _ = std::fs::remove_dir_all(self.dir.join(state::OCI_DIR).join(id));
                self.refuse(conn, code, message);
                self.publish_exit(id);
            }
        }
    }

    fn settle_exec(&mut self, conn: u64, outcome: Outcome, fd: Option<OwnedFd>) {
        match outcome {
            Outcome::Running { pid, .. } => {
                self.execs.push(Exec { pid, conn });
                let reply = Reply::Started { pid, fd: fd.is_some() };
                match self.conns.contains_key(&conn) {
                    true => self.reply(conn, &reply, fd.into_iter().collect()),
                    // The client went away while the process started.
                    false => self.drop_conn(conn),
                }
            }
            Outcome::Failed { code, message } => self.refuse(conn, code, message),
        }
    }

    fn kill(&mut self, id: &str, signal: i32, all: bool) -> Answer {
        let container = self.find(id)?;
        let (phase, pid, cgroup) = (container.phase, container.pid, container.start.cgroup.clone());
        match (phase, all) {
            (Phase::Running, false) => send_signal(pid, signal)?,
            (Phase::Running, true) if signal != libc::SIGKILL => {
                self.cgroups.pids(&cgroup).into_iter().for_each(|p| drop(send_signal(p, signal)));
            }
            (Phase::Running | Phase::Starting, true) => self.kill_wholly(id, &cgroup),
            _ => return Err(Refusal(Code::State, format!("container {id} is not running"))),
        }
        done()
    }

    fn kill_wholly(&self, id: &str, cgroup: &str) {
        for pending in self.pending.iter().filter(|p| matches!(&p.what, Work::Start(of) if of == id)) {
            let _ = send_signal(pending.child.pid, libc::SIGKILL);
        }
        self.cgroups.kill(cgroup);
    }

    /// The caller removes the cgroup, which may have to wait for processes to vanish.
    fn delete(&mut self, id: &str) -> Answer {
        if self.find(id)?.phase != Phase::Exited {
            return Err(Refusal(Code::State, format!("container {id} is still running")));
        }
        self.containers.retain(|c| c.start.id != id);
        done()
    }

    fn log(&mut self, id: &str, rotate: bool) -> Answer {
        let container = self.find(id)?;
        if let Some(log) = &mut container.log {
            if rotate { log.rotate() } else { log.reopen() }?;
        }
        done()
    }

    fn attach(&mut self, conn: u64, id: &str, stdin: bool, stdout: bool, stderr: bool) -> Answer {
        let mut outputs = Vec::new();
        for name in [(stdout, "stdout"), (stderr, "stderr")].into_iter().filter(|(w, _)| *w).map(|(_, n)| n) {
            outputs.push((name, self.take_fd(conn)?));
        }
        let container = self.running(id)?;
        for (name, fd) in outputs {
            container.watch(name, fd)?;
        }
        let input = if stdin { container.input().transpose()? } else { None };
        if stdin && container.start.stdin_once {
            // The client's end is now the only one: when it goes, the container sees end of file.
            container.stdin = None;
        }
        Ok(Some((Reply::Done, input.into_iter().collect())))
    }

    fn take_fd(&mut self, conn: u64) -> Result<OwnedFd, Refusal> {
        let fd = self.conns.get_mut(&conn).and_then(|c| c.framer.take_fd());
        fd.ok_or_else(|| Refusal(Code::Version, "a file descriptor is missing".to_owned()))
    }

    fn resize(&mut self, id: &str, width: u16, height: u16) -> Answer {
        if let Some(terminal) = &self.running(id)?.terminal {
            crate::tty::resize(terminal, width, height)?;
        }
        done()
    }

    /// Kills everything; the answer comes from [`Shim::finish_shutdown`].
    fn shutdown(&mut self, conn: u64) -> Answer {
        for container in self.containers.iter().filter(|c| c.phase != Phase::Exited) {
            self.kill_wholly(&container.start.id, &container.start.cgroup);
        }
        self.shutdown.push(conn);
        Ok(None)
    }

    /// Once nothing runs: tells who asked and quits.
    pub(super) fn finish_shutdown(&mut self) {
        let busy = !self.pending.is_empty() || self.containers.iter().any(|c| c.phase != Phase::Exited);
        if busy || (self.shutdown.is_empty() && !self.terminate) {
            return;
        }
        for conn in std::mem::take(&mut self.shutdown) {
            self.reply(conn, &Reply::Done, Vec::new());
        }
        self.quit = true;
    }
}

fn send_signal(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes plain integers.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Pairs of a container's end and ours, for input, output and error.
fn container_stdio(stdin: bool) -> io::Result<Vec<(OwnedFd, Option<OwnedFd>)>> {
    let input = match stdin {
        true => io::pipe().map(|(theirs, ours)| (theirs.into(), Some(ours.into())))?,
        false => (null()?, None),
    };
    let mut list = vec![input];
    for _ in 0..2 {
        let (ours, theirs) = io::pipe()?;
        list.push((theirs.into(), Some(ours.into())));
    }
    Ok(list)
}

fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}
