//! `/attach`: the streams of a container's own process, to be said and heard as with exec. It ends with the container,
//! whose exit code is not told, or with the client; also with the client's input, when others may go on with that later.

use std::sync::Arc;

use canopus_api::{Status, Value};
use canopus_runtime::AttachSession;
use http::{Request, Response};
use hyper::body::Incoming;

use super::exec::{feed, pump_out};
use super::talk::{self, PROTOCOLS, STDERR, STDOUT, Said, Streams, Talk, exit_status, failed};
use super::upgrade::Upgrade;
use super::{Body, Context, query};

pub(super) async fn serve(
    context: &Arc<Context>,
    which: [&str; 3],
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let asked = Streams::of(&query(request.uri().query().unwrap_or("")))?;
    let upgrade = Upgrade::of(&mut request, &PROTOCOLS)?;
    let instance = context.running(which).await?;
    let id = instance.id.clone();
    let status = context.node.blocking(move |node| node.runtime.container_status(&id)).await;
    let spec = status.map_err(Status::internal)?.map_err(Status::internal)?.spec;
    let (tty, detaches) = (spec.tty, spec.tty || !spec.stdin_once);
    let (protocol, shared) = (upgrade.protocol, context.clone());
    upgrade.answer(context, move |transport| async move {
        // A terminal has one output.
        let wanted = Streams { stderr: asked.stderr && !tty, tty, ..asked };
        talk::hold(transport, protocol, asked, |talk| run(&shared, instance.id, wanted, detaches, talk)).await;
    })
}

async fn run(context: &Context, id: String, wanted: Streams, detaches: bool, talk: Talk) -> Option<Value> {
    let container = id.clone();
    let Streams { stdin, stdout, stderr, .. } = wanted;
    let session = context.node.blocking(move |node| node.runtime.attach(&container, stdin, stdout, stderr)).await;
    let failure = match session {
        Ok(Ok(session)) => return converse(context, id, wanted, detaches, session, talk).await,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Some(failed(&format!("error attaching to container: {failure}")))
}

/// Moves bytes until the container's streams end, or the client's input does and that `detaches` it; `None` if the client
/// went away first.
async fn converse(
    context: &Context,
    id: String,
    wanted: Streams,
    detaches: bool,
    session: AttachSession,
    talk: Talk,
) -> Option<Value> {
    let Talk { mut said, say } = talk;
    let mut writer = session.stdin.map(|file| feed(file, wanted.tty));
    let mut pumps = tokio::task::JoinSet::new();
    for (channel, file) in [(STDOUT, session.stdout), (STDERR, session.stderr)] {
        if let Some(file) = file {
            pumps.spawn(pump_out(channel, file, say.clone()));
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
                // What it said last is still written.
                Said::NoMoreInput if detaches => return Some(exit_status(0)),
                Said::NoMoreInput => writer = None,
                Said::Size { width, height } => resize(context, &id, width, height).await,
            }
        }
        None
    };
    let end = async {
        while pumps.join_next().await.is_some() {}
        if !(wanted.stdout || wanted.stderr) {
            // Nothing tells that the container has ended; the client will.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = end => Some(exit_status(0)),
        detached = listen => detached,
    }
}

async fn resize(context: &Context, id: &str, width: u16, height: u16) {
    let id = id.to_owned();
    let done = context.node.blocking(move |node| node.runtime.resize(&id, width, height)).await;
    if let Ok(Err(error)) = done {
        tracing::debug!(%error, "failed to resize a terminal");
    }
}
