//! Crontab schedules as CronJobs write them (<https://pkg.go.dev/github.com/robfig/cron/v3>, `ParseStandard`).

use std::time::Duration;

/// When something is to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At the second 0 of the minutes whose parts are all in these sets.
    At(Calendar),
    /// So often, from whenever it started: whole seconds, at least one.
    Every(Duration),
}

/// Sets of numbers, one bit each. Of `days` and `weekdays`, when both are restricted, either is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    pub minutes: u64,
    pub hours: u64,
    pub days: u64,
    pub months: u64,
    /// 0 is Sunday.
    pub weekdays: u64,
    /// Whether `*` or `?` was said of days, of weekdays.
    pub any_day: bool,
    pub any_weekday: bool,
}

struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { min: 0, max: 59, names: &[] };
const HOURS: Bounds = Bounds { min: 0, max: 23, names: &[] };
const DAYS: Bounds = Bounds { min: 1, max: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds = Bounds { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// Reads a schedule; the error is what upstream says. A time zone before it is not a schedule's business here.
pub fn parse(text: &str) -> Result<Schedule, String> {
    if text.is_empty() {
        return Err("empty spec string".into());
    }
    let text = match text.strip_prefix("CRON_TZ=").or(text.strip_prefix("TZ=")) {
        Some(rest) => rest.split_once(' ').map_or("", |(_, rest)| rest.trim()),
        None => text,
    };
    if let Some(interval) = text.strip_prefix("@every ") {
        let interval = duration(interval)
            .ok_or_else(|| format!("failed to parse duration {text}: time: invalid duration {interval:?}"))?;
        return Ok(Schedule::Every(Duration::from_secs(interval.as_secs().max(1))));
    }
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ if text.starts_with('@') => return Err(format!("unrecognized descriptor: {text}")),
        _ => text,
    };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let [minutes, hours, days, months, weekdays] = fields[..] else {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    };
    let (minutes, _) = field(minutes, &MINUTES)?;
    let (hours, _) = field(hours, &HOURS)?;
    let (days, any_day) = field(days, &DAYS)?;
    let (months, _) = field(months, &MONTHS)?;
    let (weekdays, any_weekday) = field(weekdays, &WEEKDAYS)?;
    Ok(Schedule::At(Calendar { minutes, hours, days, months, weekdays, any_day, any_weekday }))
}

/// Go's notation of durations: `1h30m`, `90s`, `1.5h`.
pub fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text, 0.0_f64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = tail;
    }
    Duration::try_from_secs_f64(total).ok()
}

/// The numbers of one field, and whether `*` is among its ranges.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (mut bits, mut any) = (0, false);
    for range_text in text.split(',').filter(|r| !r.is_empty()) {
        let (more, star) = range(range_text, bounds)?;
        bits |= more;
        any |= star;
    }
    Ok((bits, any))
}

fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let mut any = matches!(ends[0], "*" | "?");
    let (start, mut end) = match ends[..] {
        _ if any => (bounds.min, bounds.max),
        [one] => number_or_name(one, bounds).map(|n| (n, n))?,
        [start, end] => (number_or_name(start, bounds)?, number_or_name(end, bounds)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match parts[..] {
        [_] => 1,
        [_, step] => number(step)?,
        _ => return Err(format!("too many slashes: {text}")),
    };
    if parts.len() == 2 && ends.len() == 1 {
        end = bounds.max;
    }
    any &= step <= 1;
    let (min, max) = (bounds.min, bounds.max);
    if start < min {
        return Err(format!("beginning of range ({start}) below minimum ({min}): {text}"));
    }
    if end > max {
        return Err(format!("end of range ({end}) above maximum ({max}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let bits = (start..=end).step_by(step as usize).fold(0, |bits, n| bits | 1 << n);
    Ok((bits, any))
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let name = text.to_lowercase();
    match bounds.names.iter().position(|n| *n == name) {
        Some(at) => Ok(bounds.min + at as u32),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    let refused = |why: &str| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}");
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refused("invalid syntax"));
    }
    let number = text.parse::<i64>().map_err(|_| refused("value out of range"))?;
    if number < 0 {
        return Err(format!("negative number ({number}) not allowed: {text}"));
    }
    // What is larger is beyond all bounds anyway.
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Calendar {
        match parse(text) {
            Ok(Schedule::At(calendar)) => calendar,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn fields() {
        let calendar = at("*/15 2,4-6 ? jan-mar mon");
        assert_eq!(calendar.minutes, 1 | 1 << 15 | 1 << 30 | 1 << 45);
        assert_eq!(calendar.hours, 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6);
        assert_eq!(calendar.months, 0b1110);
        assert_eq!((calendar.weekdays, calendar.any_day, calendar.any_weekday), (0b10, true, false));
        assert_eq!(at("50/5 * * * *").minutes, 1 << 50 | 1 << 55);
        assert_eq!(at("@weekly"), at("0 0 * * sun"));
        assert_eq!(at("TZ=Europe/Zurich 0 0 1 1 *"), at("@yearly"));
        assert!(!at("* * */2 * *").any_day);
        assert_eq!(parse("@every 1h30m"), Ok(Schedule::Every(Duration::from_secs(5400))));
        assert_eq!(parse("@every 1ms"), Ok(Schedule::Every(Duration::from_secs(1))));
    }

    #[test]
    fn refusals() {
        let cases = [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("@x", "unrecognized descriptor: @x"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("-1 * * * *", "failed to parse int from : strconv.Atoi: parsing \"\": invalid syntax"),
            (
                "99999999999999999999 * * * *",
                "failed to parse int from 99999999999999999999: strconv.Atoi: parsing \"99999999999999999999\": value out of range",
            ),
        ];
        for (text, why) in cases {
            assert_eq!(parse(text), Err(why.to_string()), "{text}");
        }
    }
}
