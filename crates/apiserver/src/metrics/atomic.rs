//! Histograms for what happens too often for a lock and a search.

use super::family::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// With room for up to N - 1 limits; the sum is kept in millionths.
#[derive(Debug)]
pub struct AtomicHistogram<const N: usize> {
    buckets: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Default for AtomicHistogram<N> {
    fn default() -> AtomicHistogram<N> {
        AtomicHistogram { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

impl<const N: usize> AtomicHistogram<N> {
    pub fn observe(&self, limits: &[f64], value: f64) {
        let bucket = limits.partition_point(|limit| *limit < value).min(N - 1);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }

    pub fn took(&self, limits: &[f64], duration: Duration) {
        self.observe(limits, duration.as_secs_f64());
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// As it is now.
    pub fn read(&self) -> Histogram {
        let buckets = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        Histogram::of(buckets, self.sum.load(Ordering::Relaxed) as f64 / 1e6)
    }
}
