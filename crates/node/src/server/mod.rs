//! The node's own server: logs, exec, attach, port-forward, pods, health, metrics, for whom the API server lets in.

mod attach;
mod auth;
mod connection;
mod exec;
mod logs;
mod portforward;
mod spdy;
mod talk;
mod upgrade;

use std::sync::Arc;

use bytes::Bytes;
use canopus_api::{Object, Status, Value, View, json, value};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::connection::Patience;
use crate::node::Node;
use crate::observe;
use crate::planner::{Instance, State};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What handlers share.
pub(crate) struct Context {
    pub node: Arc<Node>,
    pub shutdown: CancellationToken,
    gate: auth::Gate,
}

/// Serves until `shutdown`. `tls` asks for client certificates and verifies those it is shown.
pub(crate) async fn serve(
    node: Arc<Node>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let gate = auth::Gate::new(node.api.clone(), &node.name);
    let context = Arc::new(Context { node, shutdown: shutdown.clone(), gate });
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = shutdown.cancelled() => return,
        };
        tokio::spawn(connection(context.clone(), acceptor.clone(), stream));
    }
}

async fn connection(context: Arc<Context>, acceptor: TlsAcceptor, stream: TcpStream) {
    let shutdown = context.shutdown.clone();
    let serving = async {
        let patience = Patience::default();
        let stream = match tokio::time::timeout(patience.handshake, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => return tracing::debug!("a TLS handshake took too long"),
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let user = certificate.and_then(auth::certificate_user);
        let answer = move |request| {
            let (context, user) = (context.clone(), user.clone());
            async move { admit(context, user, request).await }
        };
        connection::talk(stream, patience, answer).await;
    };
    tokio::select! {
        () = serving => {}
        () = shutdown.cancelled() => {}
    }
}

async fn admit(context: Arc<Context>, user: Option<auth::User>, request: Request<Incoming>) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match context.gate.check(user.as_ref(), &method, &path, request.headers()).await {
        Ok(()) => route(context, request).await,
        Err((code, message)) => text(code, &message),
    }
}

async fn route(context: Arc<Context>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let get = request.method() == Method::GET;
    let answer = match parts.as_slice() {
        ["healthz"] if get => Ok(text(StatusCode::OK, "ok")),
        ["pods"] if get => Ok(pod_list(&context)),
        ["containerLogs", namespace, pod, container] if get => {
            logs::serve(&context, [namespace, pod, container], request.uri().query().unwrap_or("")).await
        }
        ["exec", namespace, pod, container] if get || request.method() == Method::POST => {
            exec::serve(&context, [namespace, pod, container], request).await
        }
        // With the pod's uid, as upstream allows.
        ["exec", namespace, pod, _uid, container] => exec::serve(&context, [namespace, pod, container], request).await,
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container]
            if get || request.method() == Method::POST =>
        {
            attach::serve(&context, [namespace, pod, container], request).await
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _]
            if get || request.method() == Method::POST =>
        {
            portforward::serve(&context, [namespace, pod], request).await
        }
        _ => Ok(text(StatusCode::NOT_FOUND, "404 page not found\n")),
    };
    answer.unwrap_or_else(|status| failure(&status))
}

fn failure(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Upstream's kubelet answers in plain text, which the API server hands on.
    text(code, &status.message)
}

fn text(code: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(full(message.to_owned()));
    *response.status_mut() = code;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body fed through a channel; ends with its sender.
fn streamed(receiver: mpsc::Receiver<Bytes>) -> Body {
    let stream = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|bytes| (Ok::<_, std::io::Error>(Frame::data(bytes)), receiver))
    });
    StreamBody::new(stream).boxed_unsync()
}

fn pod_list(context: &Context) -> Response<Body> {
    let item = |pod: &Object| {
        let mut item = (*pod.value()).clone();
        item.remove("apiVersion");
        item.remove("kind");
        item
    };
    let items: Vec<Value> = context.node.pods.list("").iter().map(|pod| item(pod)).collect();
    let list = value!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    let mut response = Response::new(full(json::to_vec(&list)));
    let kind = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

impl Context {
    /// A container's newest run, or the one before.
    pub(crate) async fn instance(
        &self,
        [namespace, pod, container]: [&str; 3],
        previous: bool,
    ) -> Result<Instance, Status> {
        let object = self.node.pods.get(namespace, pod);
        let missing = || Status::new(404, "NotFound", format!("pod \"{pod}\" not found\n"));
        let object = object.ok_or_else(missing)?;
        let uid = object.facts.uid.to_string();
        let observed = self.node.blocking(move |node| -> Result<_, crate::Error> {
            let mut pods = observe::by_pod(&node.runtime)?;
            let ids: Vec<String> = pods.remove(&uid).unwrap_or_default().into_iter().map(|s| s.id).collect();
            Ok(observe::observe(&node.runtime, &ids)?)
        });
        let observed = observed.await.and_then(|o| o).map_err(Status::internal)?;
        let found = if previous { observed.previous(container) } else { observed.latest(container) };
        found.cloned().ok_or_else(|| {
            let name = format!("container \"{container}\" in pod \"{pod}\"");
            Status::bad_request(match previous {
                true => format!("previous terminated {name} not found"),
                false => format!("{name} is waiting to start: {}", waiting(&object.value(), container)),
            })
        })
    }

    /// The container for exec and attach. Of one that is not running no more is said than that.
    pub(crate) async fn running(&self, which: [&str; 3]) -> Result<Instance, Status> {
        let [namespace, pod, container] = which;
        if self.node.pods.get(namespace, pod).is_none() {
            return Err(Status::new(404, "NotFound", "pod does not exist"));
        }
        found(self.instance(which, false).await, container)
    }
}

fn found(instance: Result<Instance, Status>, container: &str) -> Result<Instance, Status> {
    match instance {
        Ok(instance) if instance.state == State::Running => Ok(instance),
        Err(error) if error.code == 500 => Err(error),
        _ => Err(Status::new(500, "InternalError", format!("container not found (\"{container}\")"))),
    }
}

/// Why a container hasn't started, in upstream's words.
fn waiting(pod: &Value, container: &str) -> String {
    let lists = ["containerStatuses", "initContainerStatuses"].map(|list| pod["status"][list].items());
    let status = lists.into_iter().flatten().find(|s| s["name"].str() == container);
    match status.map_or("", |s| s["state"]["waiting"]["reason"].str()) {
        "" => "ContainerCreating".to_owned(),
        "ErrImagePull" => "image can't be pulled".to_owned(),
        "ImagePullBackOff" => "trying and failing to pull image".to_owned(),
        other => other.to_owned(),
    }
}

/// A query's pairs, decoded.
pub(crate) fn query(text: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

pub(crate) fn flag(pairs: &[(String, String)], name: &str) -> bool {
    pairs.iter().any(|(k, v)| k == name && matches!(v.as_str(), "" | "1" | "true" | "True"))
}
