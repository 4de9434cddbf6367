//! Where the API server calls somebody else: webhooks (admission, conversion, authentication, authorization, audit),
//! extension API servers, and what the `proxy` subresources lead to.
//!
//! [`Outgoing::post`] asks a webhook: a JSON document there, one back. [`Outgoing::send`] is any request with a bounded
//! answer. [`forward::forward`] passes a client's request on, with its stream and upgrade. [`grpc::Channel`] is for servers of gRPC.

mod destination;
pub mod forward;
pub mod grpc;
pub mod html;
pub mod message;
mod pool;
pub mod resolve;
pub mod tls;

pub use destination::{Destination, Place};
pub use tls::Trust;

use crate::cache::Cache;
use bytes::Bytes;
use canopus_api::{Status, Value, json};
use http::{HeaderValue, Request, Response, StatusCode, header};
use pool::Pool;
use resolve::Services;
use std::sync::Arc;
use std::time::Duration;

/// What an answer may be long at most: this much, and more to who is asked about much, for conversions answer whole lists.
const MAX_ANSWER: usize = 8 << 20;
const MAX_ANSWER_TO_MUCH: usize = 64 << 20;
/// How often a call is tried that fails in passing, and the first pause.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
/// What of an unstructured refusal is passed on (upstream `maxUnstructuredResponseTextBytes`).
const MAX_REFUSAL: usize = 2048;

/// Why somebody else's answer is none, in the words of upstream's HTTP client.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing came back: `Post "https://…": dial tcp …: connect: connection refused`.
    #[error("{0}")]
    Transport(String),
    /// It took longer than it was given.
    #[error("{0}")]
    Timeout(String),
    /// It refused.
    #[error("{0}")]
    Refused(Status),
    /// What it said is not what was asked for.
    #[error("{0}")]
    Answer(String),
}

impl Failure {
    /// Whether it may be better in a moment (upstream `webhook.DefaultShouldRetry`).
    fn passes(&self) -> bool {
        match self {
            Failure::Transport(why) => why.contains("connection reset by peer"),
            Failure::Refused(status) => matches!(status.code, 429 | 500 | 504),
            Failure::Timeout(_) | Failure::Answer(_) => false,
        }
    }
}

/// The one client for all calls. Connections are kept and used again.
pub struct Outgoing {
    services: Services,
    pool: Pool,
}

impl Outgoing {
    /// Finds Services in the server's own caches.
    pub fn new(services: Arc<Cache>, slices: Arc<Cache>) -> Outgoing {
        Outgoing { services: Services::new(services, slices), pool: Pool::default() }
    }

    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Asks a webhook: POSTs a document to the destination's own path and answers the document that comes back.
    pub async fn post(&self, to: &Destination, body: &Value, patience: Duration) -> Result<Value, Failure> {
        // Whole seconds, rounded up: what upstream tells the webhook that it has.
        let seconds = patience.as_secs() + u64::from(patience.subsec_nanos() > 0);
        let request = Request::post(to.path_with(&format!("timeout={seconds}s")))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .body(Bytes::from(json::to_vec(body)));
        let request = request.map_err(|e| Failure::Transport(e.to_string()))?;
        let answer = self.send(to, request, patience).await?;
        let code = answer.status();
        if !code.is_success() {
            return Err(Failure::Refused(refusal(code, answer.headers(), answer.body(), "POST")));
        }
        json::parse(answer.body())
            .map_err(|e| Failure::Answer(format!("couldn't get version/kind; json parse error: {e}")))
    }

    /// The same, and again when it fails in passing: five times at most, half as long a pause again each time
    /// (upstream `webhook.WithExponentialBackoff`).
    pub async fn post_until(&self, to: &Destination, body: &Value, patience: Duration) -> Result<Value, Failure> {
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS {
            match self.post(to, body, patience).await {
                Err(failure) if failure.passes() => tracing::debug!(%failure, "a webhook is asked again"),
                answer => return answer,
            }
            tokio::time::sleep(pause).await;
            pause += pause / 2;
        }
        self.post(to, body, patience).await
    }

    /// Sends a request, whose URI is a path and perhaps a query, and reads the whole answer, whatever its status.
    pub async fn send(
        &self,
        to: &Destination,
        mut request: Request<Bytes>,
        patience: Duration,
    ) -> Result<Response<Bytes>, Failure> {
        if let Some(parent) = crate::notes::trace().and_then(|t| HeaderValue::from_str(&t.parent()?).ok()) {
            request.headers_mut().insert(crate::traces::TRACEPARENT, parent);
        }
        let about = describe(&request, to);
        let most = request.body().len().saturating_mul(4).saturating_add(MAX_ANSWER).min(MAX_ANSWER_TO_MUCH);
        let exchange = self.pool.exchange(&self.services, to, request, most);
        match tokio::time::timeout(patience, exchange).await {
            Err(_) => Err(Failure::Timeout(format!("{about}: context deadline exceeded"))),
            Ok(Err(why)) => Err(Failure::Transport(format!("{about}: {why}"))),
            Ok(Ok(answer)) => Ok(answer),
        }
    }
}

/// `Post "https://host:port/path"`: how upstream's client begins its complaints.
fn describe(request: &Request<Bytes>, to: &Destination) -> String {
    let method = request.method().as_str();
    let method = format!("{}{}", &method[..1], method[1..].to_ascii_lowercase());
    format!("{method} {:?}", format!("{}{}", to.origin(), request.uri()))
}

/// The Status in a refusal, or the one that upstream's client makes up for it (`NewGenericServerResponse`).
pub fn refusal(code: StatusCode, headers: &http::HeaderMap, body: &[u8], verb: &str) -> Status {
    if let Some(status) = json::parse(body).ok().as_ref().and_then(Status::from_value) {
        return status;
    }
    let is_text = headers.get(header::CONTENT_TYPE).is_none_or(|v| v.as_bytes().starts_with(b"text/"));
    let said = match is_text {
        true => String::from_utf8_lossy(&body[..body.len().min(MAX_REFUSAL)]).trim().to_string(),
        false => "unknown".into(),
    };
    let unsure =
        format!("the server responded with the status code {} but did not return more information", code.as_u16());
    let (reason, message) = match code.as_u16() {
        409 if verb == "POST" => ("AlreadyExists", "the server reported a conflict".to_string()),
        409 => ("Conflict", "the server reported a conflict".into()),
        404 => ("NotFound", "the server could not find the requested resource".into()),
        400 => ("BadRequest", "the server rejected our request for an unknown reason".into()),
        401 => ("Unauthorized", "the server has asked for the client to provide credentials".into()),
        403 => ("Forbidden", said.clone()),
        406 => ("NotAcceptable", said.clone()),
        415 => ("UnsupportedMediaType", said.clone()),
        405 => ("MethodNotAllowed", "the server does not allow this method on the requested resource".into()),
        422 => ("Invalid", "the server rejected our request due to an error in our request".into()),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request".into()),
        504 => (
            "Timeout",
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .into(),
        ),
        429 => {
            ("TooManyRequests", "the server has received too many requests and has asked us to try again later".into())
        }
        500.. => {
            ("InternalError", format!("an error on the server ({said:?}) has prevented the request from succeeding"))
        }
        _ => ("", unsure),
    };
    Status::new(code.as_u16(), reason, message).with_cause("UnexpectedServerResponse", said, "")
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
