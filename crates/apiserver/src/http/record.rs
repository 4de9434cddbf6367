//! The audit log's record of a request over the network: begun when its sender is known, ended with the last of the answer.

use super::{Body, Peer, body};
use crate::audit::policy::Stage;
use crate::audit::{Ending, Incoming, Record, decoded};
use crate::authz::Attributes;
use crate::notes::{self, Notes};
use crate::request_info::RequestInfo;
use crate::server::Server;
use crate::surroundings::uuid;
use crate::user::User;
use canopus_api::Status;
use http::{HeaderMap, Request, Response, header};
use http_body_util::BodyExt;
use std::io::Read;
use std::sync::Arc;

pub const AUDIT_ID: &str = "audit-id";
/// Longer ids are cut (upstream `maxAuditIDLength`).
const ID: usize = 64;

/// The id that an earlier server has given the request, or a new one.
pub fn id(server: &Server, headers: &HeaderMap) -> String {
    match headers.get(AUDIT_ID).and_then(|v| v.to_str().ok()).filter(|id| !id.is_empty()) {
        Some(given) => given.chars().take(ID).collect(),
        None => uuid(server.surroundings.random()),
    }
}

fn record<B>(
    server: &Server,
    peer: &Peer,
    id: &str,
    attributes: &Attributes,
    request: &Request<B>,
) -> Option<Arc<Record>> {
    let uri = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let received = server.surroundings.now();
    server
        .audit
        .get()?
        .begin(attributes, &Incoming { id, uri, headers: request.headers(), peer: peer.address, received })
}

pub fn begin<B>(server: &Server, peer: &Peer, id: &str, attributes: &Attributes, request: &Request<B>) {
    if let Some(record) = record(server, peer, id, attributes, request) {
        notes::begin_record(record);
    }
}

/// Who has failed to say who it is gets a record of its own.
pub fn unauthenticated<B>(server: &Server, peer: &Peer, id: &str, info: &RequestInfo, request: &Request<B>) {
    let Some(record) = record(server, peer, id, &Attributes::of(&User::default(), info), request) else { return };
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or("");
    let scheme = authorization.trim().split(' ').next().unwrap_or("").to_ascii_lowercase();
    let mut methods: Vec<&str> = ["basic", "bearer"].into_iter().filter(|m| *m == scheme).collect();
    if !peer.certificates.is_empty() {
        methods.push("x509");
    }
    let message = match methods.is_empty() {
        true => "Authentication failed, no credentials provided".to_string(),
        false => format!("Authentication failed, attempted: {}", methods.join(", ")),
    };
    let status = Status { message, ..Status::unauthorized() };
    record.status(401, Some(&status));
    record.stage(Stage::ResponseStarted);
}

/// Writes down how it went. What is still to come of a long answer is waited for behind the scenes.
pub async fn finish(
    record: &Arc<Record>,
    notes: &Notes,
    long_running: bool,
    response: Response<Body>,
    refused: Option<&Status>,
) -> Response<Body> {
    record.annotate(notes.take_annotations());
    if let Some(words) = notes.panic() {
        record.status(500, Some(&Status::new(500, "InternalError", format!("APIServer panic'd: {words}"))));
        record.stage(Stage::Panic);
        return response;
    }
    record.status(response.status().as_u16(), refused);
    if long_running {
        record.stage(Stage::ResponseStarted);
        return body::keeping(response, Ending(record.clone()));
    }
    let mut response = response;
    if record.wants_response() {
        let (parts, unread) = response.into_parts();
        let bytes = match unread.collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) => {
                tracing::warn!(%error, "an answer for the audit log broke off");
                bytes::Bytes::new()
            }
        };
        let text = |name| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
        let mut plain = Vec::new();
        let whole = match text(header::CONTENT_ENCODING) {
            "gzip" => flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).map(|_| &plain[..]).ok(),
            _ => Some(&bytes[..]),
        };
        if let Some(object) = whole.and_then(|whole| decoded(text(header::CONTENT_TYPE), whole)) {
            record.response(&object);
        }
        response = Response::from_parts(parts, body::full(bytes));
    }
    record.stage(Stage::ResponseComplete);
    response
}
