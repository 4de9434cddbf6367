//! Finds out how a stream is compressed by its first bytes (media types lie) and decompresses it.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const REFUSED: [(&[u8], &str); 3] =
    [(b"BZh", "bzip2"), (&[0xfd, b'7', b'z', b'X', b'Z'], "xz"), (&[0x04, 0x22, 0x4d, 0x18], "lz4")];

/// A reader of the plain bytes of `stream`, which may be gzip, zstd or plain already.
pub fn decompress<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    let mut magic = [0; 6];
    let mut known = 0;
    while known < magic.len() {
        match stream.read(&mut magic[known..]) {
            Ok(0) => break,
            Ok(read) => known += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let whole = io::Cursor::new(magic).take(known as u64).chain(stream);
    let magic = &magic[..known];
    if let Some((_, name)) = REFUSED.iter().find(|(start, _)| magic.starts_with(start)) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, format!("{name} compression is not supported")));
    }
    // A zstd stream may begin with a skippable frame, 0x184d2a50 to 0x184d2a5f.
    let skippable = known >= 4 && magic[0] & 0xf0 == 0x50 && magic[1..4] == [0x2a, 0x4d, 0x18];
    if magic.starts_with(GZIP) {
        Ok(Box::new(MultiGzDecoder::new(whole)))
    } else if magic.starts_with(ZSTD) || skippable {
        Ok(Box::new(Zstd { source: whole, decoder: FrameDecoder::new(), in_frame: false }))
    } else {
        Ok(Box::new(whole))
    }
}

/// All frames of a zstd stream, one after the other, skipping skippable ones.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    /// Begins the next frame; false at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.init(&mut self.source) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut self.source.by_ref().take(length.into()), &mut io::sink())?;
                    if skipped != u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use ruzstd::decoding::BlockDecodingStrategy::UptoBytes;
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame && !self.next_frame()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, UptoBytes(buffer.len()))
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            self.check_sum()?;
            self.in_frame = false;
        }
    }
}

impl<R> Zstd<R> {
    fn check_sum(&self) -> io::Result<()> {
        match (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum()) {
            (Some(stated), Some(found)) if stated != found => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "zstd checksum mismatch"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn plain(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn all_forms_give_the_same_bytes() {
        let text = b"a layer, compressed or not ".repeat(5000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        gzip.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(&text[..], ruzstd::encoding::CompressionLevel::Fastest);
        let skippable =
            [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3], &zstd[..], &[0x5f, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]].concat();
        for stream in [&text[..], &gzip, &zstd, &skippable] {
            assert!(plain(stream).unwrap() == text);
        }
        assert!(plain(&[&zstd[..], &zstd].concat()).unwrap() == text.repeat(2));
        assert!(plain(&[&gzip[..], &gzip].concat()).unwrap() == text.repeat(2));
        assert!(plain(b"").unwrap().is_empty());
        for stream in [&gzip, &zstd] {
            assert!(plain(&stream[..stream.len() - 9]).is_err());
        }
        assert_eq!(plain(b"BZh91AY").unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
