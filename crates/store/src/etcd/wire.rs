//! As much of Protocol Buffers as etcd's few messages need.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes that are no message of the expected kind.
#[derive(Debug, thiserror::Error)]
#[error("malformed message")]
pub(super) struct Malformed;

/// Writes one message.
#[derive(Default)]
pub(super) struct Writer(BytesMut);

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.put_u8(value as u8);
    }

    /// A number, its default too.
    pub(super) fn int(mut self, field: u32, value: u64) -> Writer {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    /// A flag or number that is left out when it is 0.
    pub(super) fn some_int(self, field: u32, value: u64) -> Writer {
        if value == 0 { self } else { self.int(field, value) }
    }

    pub(super) fn bytes(mut self, field: u32, value: &[u8]) -> Writer {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.put_slice(value);
        self
    }

    pub(super) fn message(self, field: u32, message: Writer) -> Writer {
        self.bytes(field, &message.0)
    }

    pub(super) fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

/// One field of a message.
pub(super) enum Field<'a> {
    Int(u64),
    Bytes(&'a [u8]),
    /// Of a kind that none of our messages has.
    Other,
}

impl<'a> Field<'a> {
    pub(super) fn int(&self) -> Result<u64, Malformed> {
        if let Field::Int(value) = self { Ok(*value) } else { Err(Malformed) }
    }

    pub(super) fn bytes(&self) -> Result<&'a [u8], Malformed> {
        if let Field::Bytes(value) = self { Ok(value) } else { Err(Malformed) }
    }

    pub(super) fn text(&self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }
}

/// Calls `visit` with the number and contents of each field.
pub(super) fn each<'a>(
    mut message: &'a [u8],
    mut visit: impl FnMut(u32, Field<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed)?;
        let field = match tag & 7 {
            0 => Field::Int(varint(&mut message)?),
            1 => skip(&mut message, 8)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).map_err(|_| Malformed)?;
                let (bytes, rest) = message.split_at_checked(length).ok_or(Malformed)?;
                message = rest;
                Field::Bytes(bytes)
            }
            5 => skip(&mut message, 4)?,
            _ => return Err(Malformed),
        };
        visit(number, field)?;
    }
    Ok(())
}

fn skip<'a>(message: &mut &'a [u8], length: usize) -> Result<Field<'a>, Malformed> {
    *message = message.get(length..).ok_or(Malformed)?;
    Ok(Field::Other)
}

fn varint(message: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().ok_or(Malformed)?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let written =
            Writer::default().int(1, 0).some_int(2, 0).int(3, u64::MAX).message(70, Writer::default().bytes(1, b"x"));
        let bytes = written.finish();
        let mut seen = Vec::new();
        each(&bytes, |number, field| {
            seen.push((number, field.int().ok(), field.bytes().ok().map(<[u8]>::to_vec)));
            Ok(())
        })
        .unwrap();
        let inner = Some(vec![10, 1, b'x']);
        assert_eq!(seen, [(1, Some(0), None), (3, Some(u64::MAX), None), (70, None, inner)]);
        for cut in 1..bytes.len() {
            // Whatever is cut short is refused or ends at a field's border, and never panics.
            let _ = each(&bytes[..cut], |_, _| Ok(()));
        }
        assert!(each(&[10, 5, 1], |_, _| Ok(())).is_err());
        assert!(each(&[0xff; 11], |_, _| Ok(())).is_err());
    }
}
