//! The runtime child: libcontainer forks, enters namespaces and changes global state, so it works
//! only in a fresh process with one thread, which tells the shim the outcome and exits.
//!
//! The shim passes a socket for the report as descriptor 3 and standard streams as 4, 5 and 6.
//! The container's process, orphaned when this one exits, becomes a child of the shim.

mod confine;
mod console;
mod cwd;
mod executor;

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;

use crate::cgroups::Cgroups;
use crate::proto::{Code, Outcome, send};
use crate::verb::{CHILD_NAME, FIRST_FD, Verb};
use confine::Confinement;
use console::Console;
use executor::CommandExecutor;

/// To be called first in `main`, before any thread exists. If this process was started as a
/// runtime child, does its work and returns the exit code; otherwise returns `None` at once.
pub fn dispatch_child() -> Option<i32> {
    let mut args = std::env::args_os();
    if args.next()? != CHILD_NAME {
        return None;
    }
    let args: Vec<OsString> = args.collect();
    Some(run(&args))
}

struct Failure(Code, String);

fn failed(what: &str) -> impl FnOnce(io::Error) -> Failure + '_ {
    move |e| Failure(Code::Start, format!("failed to {what}: {e}"))
}

fn run(args: &[OsString]) -> i32 {
    // SAFETY: the shim passes this descriptor to us for this use.
    let report = unsafe { OwnedFd::from_raw_fd(FIRST_FD) };
    let (outcome, fds) = match work(args) {
        Ok((pid, terminal)) => (Outcome::Running { pid, fd: terminal.is_some() }, terminal.into_iter().collect()),
        Err(Failure(code, message)) => (Outcome::Failed { code, message }, Vec::new()),
    };
    match send(&report, &outcome, fds) {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("failed to report {outcome:?}: {e}");
            1
        }
    }
}

fn work(args: &[OsString]) -> Result<(i32, Option<OwnedFd>), Failure> {
    let [verb, root, id, cgroup, target] = args else {
        return Err(Failure(Code::Version, "wrong arguments for the runtime child".to_owned()));
    };
    let verb = Verb::ALL.into_iter().find(|v| *verb == *v.name());
    let (Some(verb), Some(id), Some(cgroup)) = (verb, id.to_str(), cgroup.to_str()) else {
        return Err(Failure(Code::Version, "unknown task for the runtime child".to_owned()));
    };
    let (root, target) = (Path::new(root), PathBuf::from(target));
    set_cloexec();
    // libcontainer moves itself into the v1 groups only.
    let cgroups = Cgroups::probe().map_err(failed("find the cgroup hierarchies"))?;
    let own = std::process::id() as i32;
    cgroups.join_unified_if_hybrid(cgroup, own).map_err(failed("enter the cgroup"))?;
    let (mut errors, tell) = io::pipe().map_err(failed("make a pipe"))?;
    let confinement = match verb {
        Verb::Start | Verb::StartTty => None,
        Verb::Exec | Verb::ExecTty => Confinement::of_exec(&target).map_err(failed("prepare the seccomp profile"))?,
    };
    let executor = CommandExecutor::new(tell.into(), confinement);
    let console = match verb.tty() {
        true => Some(Console::new(root, id).map_err(failed("prepare a terminal"))?),
        false => None,
    };
    let mut builder = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_executor(executor.clone())
        .with_console_socket(console.as_ref().map(Console::path))
        .with_root_path(root)
        .map_err(|e| Failure(Code::Start, error_chain(&e)))?;
    if !verb.tty() {
        // SAFETY: the shim passes these descriptors to us for this use.
        let [stdin, stdout, stderr] = [1, 2, 3].map(|n| unsafe { OwnedFd::from_raw_fd(FIRST_FD + n) });
        builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
    }
    let started = match verb {
        Verb::Start | Verb::StartTty => start(builder, &target),
        Verb::Exec | Verb::ExecTty => exec(builder, &target),
    };
    // The last writer in this process: the builder's copies went with it.
    drop(executor);
    let mut said = String::new();
    errors.read_to_string(&mut said).map_err(failed("learn what became of the command"))?;
    match (said.as_str(), started) {
        ("", Ok(pid)) => {
            let terminal = console.map(Console::receive).transpose().map_err(failed("receive the terminal"))?;
            Ok((pid, terminal))
        }
        ("", Err(e)) => Err(Failure(Code::Start, e)),
        (said, _) => Err(Failure(Code::Exec, said.to_owned())),
    }
}

/// Creates the container and lets its command run.
fn start(builder: ContainerBuilder, bundle: &Path) -> Result<i32, String> {
    cwd::create(bundle).map_err(|e| format!("failed to create the working directory: {e}"))?;
    let builder = builder.as_init(bundle).with_systemd(false).with_detach(true).as_sibling(false);
    let mut container = builder.build().map_err(|e| error_chain(&e))?;
    container.start().map_err(|e| error_chain(&e))?;
    container.pid().map(|p| p.as_raw()).ok_or_else(|| "the container has no process".to_owned())
}

fn exec(builder: ContainerBuilder, process: &Path) -> Result<i32, String> {
    let builder = builder.as_tenant().with_process(Some(process)).with_detach(true).as_sibling(false);
    let done = builder.build();
    let _ = std::fs::remove_file(process);
    done.map(|pid| pid.as_raw()).map_err(|e| error_chain(&e))
}

/// An error with its causes; libcontainer's say little by themselves.
fn error_chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        let next = e.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = e.source();
    }
    text
}

/// The descriptors handed over are ours, not the container's.
fn set_cloexec() {
    for fd in FIRST_FD..FIRST_FD + 4 {
        // SAFETY: setting a flag; a number that is not open is refused without harm.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}
