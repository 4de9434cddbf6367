//! gzip for answers that are worth it (upstream's APIResponseCompression).

use super::body::{self, Body};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, header};
use std::io::Write;

/// Smaller answers are sent as they are.
pub const THRESHOLD: usize = 128 * 1024;

/// Whether the client takes gzip.
pub fn accepted(headers: &HeaderMap) -> bool {
    let encodings = headers.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or("");
    encodings.split(',').any(|encoding| encoding.trim() == "gzip")
}

/// A body of these chunks, compressed as they are taken.
pub fn stream(chunks: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    let mut chunks = chunks;
    // Upstream's level: the others cost more and save little.
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::new(1)));
    let compressed = std::iter::from_fn(move || {
        while let Some(open) = &mut encoder {
            let written = match chunks.next() {
                Some(chunk) => open.write_all(&chunk).map(|()| std::mem::take(open.get_mut())),
                None => encoder.take()?.finish(),
            };
            match written {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Some(Ok(Bytes::from(bytes))),
                Err(error) => {
                    encoder = None;
                    return Some(Err(error.into()));
                }
            }
        }
        None
    });
    body::try_stream(futures::stream::iter(compressed))
}

/// Says in the headers that the body is compressed.
pub fn mark(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}
