//! Messages written from their end to their beginning, so that a length is known when its turn comes.

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
pub(super) const LENGTH: u8 = 2;

/// A buffer that is filled from its end.
pub struct Backwards {
    buffer: Vec<u8>,
    start: usize,
}

impl Backwards {
    pub fn with_capacity(capacity: usize) -> Backwards {
        Backwards { buffer: vec![0; capacity], start: capacity }
    }

    #[expect(clippy::len_without_is_empty, reason = "a length is a mark to come back to")]
    pub fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        if bytes.len() > self.start {
            let more = self.buffer.len().max(bytes.len());
            let mut buffer = vec![0; self.buffer.len() + more];
            buffer[self.start + more..].copy_from_slice(&self.buffer[self.start..]);
            self.buffer = buffer;
            self.start += more;
        }
        self.start -= bytes.len();
        self.buffer[self.start..self.start + bytes.len()].copy_from_slice(bytes);
    }

    pub fn varint(&mut self, mut value: u64) {
        let mut digits = [0u8; 10];
        let mut n = 0;
        loop {
            digits[n] = (value & 0x7f) as u8;
            value >>= 7;
            if value == 0 {
                break;
            }
            digits[n] |= 0x80;
            n += 1;
        }
        self.bytes(&digits[..=n]);
    }

    fn tag(&mut self, number: u32, wire: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire));
    }

    /// Makes what was written since `mark` a field of its own.
    pub fn close(&mut self, number: u32, mark: usize) {
        self.length_of(number, self.len() - mark);
    }

    pub fn text(&mut self, number: u32, text: &str) {
        let mark = self.len();
        self.bytes(text.as_bytes());
        self.close(number, mark);
    }

    pub fn number(&mut self, number: u32, value: i64) {
        self.varint(value.cast_unsigned());
        self.tag(number, VARINT);
    }

    pub fn double(&mut self, number: u32, value: f64) {
        self.bytes(&value.to_bits().to_le_bytes());
        self.tag(number, FIXED64);
    }

    /// The beginning of a field whose `length` bytes are written elsewhere.
    pub fn length_of(&mut self, number: u32, length: usize) {
        self.varint(length as u64);
        self.tag(number, LENGTH);
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.buffer.drain(..self.start);
        self.buffer
    }
}
