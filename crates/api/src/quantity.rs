//! Resource quantities: `100m`, `1.5Gi`, `12e6` (upstream `resource.Quantity`).

use std::fmt;

/// A fixed-point number with the family of suffixes it was written in. Exact to 1e-9; finer values are rounded up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    /// In units of 1e-9.
    nanos: i128,
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

const NANO: i128 = 1_000_000_000;
/// Upstream caps quantities at 2^63 - 1.
const MAX: i128 = i64::MAX as i128 * NANO;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct BadQuantity;

impl Quantity {
    pub fn from_int(value: i64) -> Quantity {
        Quantity { nanos: i128::from(value) * NANO, format: Format::DecimalSi }
    }

    pub fn from_milli(value: i64) -> Quantity {
        Quantity { nanos: i128::from(value) * 1_000_000, format: Format::DecimalSi }
    }

    /// A number of bytes, printed with Ki, Mi, Gi where it divides.
    pub fn from_bytes(value: i64) -> Quantity {
        Quantity { nanos: i128::from(value) * NANO, format: Format::BinarySi }
    }

    pub fn parse(text: &str) -> Result<Quantity, BadQuantity> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 100 {
            return Err(BadQuantity);
        }
        let (multiplier, format) = suffix_value(suffix)?;
        let nanos = scaled(whole, fraction, multiplier);
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
    }

    /// Rounded up to whole units (upstream `Value()`).
    pub fn value(&self) -> i64 {
        self.ceil(NANO)
    }

    /// Rounded up to thousandths (upstream `MilliValue()`).
    pub fn milli_value(&self) -> i64 {
        self.ceil(1_000_000)
    }

    fn ceil(&self, unit: i128) -> i64 {
        let rounded = self.nanos.div_euclid(unit) + i128::from(self.nanos.rem_euclid(unit) != 0);
        rounded.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number.
    pub fn is_integer(&self) -> bool {
        self.nanos % NANO == 0
    }

    pub fn plus(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format }
    }

    pub fn minus(self, other: Quantity) -> Quantity {
        self.plus(Quantity { nanos: -other.nanos, format: self.format })
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// A suffix's value as (base, exponent).
enum Multiplier {
    Ten(i32),
    Two(u32),
}

fn suffix_value(suffix: &str) -> Result<(Multiplier, Format), BadQuantity> {
    use Format::{BinarySi, DecimalSi};
    use Multiplier::{Ten, Two};
    Ok(match suffix {
        "n" => (Ten(-9), DecimalSi),
        "u" => (Ten(-6), DecimalSi),
        "m" => (Ten(-3), DecimalSi),
        "" => (Ten(0), DecimalSi),
        "k" => (Ten(3), DecimalSi),
        "M" => (Ten(6), DecimalSi),
        "G" => (Ten(9), DecimalSi),
        "T" => (Ten(12), DecimalSi),
        "P" => (Ten(15), DecimalSi),
        "E" => (Ten(18), DecimalSi),
        "Ki" => (Two(10), BinarySi),
        "Mi" => (Two(20), BinarySi),
        "Gi" => (Two(30), BinarySi),
        "Ti" => (Two(40), BinarySi),
        "Pi" => (Two(50), BinarySi),
        "Ei" => (Two(60), BinarySi),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(BadQuantity)?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || digits.len() > 6 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(BadQuantity);
            }
            (Ten(exponent.parse().map_err(|_| BadQuantity)?), Format::DecimalExponent)
        }
    })
}

/// `whole.fraction × multiplier` in nanos, rounded up, capped.
fn scaled(whole: &str, fraction: &str, multiplier: Multiplier) -> i128 {
    // Thirty digits hold every value below the cap; what lies beyond the capped ones only decides rounding.
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').collect();
    let (ten, two) = match multiplier {
        Multiplier::Ten(e) => (e, 0),
        Multiplier::Two(e) => (0, e),
    };
    let mut exponent = ten + 9 - i32::try_from(fraction.len()).unwrap_or(0);
    let mut value: i128 = 0;
    let mut lost = false;
    for (i, digit) in digits.iter().enumerate() {
        match value.checked_mul(10).filter(|v| *v < MAX * 1_000_000) {
            Some(v) => value = v + i128::from(*digit),
            None => {
                lost |= digits[i..].iter().any(|d| *d != 0);
                exponent += i32::try_from(digits.len() - i).unwrap_or(0);
                break;
            }
        }
    }
    value = value.checked_shl(two).filter(|v| v >> two == value).unwrap_or(i128::MAX / 2);
    while exponent > 0 && value != 0 && value < MAX {
        value = value.saturating_mul(10);
        exponent -= 1;
    }
    while exponent < 0 && value != 0 {
        lost |= value % 10 != 0;
        value /= 10;
        exponent += 1;
        if value == 0 {
            lost = true;
        }
    }
    (value + i128::from(lost)).min(MAX)
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that allows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi && self.nanos % NANO == 0 && self.nanos.abs() >= 1024 * NANO {
            let (mut value, mut power) = (self.nanos / NANO, 0);
            while value % 1024 == 0 && power < 6 {
                value /= 1024;
                power += 1;
            }
            return write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let (mut value, mut power) = (self.nanos, 0usize);
        while value % 1000 == 0 && power < 9 {
            value /= 1000;
            power += 1;
        }
        match self.format {
            Format::DecimalExponent if power != 3 => write!(f, "{value}e{}", power as i32 * 3 - 9),
            _ => write!(f, "{value}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][power]),
        }
    }
}

impl From<Quantity> for crate::Value {
    fn from(q: Quantity) -> crate::Value {
        q.to_string().into()
    }
}

/// A quantity in a tree: a string or a bare number. None when it is neither or malformed.
impl Quantity {
    pub fn from_value(value: &crate::Value) -> Option<Quantity> {
        match value {
            crate::Value::Str(s) => Quantity::parse(s).ok(),
            crate::Value::Int(i) => Some(Quantity::from_int(*i)),
            crate::Value::Float(x) => Quantity::parse(&x.to_string()).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms() {
        let cases = [
            ("0", "0"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1.5Gi", "1536Mi"),
            ("1Gi", "1Gi"),
            ("1024Ki", "1Mi"),
            ("1000Ki", "1000Ki"),
            ("512", "512"),
            ("1000", "1k"),
            ("12e6", "12e6"),
            ("1e3", "1e3"),
            ("-5", "-5"),
            ("0.5Ki", "512"),
            ("1E", "1E"),
            ("100Ei", "9223372036854775807"),
            ("0.0000000001", "1n"),
            ("1.", "1"),
            (".5", "500m"),
        ];
        for (text, canonical) in cases {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn bad_ones() {
        for bad in ["", "1.2.3", "x", "1x", "1 Gi", "--1", "1e", "1Kii", "e3", "1e+", "."] {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rounding_is_up() {
        assert_eq!(Quantity::parse("1.0001").unwrap().milli_value(), 1001);
        assert_eq!(Quantity::parse("1m").unwrap().value(), 1);
        assert_eq!(Quantity::parse("-1500m").unwrap().value(), -1);
        assert_eq!(Quantity::parse("64Mi").unwrap().value(), 64 << 20);
    }

    proptest! {
        #[test]
        fn canonical_is_stable(text in "[+-]?[0-9]{1,12}(\\.[0-9]{1,6})?(m|k|M|Gi|Ki|e3|E|u|n)?") {
            let q = Quantity::parse(&text).unwrap();
            prop_assert_eq!(Quantity::parse(&q.to_string()).unwrap(), q);
        }

        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = Quantity::parse(&text);
        }
    }
}
