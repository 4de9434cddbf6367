//! Figures, each a line of JSON.

use std::time::Duration;

/// The figures of one benchmark.
pub struct Report {
    bench: &'static str,
}

impl Report {
    pub fn new(bench: &'static str) -> Report {
        eprintln!("{bench}: load average {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
        Report::of(bench)
    }

    /// The same where there is more than one part; says nothing about the machine.
    pub fn of(bench: &'static str) -> Report {
        Report { bench }
    }

    /// A figure with the goal that the design sets for it.
    pub fn goal(&self, figure: &str, value: f64, unit: &str, goal: f64) {
        self.line(figure, value, unit, &goal.to_string());
    }

    /// A figure without a goal of its own.
    pub fn figure(&self, figure: &str, value: f64, unit: &str) {
        self.line(figure, value, unit, "null");
    }

    fn line(&self, figure: &str, value: f64, unit: &str, goal: &str) {
        let value = (value * 1000.0).round() / 1000.0;
        let bench = self.bench;
        println!(r#"{{"bench":"{bench}","figure":"{figure}","value":{value},"unit":"{unit}","goal":{goal}}}"#);
    }
}

/// Durations that were measured.
#[derive(Default)]
pub struct Samples {
    sorted: Vec<Duration>,
}

impl Samples {
    /// The value that `percent` of the samples do not exceed (nearest rank), in milliseconds.
    pub fn ms(&self, percent: usize) -> f64 {
        let rank = (self.sorted.len() * percent).div_ceil(100).max(1);
        self.sorted.get(rank - 1).map_or(f64::NAN, |d| d.as_secs_f64() * 1000.0)
    }

    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(samples: I) -> Samples {
        let mut sorted: Vec<Duration> = samples.into_iter().collect();
        sorted.sort_unstable();
        Samples { sorted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let samples: Samples = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!([samples.ms(0), samples.ms(50), samples.ms(99), samples.ms(100)], [1.0, 100.0, 198.0, 200.0]);
        assert!(Samples::default().ms(50).is_nan());
    }
}
