//! `kubectl exec`.

use super::session::{Session, with_query};
use super::websocket::{self, CLOSE, ERROR, RESIZE, STDERR, STDIN, STDOUT, Socket};
use super::{pods, terminal};
use crate::cli::output;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use canopus_api::{Gvr, Status, Target, Value, json, value};
use canopus_client::remote::encode;
use clap::Args;
use futures::{SinkExt, StreamExt};
use std::io::Write;
use std::process::ExitCode;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

/// Run a command in a container
#[derive(Args)]
#[command(after_help = "\
Examples:
  canopus kubectl exec hello -- date
  canopus kubectl exec -it deployment/hello -c web -- sh
  tar c dir | canopus kubectl exec -i hello -- tar x -C /tmp

The exit status is the command's.")]
pub struct ExecArgs {
    /// A pod's name, or TYPE/NAME of something that has pods
    #[arg(value_name = "POD|TYPE/NAME")]
    pod: String,
    /// The container
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// The command gets a terminal
    #[arg(short, long)]
    tty: bool,
    /// No word about a container chosen for you
    #[arg(short, long)]
    quiet: bool,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

pub async fn run(session: &Session, args: &ExecArgs) -> Result<ExitCode> {
    let pod = pods::find(session, &args.pod).await?;
    let metadata = &pod["metadata"];
    if let phase @ ("Succeeded" | "Failed") = pod["status"]["phase"].str() {
        bail!("cannot exec into a container in a completed pod; current phase is {phase}");
    }
    let (container, note) = pods::container(&pod, args.container.as_deref())?;
    if let Some(note) = note.filter(|_| !args.quiet) {
        eprintln!("{note}");
    }
    let pods = Gvr::new("", "v1", "pods");
    let target = Target::new(&pods, metadata["namespace"].str(), metadata["name"].str()).subresource("exec");
    let socket = websocket::connect(session, &path(&target, &container, args)).await?;
    let raw = if args.tty && args.stdin { terminal::Raw::enter()? } else { None };
    if args.tty && args.stdin && raw.is_none() {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let status = converse(socket, args).await;
    drop(raw);
    ended(&status?)
}

fn path(target: &Target, container: &str, args: &ExecArgs) -> String {
    let flag = |on: bool| if on { "true" } else { "" };
    // A terminal has one output.
    let query = [
        ("container", container),
        ("stdin", flag(args.stdin)),
        ("stdout", "true"),
        ("stderr", flag(!args.tty)),
        ("tty", flag(args.tty)),
    ];
    let mut path = with_query(&target.url_path(), &query);
    for word in &args.command {
        path += &format!("&command={}", encode(word));
    }
    path
}

/// Carries bytes both ways until the server says how the command ended.
async fn converse(mut socket: Socket, args: &ExecArgs) -> Result<Value> {
    let mut input = read_stdin(args.stdin);
    let mut resized = signal(SignalKind::window_change()).context("failed to watch the terminal's size")?;
    if args.tty {
        resize(&mut socket).await?;
    }
    loop {
        tokio::select! {
            message = socket.next() => match message {
                None => bail!("the connection ended before the command did"),
                Some(message) => {
                    let message = message.context("the connection broke")?;
                    if let Some(status) = received(&message)? {
                        return Ok(status);
                    }
                }
            },
            Some(bytes) = input.recv() => {
                let message = match bytes.is_empty() {
                    true => vec![CLOSE, STDIN],
                    false => [&[STDIN], &bytes[..]].concat(),
                };
                send(&mut socket, message).await?;
            }
            Some(()) = resized.recv(), if args.tty => resize(&mut socket).await?,
        }
    }
}

/// Pieces of standard input; an empty one at its end.
fn read_stdin(wanted: bool) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(4);
    if wanted {
        tokio::spawn(async move {
            let mut stdin = tokio::io::stdin();
            let mut buffer = vec![0; 32 << 10];
            loop {
                let read = stdin.read(&mut buffer).await.unwrap_or(0);
                let piece = Bytes::copy_from_slice(&buffer[..read]);
                if sender.send(piece).await.is_err() || read == 0 {
                    return;
                }
            }
        });
    }
    receiver
}

async fn send(socket: &mut Socket, message: Vec<u8>) -> Result<()> {
    socket.send(Message::Binary(message.into())).await.context("the connection broke")
}

async fn resize(socket: &mut Socket) -> Result<()> {
    let Some((width, height)) = terminal::size() else { return Ok(()) };
    let size = value!({"Width": width, "Height": height});
    send(socket, [&[RESIZE], &json::to_vec(&size)[..]].concat()).await
}

/// Writes what the command printed; the Status that ends it all is returned.
fn received(message: &Message) -> Result<Option<Value>> {
    let bytes: &[u8] = match message {
        Message::Binary(bytes) => bytes,
        Message::Text(text) => text.as_bytes(),
        Message::Close(_) => bail!("the connection ended before the command did"),
        _ => return Ok(None),
    };
    match bytes.split_first() {
        Some((&STDOUT, data)) => output::write_stdout(data)?,
        Some((&STDERR, data)) => std::io::stderr().write_all(data).context("failed to write to standard error")?,
        Some((&ERROR, data)) => {
            return Ok(Some(json::parse(data).context("failed to understand how the command ended")?));
        }
        _ => {}
    }
    Ok(None)
}

/// The command's exit status, out of the Status it ended with.
fn ended(status: &Value) -> Result<ExitCode> {
    if status["status"].str() == "Success" {
        return Ok(ExitCode::SUCCESS);
    }
    // Upstream's end of a command says neither its kind nor its version.
    let mut status = status.clone();
    status.set_default("kind", "Status");
    let status = Status::from_value(&status).unwrap_or_else(|| Status::internal("the command ended without a status"));
    if status.reason != "NonZeroExitCode" {
        bail!("{}", status.message.trim_start_matches("Internal error occurred: "));
    }
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let code = causes.filter(|cause| cause.reason == "ExitCode").find_map(|cause| cause.message.parse::<u8>().ok());
    let code = code.context("the command failed without an exit code")?;
    eprintln!("command terminated with exit code {code}");
    Ok(ExitCode::from(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ExecArgs,
    }

    #[test]
    fn options_become_a_query() {
        let target = Target::new(&Gvr::new("", "v1", "pods"), "ns", "p").subresource("exec");
        for (line, query) in [
            ("p -- ls -l", "container=c&stdout=true&stderr=true&command=ls&command=-l"),
            ("-it p -- sh", "container=c&stdin=true&stdout=true&tty=true&command=sh"),
        ] {
            let args = Line::try_parse_from(std::iter::once("exec").chain(line.split_whitespace())).unwrap().args;
            assert_eq!(path(&target, "c", &args), format!("/api/v1/namespaces/ns/pods/p/exec?{query}"), "{line}");
        }
        assert!(Line::try_parse_from(["exec", "p"]).is_err());
    }

    #[test]
    fn the_exit_status_is_the_commands() {
        assert_eq!(ended(&value!({"kind": "Status", "status": "Success"})).unwrap(), ExitCode::SUCCESS);
        let failed = value!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "message": "m",
            "details": {"causes": [{"reason": "ExitCode", "message": "7"}]},
        });
        assert_eq!(ended(&failed).unwrap(), ExitCode::from(7));
        let broken = value!({"kind": "Status", "status": "Failure", "reason": "InternalError", "message": "x"});
        assert_eq!(ended(&broken).unwrap_err().to_string(), "x");
    }

    #[tokio::test]
    async fn a_command_ends_with_its_status() {
        let failed = b"\x03{\"status\":\"Failure\",\"reason\":\"NonZeroExitCode\",\
            \"details\":{\"causes\":[{\"reason\":\"ExitCode\",\"message\":\"3\"}]}}";
        let session = websocket::testing::session(websocket::testing::agree, vec![failed.to_vec()]).await;
        let socket = websocket::connect(&session, "/exec?command=x").await.unwrap();
        let args = Line::try_parse_from(["exec", "p", "--", "x"]).unwrap().args;
        let status = converse(socket, &args).await.unwrap();
        assert_eq!(ended(&status).unwrap(), ExitCode::from(3));
    }

    #[test]
    fn messages_carry_a_channel() {
        let end = Message::Binary(b"\x03{\"status\":\"Success\"}".to_vec().into());
        assert_eq!(received(&end).unwrap(), Some(value!({"status": "Success"})));
        assert_eq!(received(&Message::Binary(Vec::new().into())).unwrap(), None);
        assert!(received(&Message::Close(None)).is_err());
    }
}
