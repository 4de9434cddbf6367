//! Counters and histograms by labels, in the Prometheus text format.

use compact_str::CompactString;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What a metric is called and says of itself.
pub struct Head<'a> {
    pub name: &'a str,
    pub help: &'a str,
    pub stability: &'a str,
}

impl Head<'_> {
    pub fn write(&self, kind: &str, out: &mut String) {
        let Head { name, help, stability } = self;
        let _ = write!(out, "# HELP {name} [{stability}] {help}\n# TYPE {name} {kind}\n");
    }
}

/// `name="value",…`
pub fn labels(names: &[&str], values: &[impl AsRef<str>]) -> String {
    let mut out = String::new();
    for (name, value) in names.iter().zip(values) {
        if !out.is_empty() {
            out.push(',');
        }
        let _ = write!(out, "{name}=\"");
        for c in value.as_ref().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out
}

/// One value; `labels` as [`labels`] makes them.
pub fn sample(name: &str, labels: &str, value: impl std::fmt::Display, out: &mut String) {
    let _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

/// How often what was observed fell into each bucket.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// The last is for what is above all limits.
    buckets: Vec<u64>,
    sum: f64,
}

impl Histogram {
    pub fn observe(&mut self, limits: &[f64], value: f64) {
        self.buckets.resize(limits.len() + 1, 0);
        self.buckets[limits.partition_point(|limit| *limit < value)] += 1;
        self.sum += value;
    }

    pub fn of(buckets: Vec<u64>, sum: f64) -> Histogram {
        Histogram { buckets, sum }
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub fn write(&self, name: &str, labels: &str, limits: &[f64], out: &mut String) {
        let (mut count, comma) = (0, if labels.is_empty() { "" } else { "," });
        for (i, limit) in limits.iter().enumerate() {
            count += self.buckets.get(i).copied().unwrap_or(0);
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{limit}\"}} {count}");
        }
        count += self.buckets.get(limits.len()).copied().unwrap_or(0);
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
        sample(&format!("{name}_sum"), labels, self.sum, out);
        sample(&format!("{name}_count"), labels, count, out);
    }
}

/// More series than this of one metric are not begun: their labels may be what clients say.
const MAX_SERIES: usize = 10_000;

pub struct Counters<const N: usize> {
    pub head: Head<'static>,
    pub labels: [&'static str; N],
    pub values: Mutex<BTreeMap<[CompactString; N], u64>>,
}

impl<const N: usize> Counters<N> {
    pub const fn new(
        name: &'static str,
        stability: &'static str,
        labels: [&'static str; N],
        help: &'static str,
    ) -> Counters<N> {
        Counters { head: Head { name, help, stability }, labels, values: Mutex::new(BTreeMap::new()) }
    }

    pub fn add(&self, labels: [&str; N], n: u64) {
        let mut values = self.values.lock();
        let full = values.len() >= MAX_SERIES;
        let key = labels.map(CompactString::from);
        match values.get_mut(&key) {
            Some(value) => *value += n,
            None if full => {}
            None => drop(values.insert(key, n)),
        }
    }

    pub fn write(&self, out: &mut String) {
        let values = self.values.lock();
        if !values.is_empty() {
            self.head.write("counter", out);
        }
        for (key, value) in &*values {
            sample(self.head.name, &labels(&self.labels, key), value, out);
        }
    }
}

pub struct Histograms<const N: usize> {
    pub head: Head<'static>,
    pub labels: [&'static str; N],
    pub limits: &'static [f64],
    pub values: Mutex<BTreeMap<[CompactString; N], Histogram>>,
}

impl<const N: usize> Histograms<N> {
    pub const fn new(
        name: &'static str,
        stability: &'static str,
        labels: [&'static str; N],
        limits: &'static [f64],
        help: &'static str,
    ) -> Histograms<N> {
        Histograms { head: Head { name, help, stability }, labels, limits, values: Mutex::new(BTreeMap::new()) }
    }

    pub fn observe(&self, labels: [&str; N], value: f64) {
        let mut values = self.values.lock();
        let full = values.len() >= MAX_SERIES;
        let key = labels.map(CompactString::from);
        match values.get_mut(&key) {
            Some(histogram) => histogram.observe(self.limits, value),
            None if full => {}
            None => values.entry(key).or_default().observe(self.limits, value),
        }
    }

    pub fn write(&self, out: &mut String) {
        let values = self.values.lock();
        if !values.is_empty() {
            self.head.write("histogram", out);
        }
        for (key, histogram) in &*values {
            histogram.write(self.head.name, &labels(&self.labels, key), self.limits, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        let counters = Counters::new("c_total", "ALPHA", ["user"], "Counts.");
        counters.add(["a\"\\\n"], 2);
        counters.add(["a\"\\\n"], 1);
        let histograms = Histograms::new("h", "STABLE", ["x"], &[0.5, 1.0], "Takes.");
        [0.5, 0.7, 3.0].iter().for_each(|value| histograms.observe(["y"], *value));
        let mut out = String::new();
        counters.write(&mut out);
        histograms.write(&mut out);
        assert_eq!(
            out,
            r#"# HELP c_total [ALPHA] Counts.
# TYPE c_total counter
c_total{user="a\"\\\n"} 3
# HELP h [STABLE] Takes.
# TYPE h histogram
h_bucket{x="y",le="0.5"} 1
h_bucket{x="y",le="1"} 2
h_bucket{x="y",le="+Inf"} 3
h_sum{x="y"} 4.2
h_count{x="y"} 3
"#
        );
    }
}
