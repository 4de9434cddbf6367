//! Answers in the encoding the client takes, and bodies in the one it sends (upstream `negotiation`).

use super::accept::{ACCEPTED, PROTOBUF};
pub use super::accept::{Accept, Encoding, Offer, Shape, accept, aggregated, preferred};
use super::{Body, compress, text_response};
use canopus_api::{Result, Status, Value, json, protobuf, yaml};
use http::{HeaderMap, Response, StatusCode, header};

/// A value in the encoding the client prefers.
pub fn respond(accept: Accept, code: StatusCode, value: &Value) -> Response<Body> {
    let bytes = match accept.encoding {
        Encoding::Json if accept.pretty => json::pretty(value, "  ").into_bytes(),
        Encoding::Json => json::to_vec(value),
        Encoding::Yaml => yaml::to_yaml(value).into_bytes(),
        Encoding::Protobuf => match protobuf::encode(value) {
            Some(bytes) => bytes,
            // A kind without messages, such as a table: what it is said in cannot be said so either.
            None => {
                return respond(Accept::JSON, StatusCode::NOT_ACCEPTABLE, &Status::not_acceptable(ACCEPTED).to_value());
            }
        },
    };
    whole(accept, code, accept.encoding.media_type(), bytes)
}

/// An answer whose bytes are at hand.
pub fn whole(accept: Accept, code: StatusCode, kind: &'static str, bytes: Vec<u8>) -> Response<Body> {
    if !accept.gzip || bytes.len() <= compress::THRESHOLD {
        return text_response(code, kind, bytes);
    }
    let mut response = text_response(code, kind, Vec::new());
    *response.body_mut() = compress::stream(std::iter::once(bytes.into()));
    compress::mark(&mut response);
    response
}

pub fn status(headers: &HeaderMap, status: &Status) -> Response<Body> {
    let accept = accept(headers, "", Offer::PLAIN).unwrap_or(Accept::JSON);
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = respond(accept, code, &status.to_value());
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// The media type of a request body, without parameters; JSON when none is given.
pub fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let kind = text.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if kind.is_empty() { "application/json".into() } else { kind }
}

/// A request body as a tree, and the problems strict field validation reports.
pub fn decode(bytes: &[u8], content_type: &str) -> Result<(Value, Vec<String>)> {
    match content_type {
        "application/json"
        | "application/json-patch+json"
        | "application/merge-patch+json"
        | "application/strategic-merge-patch+json" => {
            let parsed = json::parse_strict(bytes).map_err(|e| Status::bad_request(e.to_string()))?;
            let problems = parsed.duplicates.iter().map(|path| format!("duplicate field {path:?}"));
            Ok((parsed.value, problems.collect()))
        }
        "application/yaml" | "application/apply-patch+yaml" => {
            let text = std::str::from_utf8(bytes).map_err(|_| Status::bad_request("yaml: invalid UTF-8"))?;
            let parsed = yaml::parse(text).map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))?;
            let problems = parsed.strict_error().into_iter().collect();
            Ok((parsed.value, problems))
        }
        PROTOBUF => {
            let value = protobuf::decode(bytes).map_err(|e| Status::bad_request(e.to_string()))?;
            Ok((value, Vec::new()))
        }
        _ => Err(Status::unsupported_media_type(ACCEPTED)),
    }
}
