//! Media types: what the client sends and what it will take (upstream `negotiation`).

use super::{Body, compress, text_response};
use canopus_api::{Result, Status, Value, json, protobuf, yaml};
use http::{HeaderMap, Response, StatusCode, header};

const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
}

/// What an answer is to be transformed into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Plain,
    Table,
    Metadata,
    MetadataList,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    pub encoding: Encoding,
    pub shape: Shape,
    pub gzip: bool,
}

/// The first alternative of the Accept header that can be served.
pub fn accept(headers: &HeaderMap) -> Result<Accept> {
    accept_of(headers, |_| true)
}

/// The same where requests themselves are the objects (SubjectAccessReview), of which there are no tables.
pub fn accept_without_tables(headers: &HeaderMap) -> Result<Accept> {
    accept_of(headers, |shape| shape != Shape::Table)
}

fn accept_of(headers: &HeaderMap, served: impl Fn(Shape) -> bool) -> Result<Accept> {
    let text = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let gzip = compress::accepted(headers);
    if text.is_empty() {
        return Ok(Accept { encoding: Encoding::Json, shape: Shape::Plain, gzip });
    }
    let first = text.split(',').filter_map(alternative).find(|(_, shape)| served(*shape));
    let (encoding, shape) = first.ok_or_else(|| Status::not_acceptable(ACCEPTED))?;
    Ok(Accept { encoding, shape, gzip })
}

fn alternative(text: &str) -> Option<(Encoding, Shape)> {
    let mut parts = text.split(';').map(str::trim);
    let encoding = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let (mut kind, mut group, mut version) = ("", "", "");
    for part in parts {
        match part.split_once('=') {
            Some(("as", v)) => kind = v,
            Some(("g", v)) => group = v,
            Some(("v", v)) => version = v,
            _ => {}
        }
    }
    let shape = match (kind, group, version) {
        ("", ..) => Shape::Plain,
        ("Table", "meta.k8s.io", "v1") => Shape::Table,
        ("PartialObjectMetadata", "meta.k8s.io", "v1") => Shape::Metadata,
        ("PartialObjectMetadataList", "meta.k8s.io", "v1") => Shape::MetadataList,
        _ => return None,
    };
    Some((encoding, shape))
}

/// Whether the client asks for aggregated discovery.
pub fn wants_aggregated(headers: &HeaderMap) -> bool {
    let text = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let served = |part: &str| {
        let has = |p: &str| part.split(';').any(|x| x.trim() == p);
        has("application/json") && has("g=apidiscovery.k8s.io") && has("v=v2") && has("as=APIGroupDiscoveryList")
    };
    text.split(',').find(|p| p.trim_start().starts_with("application/json") || p.contains("*/*")).is_some_and(served)
}

/// A value in the encoding the client prefers.
pub fn respond(accept: Accept, code: StatusCode, value: &Value) -> Response<Body> {
    let (kind, bytes) = match accept.encoding {
        Encoding::Json => ("application/json", json::to_vec(value)),
        Encoding::Yaml => ("application/yaml", yaml::to_yaml(value).into_bytes()),
    };
    whole(accept, code, kind, bytes)
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
    let accept = accept(headers).unwrap_or(Accept { encoding: Encoding::Json, shape: Shape::Plain, gzip: false });
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = respond(accept, code, &status.to_value());
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if status.code == 401 {
        let realm = http::HeaderValue::from_static("Bearer realm=\"kubernetes\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
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
        "application/vnd.kubernetes.protobuf" => {
            let value = protobuf::decode(bytes).map_err(|e| Status::bad_request(e.to_string()))?;
            Ok((value, Vec::new()))
        }
        _ => Err(Status::unsupported_media_type(ACCEPTED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Option<Accept> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, text.parse().unwrap());
        accept(&headers).ok()
    }

    #[test]
    fn the_first_that_can_be_served() {
        let json = |shape| Some(Accept { encoding: Encoding::Json, shape, gzip: false });
        assert_eq!(shape("application/vnd.kubernetes.protobuf, */*"), json(Shape::Plain));
        assert_eq!(shape("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), json(Shape::Table));
        assert_eq!(shape("application/json;as=Table;v=v9;g=meta.k8s.io,application/json"), json(Shape::Plain));
        assert_eq!(shape("application/vnd.kubernetes.protobuf"), None);
        assert_eq!(
            shape("application/yaml"),
            Some(Accept { encoding: Encoding::Yaml, shape: Shape::Plain, gzip: false })
        );
    }
}
