//! Answers in the encoding the client takes, and bodies in the one it sends (upstream `negotiation`).

pub use super::accept::CBOR;
pub use super::accept::{Accept, Encoding, Offer, Shape, accept, aggregated, preferred};
use super::accept::{PROTOBUF, accepted};
use super::{Body, compress, text_response};
use canopus_api::{Result, Status, Value, cbor, json, protobuf, yaml};
use http::{HeaderMap, Response, StatusCode, header};

pub const APPLY_YAML: &str = "application/apply-patch+yaml";
pub const APPLY_CBOR: &str = "application/apply-patch+cbor";

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
                let refused = Status::not_acceptable(&accepted(false));
                return respond(Accept::JSON, StatusCode::NOT_ACCEPTABLE, &refused.to_value());
            }
        },
        Encoding::Cbor => cbor::encode(value),
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

/// An error in the encoding the client prefers, which is CBOR only where that is served.
pub fn status(headers: &HeaderMap, status: &Status, cbor: bool) -> Response<Body> {
    let accept = accept(headers, "", Offer::plain(cbor)).unwrap_or(Accept::JSON);
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

/// Whether a patch of this media type is applied by the server.
pub fn is_apply(content_type: &str) -> bool {
    [APPLY_YAML, APPLY_CBOR].contains(&content_type)
}

/// A request body as a tree, and the problems strict field validation reports. `cbor`: whether that is served.
pub fn decode(bytes: &[u8], content_type: &str, cbor: bool) -> Result<(Value, Vec<String>)> {
    match content_type {
        "application/json"
        | "application/json-patch+json"
        | "application/merge-patch+json"
        | "application/strategic-merge-patch+json" => {
            let parsed = json::parse_strict(bytes).map_err(|e| Status::bad_request(e.to_string()))?;
            let problems = parsed.duplicates.iter().map(|path| format!("duplicate field {path:?}"));
            Ok((parsed.value, problems.collect()))
        }
        "application/yaml" | APPLY_YAML => {
            let text = std::str::from_utf8(bytes).map_err(|_| Status::bad_request("yaml: invalid UTF-8"))?;
            let parsed = yaml::parse(text).map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))?;
            let problems = parsed.strict_error().into_iter().collect();
            Ok((parsed.value, problems))
        }
        PROTOBUF => {
            let value = protobuf::decode(bytes).map_err(|e| Status::bad_request(e.to_string()))?;
            Ok((value, Vec::new()))
        }
        CBOR if cbor => {
            let why = "unable to determine group/version/kind: ";
            from_cbor(bytes, "v1.TypeMeta").map_err(|error| Status::bad_request(format!("{why}{error}")))
        }
        APPLY_CBOR if cbor => {
            // What upstream says of both.
            let into = "map[string]interface {}";
            from_cbor(bytes, into).map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))
        }
        _ => Err(Status::unsupported_media_type(&accepted(cbor))),
    }
}

fn from_cbor(bytes: &[u8], into: &str) -> std::result::Result<(Value, Vec<String>), String> {
    let value = cbor::decode(bytes).map_err(|error| error.to_string())?;
    let kind = match &value {
        Value::Null | Value::Object(_) => return Ok((value, Vec::new())),
        Value::Int(i) if *i < 0 => "negative integer",
        Value::Int(_) => "positive integer",
        Value::Str(_) => "string",
        Value::Array(_) => "array",
        Value::Bool(_) | Value::Float(_) => "primitives",
    };
    Err(format!("cbor: cannot unmarshal {kind} into Go value of type {into}"))
}
