//! What agent and shim say to each other over a Unix socket: length-prefixed JSON, with file
//! descriptors beside it where a request hands some over.
//!
//! Old shims outlive upgrades of the agent, so this format only grows: fields get defaults, new
//! requests are refused by old shims with [`Code::Version`], nothing changes its meaning.

mod frame;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::spec::LogConfig;

pub use frame::{Framer, MAX_FRAME, Outgoing, connect, encode, listen, recv, send};

/// Of the requests known here.
pub const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    pub v: u32,
    pub op: Op,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Op {
    /// → [`Reply::Status`].
    Status,
    /// Runs a prepared bundle. → [`Reply::Started`] once its command has been executed.
    Start(Start),
    /// → [`Reply::Done`].
    Kill { id: String, signal: i32, all: bool },
    /// Forgets a container that doesn't run. → [`Reply::Done`].
    Delete { id: String },
    /// With up to three descriptors: standard input, output, error, as the flags say.
    /// → [`Reply::Started`] (and the terminal, if asked for), then [`Reply::Exited`]. Closing the
    /// connection kills the process.
    Exec(Exec),
    /// → [`Reply::Done`]. Reopens a log file that was moved away, or moves it away first.
    Log { id: String, rotate: bool },
    /// With a descriptor each for output and error, as the flags say, which get a copy of what the
    /// container writes from now on. → [`Reply::Done`] with one for its standard input, if asked.
    Attach { id: String, stdin: bool, stdout: bool, stderr: bool },
    /// Closes the shim's end of a container's standard input. → [`Reply::Done`].
    CloseStdin { id: String },
    /// Of a container's terminal. → [`Reply::Done`].
    Resize { id: String, width: u16, height: u16 },
    /// → [`Reply::Done`], then a [`Reply::Event`] now and then.
    Subscribe,
    /// Kills what runs, gives the namespaces up and exits. → [`Reply::Done`] before the last step.
    Shutdown,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    pub id: String,
    /// The container's directory, which holds `config.json`.
    pub bundle: PathBuf,
    /// Executable that calls [`crate::dispatch_child`].
    pub child: PathBuf,
    pub cgroup: String,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    /// Its processes don't die with the first one by themselves: it shares a process namespace.
    pub shared_pid: bool,
    pub log: Option<LogConfig>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exec {
    pub id: String,
    pub child: PathBuf,
    /// OCI process description, removed once read.
    pub process: PathBuf,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Reply {
    Done,
    Status(Status),
    /// `fd`: a terminal comes along.
    Started {
        pid: i32,
        fd: bool,
    },
    /// Of an exec session.
    Exited {
        code: i32,
    },
    Event(Event),
    Error {
        code: Code,
        message: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Code {
    NotFound,
    /// The container is in a state in which this cannot be done.
    State,
    /// The command could not be executed: missing, not executable, of another architecture.
    Exec,
    /// Anything else that kept a process from starting.
    Start,
    /// The request is malformed or newer than the shim.
    Version,
    Internal,
}

/// What a shim knows that isn't in files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub version: u32,
    pub pid: i32,
    pub containers: Vec<Live>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    pub id: String,
    pub phase: Phase,
    /// In the host's process namespace; 0 unless running.
    pub pid: i32,
    /// Nanoseconds since 1970; 0 if never.
    pub started_at: u64,
    pub exit: Option<Exit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    Starting,
    Running,
    Exited,
}

/// How a container ended; also the contents of its `exit.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Exit {
    /// 128 + n if signal n ended it; 128 if it never started.
    pub code: i32,
    pub signal: Option<i32>,
    /// The OOM killer struck in the container, not necessarily its first process.
    pub oom_killed: bool,
    /// Nanoseconds since 1970.
    pub started_at: u64,
    pub finished_at: u64,
    /// Why it never started.
    pub message: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    Started { id: String, pid: i32 },
    Exited { id: String, exit: Exit },
}

/// What the runtime child reports to the shim.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// `fd`: a terminal comes along.
    Running {
        pid: i32,
        fd: bool,
    },
    Failed {
        code: Code,
        message: String,
    },
}
