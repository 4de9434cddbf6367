//! SPDY/3.1 framing, as much of it as kubectl speaks to forward ports: streams with headers, data, farewells and pings.
//! (The protocol is `draft-mbelshe-httpbis-spdy-00`, with version 3 headers.)

use std::io;

use bytes::Bytes;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use tokio::io::{AsyncRead, AsyncReadExt};

/// No frame is longer; kubectl sends 32 KiB at a time.
const MAX_FRAME: usize = 1 << 20;
/// Nor is a block of headers, unpacked.
const MAX_HEADERS: usize = 64 << 10;
/// What refers back into the past does so by this much at most (RFC 1951).
const WINDOW: usize = 32 << 10;
const FIN: u8 = 1;
/// What zlib ends with when it is flushed: an empty block.
const FLUSHED: &[u8] = &[0, 0, 0, 0xff, 0xff];

/// What a client says.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    Open { stream: u32, headers: Vec<(String, String)>, last: bool },
    Data { stream: u32, bytes: Bytes, last: bool },
    Reset { stream: u32 },
    Ping(u32),
    Bye,
}

/// Reads frames. Blocks of headers share one compressed stream, so none may be left out.
pub(super) struct Reader<R> {
    from: R,
    headers: Inflater,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(from: R) -> Reader<R> {
        Reader { from, headers: Inflater::new() }
    }

    /// The next frame that matters; `None` at the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let mut head = [0_u8; 8];
            match self.from.read_exact(&mut head).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                done => done?,
            };
            let (first, last) = (word(&head), head[4] & FIN != 0);
            let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
            if length > MAX_FRAME {
                return Err(bad("a frame is too long"));
            }
            let mut body = vec![0_u8; length];
            self.from.read_exact(&mut body).await?;
            if first & 0x8000_0000 == 0 {
                return Ok(Some(Frame::Data { stream: first, bytes: body.into(), last }));
            }
            if (first >> 16) & 0x7fff != 3 {
                return Err(bad("not version 3 of SPDY"));
            }
            let stream =
                |body: &[u8]| body.get(..4).map(|id| word(id) & 0x7fff_ffff).ok_or_else(|| bad("a frame is too short"));
            return Ok(Some(match first & 0xffff {
                1 => {
                    let packed = body.get(10..).ok_or_else(|| bad("a frame is too short"))?;
                    Frame::Open { stream: stream(&body)?, headers: pairs(&self.headers.unpack(packed)?)?, last }
                }
                3 => Frame::Reset { stream: stream(&body)? },
                6 => Frame::Ping(body.get(..4).map_or(0, word)),
                7 => Frame::Bye,
                // HEADERS: nobody sends them here, but they count for what follows.
                8 => {
                    self.headers.unpack(body.get(4..).unwrap_or(&[]))?;
                    continue;
                }
                _ => continue,
            }));
        }
    }
}

/// Makes frames.
pub(super) struct Writer {
    begun: bool,
}

impl Writer {
    pub(super) fn new() -> Writer {
        Writer { begun: false }
    }

    /// Accepts a stream, without headers.
    pub(super) fn reply(&mut self, stream: u32) -> Vec<u8> {
        let mut packed = Vec::new();
        if !self.begun {
            // A zlib header that names the dictionary by its checksum (RFC 1950).
            packed.extend_from_slice(&[0x78, 0xbb]);
            packed.extend_from_slice(&adler(&dictionary()).to_be_bytes());
            self.begun = true;
        }
        // A block that is stored as it is: no headers. The empty one behind it is where readers in Go know that they have
        // everything; without it they wait for more, which ends their stream.
        let none = 0_u32.to_be_bytes();
        packed.extend_from_slice(&[0, 4, 0, 0xfb, 0xff]);
        packed.extend_from_slice(&none);
        packed.extend_from_slice(FLUSHED);
        let mut frame = control(2, 4 + packed.len());
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(&packed);
        frame
    }
}

pub(super) fn data(stream: u32, bytes: &[u8], last: bool) -> Vec<u8> {
    let mut frame = Vec::with_capacity(bytes.len() + 8);
    frame.extend_from_slice(&stream.to_be_bytes());
    let length = u32::try_from(bytes.len()).unwrap_or(0) & 0x00ff_ffff;
    frame.extend_from_slice(&(u32::from(last) << 24 | length).to_be_bytes());
    frame.extend_from_slice(bytes);
    frame
}

pub(super) fn pong(id: u32) -> Vec<u8> {
    let mut frame = control(6, 4);
    frame.extend_from_slice(&id.to_be_bytes());
    frame
}

fn control(kind: u16, length: usize) -> Vec<u8> {
    let mut frame = vec![0x80, 3];
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(&(u32::try_from(length).unwrap_or(0) & 0x00ff_ffff).to_be_bytes());
    frame
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |all, byte| all << 8 | u32::from(*byte))
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// Names and values, each with its length.
fn pairs(block: &[u8]) -> io::Result<Vec<(String, String)>> {
    let mut rest = block;
    let number = |rest: &mut &[u8]| {
        let (head, tail) = rest.split_at_checked(4).ok_or_else(|| bad("a block of headers is too short"))?;
        *rest = tail;
        usize::try_from(word(head)).map_err(|_| bad("a length is too long"))
    };
    let count = number(&mut rest)?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        let mut text = || {
            let length = number(&mut rest)?;
            let (head, tail) = rest.split_at_checked(length).ok_or_else(|| bad("a header is cut off"))?;
            rest = tail;
            Ok::<_, io::Error>(String::from_utf8_lossy(head).into_owned())
        };
        pairs.push((text()?.to_ascii_lowercase(), text()?));
    }
    Ok(pairs)
}

/// Unpacks blocks that refer to each other and to the dictionary.
struct Inflater {
    state: Box<DecompressorOxide>,
    /// The past, and where the next byte goes.
    window: Vec<u8>,
    at: usize,
    begun: bool,
}

impl Inflater {
    fn new() -> Inflater {
        let mut window = dictionary();
        let at = window.len();
        window.resize(WINDOW, 0);
        Inflater { state: Box::default(), window, at, begun: false }
    }

    fn unpack(&mut self, packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut packed = packed;
        if !self.begun {
            // The zlib header, with the flag for a dictionary, and the dictionary's checksum.
            let (head, rest) = packed.split_at_checked(6).ok_or_else(|| bad("headers are cut off"))?;
            if head[1] & 0x20 == 0 || word(&head[2..]) != adler(&dictionary()) {
                return Err(bad("headers are packed with another dictionary"));
            }
            (packed, self.begun) = (rest, true);
        }
        let mut out = Vec::new();
        loop {
            let (status, read, written) =
                decompress(&mut self.state, packed, &mut self.window, self.at, TINFL_FLAG_HAS_MORE_INPUT);
            out.extend_from_slice(&self.window[self.at..self.at + written]);
            self.at = (self.at + written) % WINDOW;
            packed = &packed[read..];
            if out.len() > MAX_HEADERS {
                return Err(bad("headers are too long"));
            }
            match status {
                TINFLStatus::NeedsMoreInput => return Ok(out),
                TINFLStatus::HasMoreOutput => {}
                _ => return Err(bad("headers do not unpack")),
            }
        }
    }
}

/// What compressed headers may refer to from the start: words of HTTP, each with its length, and some more text.
fn dictionary() -> Vec<u8> {
    const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
        accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
        content-length content-location content-md5 content-range content-type date etag expect expires from host \
        if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
        proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
        user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
        keep-alive origin";
    const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
        Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 \
        Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
        Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
        application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=\
        utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut all = Vec::with_capacity(1423);
    for word in WORDS.split(' ') {
        let word = word.replace('_', " ");
        all.extend_from_slice(&u32::try_from(word.len()).unwrap_or(0).to_be_bytes());
        all.extend_from_slice(word.as_bytes());
    }
    all.extend_from_slice(REST.as_bytes());
    all
}

/// Adler-32 (RFC 1950).
fn adler(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    b << 16 | a
}

/// What a client opens a stream with: headers in a stored block.
#[cfg(test)]
pub(super) fn open(stream: u32, headers: &[(&str, &str)], first: bool) -> Vec<u8> {
    let mut block = u32::try_from(headers.len()).expect("few").to_be_bytes().to_vec();
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        block.extend_from_slice(&u32::try_from(text.len()).expect("short").to_be_bytes());
        block.extend_from_slice(text.as_bytes());
    }
    let length = u16::try_from(block.len()).expect("short");
    let mut packed = Vec::new();
    if first {
        packed.extend_from_slice(&[0x78, 0xbb]);
        packed.extend_from_slice(&adler(&dictionary()).to_be_bytes());
    }
    packed.push(0);
    packed.extend_from_slice(&length.to_le_bytes());
    packed.extend_from_slice(&(!length).to_le_bytes());
    packed.extend_from_slice(&block);
    let mut frame = control(1, 10 + packed.len());
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&packed);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_protocols() {
        // Its identity in every zlib header of SPDY 3.
        assert_eq!((dictionary().len(), adler(&dictionary())), (1423, 0xe3c6_a7c2));
    }

    fn opening(first: bool) -> Vec<u8> {
        open(1, &[("port", "8080")], first)
    }

    #[tokio::test]
    async fn frames() {
        let mut bytes = [opening(true), data(1, b"hello", true), pong(7), opening(false)].concat();
        bytes.extend(control(7, 4));
        bytes.extend([0; 4]);
        let mut reader = Reader::new(&bytes[..]);
        let open = Frame::Open { stream: 1, headers: vec![("port".into(), "8080".into())], last: false };
        assert_eq!(reader.next().await.expect("a frame"), Some(open));
        let said = Frame::Data { stream: 1, bytes: Bytes::from_static(b"hello"), last: true };
        assert_eq!(reader.next().await.expect("a frame"), Some(said));
        assert_eq!(reader.next().await.expect("a frame"), Some(Frame::Ping(7)));
        assert!(matches!(reader.next().await.expect("a frame"), Some(Frame::Open { .. })));
        assert_eq!(reader.next().await.expect("a frame"), Some(Frame::Bye));
        assert_eq!(reader.next().await.expect("the end"), None);
    }

    #[tokio::test]
    async fn nonsense_is_refused() {
        let mut long = data(1, b"", false);
        long[5..8].copy_from_slice(&[0xff; 3]);
        for bytes in [long, vec![0x80, 2, 0, 1, 0, 0, 0, 0], control(1, 0), {
            let mut frame = opening(true);
            frame[20] ^= 1;
            frame
        }] {
            assert!(Reader::new(&bytes[..]).next().await.is_err(), "{bytes:?}");
        }
    }

    /// Headers of zeroes without end, in a few bytes.
    #[tokio::test]
    async fn bombs_are_not_unpacked() {
        let packed = miniz_oxide::deflate::compress_to_vec(&vec![0; 100 << 20], 9);
        assert!(packed.len() < 200 << 10);
        let mut frame = control(1, 10 + 6 + packed.len());
        frame.extend_from_slice(&[0; 10]);
        frame.extend_from_slice(&[0x78, 0xbb]);
        frame.extend_from_slice(&adler(&dictionary()).to_be_bytes());
        frame.extend_from_slice(&packed);
        let error = Reader::new(&frame[..]).next().await.expect_err("it is refused");
        assert_eq!(error.to_string(), "headers are too long");
        // As many headers as a number can say, and none of them.
        let mut block = vec![0xff; 4];
        block.extend([0; 60_000]);
        assert!(pairs(&block).is_err());
    }

    #[test]
    fn what_zlib_packs_is_unpacked() {
        // Both streams of a connection as zlib packs them at its best, flushed behind each.
        let blocks = [
            "78f9e3c6a7c202253a48f95b044eea16061606409ab308125f99a074cc68004e892545a989b9d0c2863515141500000000ffff",
            "225333a8a44a04000000ffff",
        ];
        let mut inflater = Inflater::new();
        for (block, kind) in blocks.into_iter().zip(["error", "data"]) {
            let digits = block.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
            let packed: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).expect("a byte")).collect();
            let headers = pairs(&inflater.unpack(&packed).expect("unpacks")).expect("pairs");
            let all = [("port", "8080"), ("requestid", "0"), ("streamtype", kind)];
            assert_eq!(headers, all.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
    }

    #[test]
    fn an_answer_is_understood() {
        let mut writer = Writer::new();
        let mut inflater = Inflater::new();
        for _ in 0..2 {
            let frame = writer.reply(3);
            assert_eq!(&frame[..8], [0x80, 3, 0, 2, 0, 0, 0, u8::try_from(frame.len() - 8).expect("short")]);
            assert_eq!(inflater.unpack(&frame[12..]).expect("unpacks"), [0; 4]);
            assert!(frame.ends_with(FLUSHED));
        }
    }
}
