//! Bodies: bounded on the way in, streamed on the way out.

use bytes::Bytes;
use canopus_api::{Result, Status};
use futures::stream::{Stream, StreamExt};
use http::Response;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Empty, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::Frame;
use std::convert::Infallible;
use std::time::Duration;

pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, Error>;

/// Upstream's limit for request bodies.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

fn never(no: Infallible) -> Error {
    match no {}
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(never).boxed_unsync()
}

pub fn empty() -> Body {
    Empty::new().map_err(never).boxed_unsync()
}

pub fn stream(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync()
}

/// The answer with something that goes when its last byte has gone out, or when nobody wants the rest.
pub fn keeping<K: Send + Unpin + 'static>(response: Response<Body>, kept: K) -> Response<Body> {
    response.map(|body| {
        let mut frames = BodyStream::new(body);
        let guarded = futures::stream::poll_fn(move |context| {
            let _ = &kept;
            frames.poll_next_unpin(context)
        });
        BodyExt::boxed_unsync(http_body_util::StreamBody::new(guarded))
    })
}

pub fn try_stream(chunks: impl Stream<Item = std::result::Result<Bytes, Error>> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

/// Reads a whole request body, up to the limit and for at most `patience`: a request whose client dawdles holds the turn
/// of others.
pub async fn read<B>(body: B, patience: Duration) -> Result<Bytes>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Error>,
{
    let too_large = || Status::too_large(&format!("limit is {MAX_BODY}"));
    // Said to be too long: don't take any of it.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(patience, Limited::new(body, MAX_BODY).collect()).await {
        Err(_) => Err(Status::timeout("request did not complete within the allotted timeout")),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Status::bad_request(format!("error reading the request body: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let never = stream(futures::stream::pending());
        assert_eq!(read(never, Duration::from_millis(1)).await.unwrap_err().code, 504);
        let good = stream(futures::stream::iter([Bytes::from_static(b"ab"), Bytes::from_static(b"c")]));
        assert_eq!(read(good, Duration::from_secs(60)).await.unwrap(), "abc");
    }
}
