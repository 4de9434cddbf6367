//! `/exec`: a command in a container. Its input, output and exit code are the client's to say and hear (`talk`).

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use canopus_api::{Status, Value};
use canopus_runtime::spec::ExecSpec;
use canopus_runtime::{ExecSession, tty};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::talk::{self, PROTOCOLS, STDERR, STDOUT, Said, Streams, Talk, exit_status, failed};
use super::upgrade::Upgrade;
use super::{Body, Context, query};
use crate::probes::exit_code;

/// Read from a command's output at once.
const CHUNK: usize = 32 << 10;

pub(super) async fn serve(
    context: &Arc<Context>,
    which: [&str; 3],
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let pairs = query(request.uri().query().unwrap_or(""));
    let args: Vec<String> = pairs.iter().filter(|(k, _)| k == "command").map(|(_, v)| v.clone()).collect();
    if args.is_empty() {
        return Err(Status::bad_request("you must specify at least 1 command"));
    }
    let streams = Streams::of(&pairs)?;
    let Streams { stdin, stdout, stderr, tty } = streams;
    let spec = ExecSpec { args, tty, stdin, stdout, stderr, ..ExecSpec::default() };
    let upgrade = Upgrade::of(&mut request, &PROTOCOLS)?;
    let instance = context.running(which).await?;
    let (protocol, shared) = (upgrade.protocol, context.clone());
    upgrade.answer(context, move |transport| async move {
        talk::hold(transport, protocol, streams, |talk| run(&shared, instance.id, spec, talk)).await;
    })
}

async fn run(context: &Context, id: String, spec: ExecSpec, talk: Talk) -> Option<Value> {
    let session = context.node.blocking(move |node| node.runtime.exec(&id, &spec)).await;
    match session {
        Ok(Ok(session)) => converse(session, talk).await,
        Ok(Err(error)) => Some(internal(&error.to_string())),
        Err(error) => Some(internal(&error.to_string())),
    }
}

fn internal(why: &str) -> Value {
    failed(&format!("error executing command in container: {why}"))
}

/// Moves bytes until the command has ended and its output is sent; `None` if the client went away first.
async fn converse(mut session: ExecSession, talk: Talk) -> Option<Value> {
    let Talk { mut said, say } = talk;
    let terminal = session.terminal().and_then(|t| t.try_clone().ok());
    let mut writer = session.stdin.take().map(|file| feed(file, terminal.is_some()));
    let mut pumps = tokio::task::JoinSet::new();
    for (channel, file) in [(STDOUT, session.stdout.take()), (STDERR, session.stderr.take())] {
        let Some(file) = file else { continue };
        let say = say.clone();
        match terminal {
            Some(_) => drop(pumps.spawn_blocking(move || pump_terminal(channel, file, &say))),
            None => drop(pumps.spawn(pump_out(channel, file, say))),
        }
    }
    drop(say);
    let listen = async {
        while let Some(said) = said.recv().await {
            match said {
                Said::Input(bytes) => {
                    if let Some(sender) = &writer
                        && sender.send(bytes).await.is_err()
                    {
                        writer = None;
                    }
                }
                Said::NoMoreInput => writer = None,
                Said::Size { width, height } => resize(terminal.as_ref(), width, height),
            }
        }
    };
    let finish = async {
        let code = exit_code(session).await;
        while pumps.join_next().await.is_some() {}
        code.map_or_else(|e| internal(&e.to_string()), exit_status)
    };
    tokio::select! {
        outcome = finish => Some(outcome),
        // The client is gone, which kills the command with the session.
        () = listen => None,
    }
}

pub(super) async fn pump_out(channel: u8, file: File, sender: mpsc::Sender<(u8, Bytes)>) {
    let Ok(mut pipe) = pipe::Receiver::from_file(file) else { return };
    let mut buffer = vec![0_u8; CHUNK];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        if sender.send((channel, Bytes::copy_from_slice(&buffer[..n]))).await.is_err() {
            return;
        }
    }
}

fn pump_terminal(channel: u8, mut file: File, sender: &mpsc::Sender<(u8, Bytes)>) {
    let mut buffer = vec![0_u8; CHUNK];
    // A terminal whose last process has ended reads as an error.
    while let Ok(n @ 1..) = file.read(&mut buffer) {
        if sender.blocking_send((channel, Bytes::copy_from_slice(&buffer[..n]))).is_err() {
            return;
        }
    }
}

/// Writes what comes through the channel, from which the sender can tell that nobody reads any more.
pub(super) fn feed(file: File, is_terminal: bool) -> mpsc::Sender<Bytes> {
    let (sender, mut parts) = mpsc::channel::<Bytes>(16);
    if is_terminal {
        tokio::task::spawn_blocking(move || {
            let mut file = file;
            while let Some(part) = parts.blocking_recv() {
                if file.write_all(&part).is_err() {
                    return;
                }
            }
        });
    } else {
        tokio::spawn(async move {
            let Ok(mut pipe) = pipe::Sender::from_file(file) else { return };
            while let Some(part) = parts.recv().await {
                if pipe.write_all(&part).await.is_err() {
                    return;
                }
            }
        });
    }
    sender
}

fn resize(terminal: Option<&File>, width: u16, height: u16) {
    let Some(terminal) = terminal else { return };
    if let Err(error) = tty::resize(terminal, width, height) {
        tracing::debug!(%error, "failed to resize a terminal");
    }
}
