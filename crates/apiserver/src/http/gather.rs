//! Writes of one connection, gathered. An HTTP/2 connection writes and flushes frame by frame; hundreds of watches on it
//! that all have an event would cost as many system calls and TLS records. Here what its streams have ready goes out in
//! one piece, as soon as the thread has nothing else to run.

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is gathered at most; a whole number of TLS records fits.
const LIMIT: usize = 64 * 1024;
/// A buffer that grew beyond this isn't kept while there is nothing to write.
const KEEP: usize = 16 * 1024;
/// A connection that is polled this often and always has more to say writes all the same.
const PATIENCE: u32 = 64;

struct Shared<S> {
    stream: S,
    buffer: BytesMut,
    /// Whether somebody drives the connection, who writes what was gathered.
    driven: bool,
}

/// The stream as the connection sees it. Clones share it.
pub struct Gathered<S>(Arc<Mutex<Shared<S>>>);

impl<S> Clone for Gathered<S> {
    fn clone(&self) -> Gathered<S> {
        Gathered(self.0.clone())
    }
}

impl<S: AsyncWrite + Unpin> Shared<S> {
    /// Writes everything, down to the socket.
    fn drain(&mut self, cx: &mut Context) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.buffer))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.buffer.advance(written);
        }
        if self.buffer.capacity() > KEEP {
            self.buffer = BytesMut::new();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    pub fn new(stream: S) -> Gathered<S> {
        Gathered(Arc::new(Mutex::new(Shared { stream, buffer: BytesMut::new(), driven: false })))
    }

    /// Runs the connection that reads and writes through a clone of this, until it is done. Can be dropped and called
    /// again. Afterwards (an upgraded connection belongs to somebody else) nothing is kept back.
    pub async fn drive<E: From<io::Error>>(
        &self,
        mut connection: Pin<&mut impl Future<Output = Result<(), E>>>,
    ) -> Result<(), E> {
        self.0.lock().driven = true;
        let mut turn = Turn::default();
        let done = poll_fn(|cx| {
            let done = connection.as_mut().poll(cx)?;
            if done.is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut shared = self.0.lock();
            if turn.waits(shared.buffer.len()) {
                // Wakes this task when the others that can run have run.
                let _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
                return Poll::Pending;
            }
            match shared.drain(cx)? {
                Poll::Ready(()) => turn = Turn::default(),
                Poll::Pending => turn.writing = true,
            }
            Poll::Pending
        })
        .await;
        poll_fn(|cx| {
            let mut shared = self.0.lock();
            shared.driven = false;
            shared.drain(cx)
        })
        .await?;
        done
    }
}

/// Whether to write now or to wait for more.
#[derive(Default)]
struct Turn {
    gathered: usize,
    polls: u32,
    /// The socket is full.
    writing: bool,
}

impl Turn {
    /// Called after each poll of the connection, with the size of what it has not yet written.
    fn waits(&mut self, gathered: usize) -> bool {
        let more = gathered > self.gathered;
        self.gathered = gathered;
        self.polls += 1;
        more && !self.writing && gathered < LIMIT && self.polls < PATIENCE
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context, buf: &mut ReadBuf) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context, slices: &[IoSlice]) -> Poll<io::Result<usize>> {
        let mut shared = self.0.lock();
        if !shared.driven {
            ready!(shared.drain(cx))?;
            return Pin::new(&mut shared.stream).poll_write_vectored(cx, slices);
        }
        if shared.buffer.len() >= LIMIT {
            ready!(shared.drain(cx))?;
        }
        slices.iter().for_each(|slice| shared.buffer.extend_from_slice(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        let mut shared = self.0.lock();
        if shared.driven { Poll::Ready(Ok(())) } else { shared.drain(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        let mut shared = self.0.lock();
        ready!(shared.drain(cx))?;
        Pin::new(&mut shared.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// Counts the writes that reach the bottom.
    struct Counted(tokio::io::DuplexStream, Arc<Mutex<Vec<usize>>>);

    impl AsyncWrite for Counted {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let written = ready!(Pin::new(&mut self.0).poll_write(cx, bytes))?;
            self.1.lock().push(written);
            Poll::Ready(Ok(written))
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn what_is_flushed_in_parts_goes_out_in_one_piece() {
        let (near, mut far) = duplex(1 << 20);
        let writes = Arc::new(Mutex::new(Vec::new()));
        let gathered = Gathered::new(Counted(near, writes.clone()));
        let mut inside = gathered.clone();
        let connection = std::pin::pin!(async move {
            for part in 0..10u8 {
                inside.write_all(&[part; 100]).await?;
                inside.flush().await?;
                tokio::task::yield_now().await;
            }
            // It stays open and waits: nothing may be kept back.
            std::future::pending::<io::Result<()>>().await
        });
        let mut all = vec![0; 1000];
        tokio::select! {
            _ = gathered.drive(connection) => panic!("it waits for ever"),
            read = far.read_exact(&mut all) => read.unwrap(),
        };
        assert_eq!((all[0], all[999]), (0, 9));
        assert!(writes.lock().len() < 5, "{:?}", writes.lock());
    }

    #[tokio::test]
    async fn more_than_the_limit_passes_and_the_rest_is_written_at_the_end() {
        let (near, mut far) = duplex(1000);
        let gathered = Gathered::new(near);
        let mut inside = gathered.clone();
        let size = 3 * LIMIT + 7;
        let connection = std::pin::pin!(async move {
            inside.write_all(&vec![1; size]).await?;
            inside.flush().await
        });
        let mut all = vec![0; size];
        let (driven, read) = tokio::join!(gathered.drive::<io::Error>(connection), far.read_exact(&mut all));
        driven.unwrap();
        read.unwrap();
    }

    #[tokio::test]
    async fn an_upgraded_connection_keeps_nothing_back() {
        use hyper_util::rt::{TokioExecutor, TokioIo};
        let (near, mut far) = duplex(1 << 16);
        let gathered = Gathered::new(near);
        let service = hyper::service::service_fn(|mut request: http::Request<hyper::body::Incoming>| async move {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut upgraded = TokioIo::new(upgrade.await.unwrap());
                upgraded.write_all(b"last words").await.unwrap();
                // Neither flushed nor shut down: so it is when what it is copied from breaks.
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                upgraded.write_all(b", really").await.unwrap();
            });
            let answer = http::Response::builder().status(101).header("upgrade", "x").header("connection", "upgrade");
            answer.body(http_body_util::Empty::<bytes::Bytes>::new())
        });
        let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(gathered.clone()), service);
        let connection = std::pin::pin!(connection);
        far.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        gathered.drive(connection).await.unwrap();
        drop(gathered);
        far.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 101") && answer.ends_with("last words, really"), "{answer}");
    }
}
