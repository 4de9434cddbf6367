//! W3C Trace Context: what a request says about the trace it belongs to.

use super::{SpanId, TraceId};
use http::HeaderMap;

pub const TRACEPARENT: &str = "traceparent";

/// The span on whose behalf a request is made.
#[derive(Debug, PartialEq)]
pub struct Parent {
    pub trace: TraceId,
    pub span: SpanId,
    pub sampled: bool,
}

impl Parent {
    /// None: it says nothing, or nothing that can be understood.
    pub fn of(headers: &HeaderMap) -> Option<Parent> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let (Some(text), None) = (all.next(), all.next()) else { return None };
        Parent::parse(text.to_str().ok()?)
    }

    /// `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`; later versions may say more behind that.
    fn parse(text: &str) -> Option<Parent> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let [version] = hex::<1>(version)?;
        if version == 0xff || version == 0 && parts.next().is_some() {
            return None;
        }
        let (trace, span, [flags]) = (hex(trace)?, hex(span)?, hex::<1>(flags)?);
        let nothing = trace == [0; 16] || span == [0; 8];
        (!nothing).then_some(Parent { trace, span, sampled: flags & 1 == 1 })
    }

    pub fn to_header(&self) -> String {
        let (trace, span) = (u128::from_be_bytes(self.trace), u64::from_be_bytes(self.span));
        format!("00-{trace:032x}-{span:016x}-{:02x}", u8::from(self.sampled))
    }
}

/// Lower-case digits only, as the standard demands.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..text.len()).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent = Parent::parse(good).unwrap();
        assert!(parent.sampled);
        assert_eq!(parent.to_header(), good);
        let not_sampled = good.replace("-01", "-00");
        assert_eq!(Parent::parse(&not_sampled).unwrap().to_header(), not_sampled);
        assert!(Parent::parse(&format!("01{}-more", &good[2..])).is_some(), "a later version");
        for bad in [
            "",
            "00",
            &good.to_uppercase(),
            &format!("{good}-more"),
            &format!("ff{}", &good[2..]),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Parent::parse(bad), None, "{bad}");
        }
    }
}
