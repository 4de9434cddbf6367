//! Lending and borrowing: how the server's seats are divided among the limited levels.

/// A level's claim: what it would like, and its bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) target: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// A target is never less than this, so that nothing is divided by zero.
const LEAST: f64 = 0.001;

/// Divides `sum`: each claim gets `share * target`, but not less than its lower or more than its upper bound, with one
/// share for all. None if the bounds don't allow that sum. The share comes with it.
pub(super) fn divide(sum: f64, claims: &[Claim]) -> Option<(Vec<f64>, f64)> {
    let bound = |share: f64, claim: &Claim| (share * claim.target.max(LEAST)).max(claim.low).min(claim.high);
    let total = |share: f64| claims.iter().map(|claim| bound(share, claim)).sum::<f64>();
    let (least, most): (f64, f64) = claims.iter().fold((0.0, 0.0), |(a, b), c| (a + c.low, b + c.high));
    if claims.iter().any(|claim| claim.low < 0.0 || claim.high < claim.low) || sum < least - 1e-7 || sum > most + 1e-7 {
        return None;
    }
    // The total grows with the share: halve the interval in which the right one lies.
    let ceiling = claims.iter().map(|claim| claim.high / claim.target.max(LEAST)).fold(0.0, f64::max);
    let (mut low, mut high) = (0.0, ceiling);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if total(middle) < sum { low = middle } else { high = middle }
    }
    Some((claims.iter().map(|claim| bound(high, claim)).collect(), high))
}

/// Time-weighted statistics of a demand for seats.
#[derive(Debug, Default)]
pub(super) struct Demand {
    since: f64,
    last: f64,
    value: f64,
    /// Integrals of the value and its square.
    sum: f64,
    squares: f64,
    most: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) most: f64,
    pub(super) average: f64,
    pub(super) deviation: f64,
}

impl Demand {
    pub(super) fn new(now: f64) -> Demand {
        Demand { since: now, last: now, ..Demand::default() }
    }

    pub(super) fn set(&mut self, now: f64, value: f64) {
        self.pass(now);
        self.value = value;
        self.most = self.most.max(value);
    }

    fn pass(&mut self, now: f64) {
        let time = (now - self.last).max(0.0);
        self.sum += self.value * time;
        self.squares += self.value * self.value * time;
        self.last = self.last.max(now);
    }

    /// What was seen since the last time this was asked. None if no time has passed.
    pub(super) fn take(&mut self, now: f64) -> Option<Seen> {
        self.pass(now);
        let time = self.last - self.since;
        if time <= 0.0 {
            return None;
        }
        let average = self.sum / time;
        let deviation = (self.squares / time - average * average).max(0.0).sqrt();
        let seen = Seen { most: self.most, average, deviation };
        *self = Demand { value: self.value, most: self.value, ..Demand::new(self.last) };
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(low: f64, target: f64, high: f64) -> Claim {
        Claim { target, low, high }
    }

    #[test]
    fn divisions() {
        type Case<'a> = (f64, &'a [Claim], Option<&'a [f64]>);
        let cases: &[Case] = &[
            (10.0, &[claim(0.0, 1.0, 100.0), claim(0.0, 4.0, 100.0)], Some(&[2.0, 8.0])),
            // One is held up by its lower bound, one is held down by its upper bound.
            (10.0, &[claim(5.0, 5.0, 100.0), claim(0.0, 10.0, 100.0), claim(0.0, 10.0, 1.0)], Some(&[5.0, 4.0, 1.0])),
            (3.0, &[claim(1.0, 1.0, 9.0), claim(2.0, 2.0, 9.0)], Some(&[1.0, 2.0])),
            (18.0, &[claim(1.0, 1.0, 9.0), claim(2.0, 2.0, 9.0)], Some(&[9.0, 9.0])),
            (2.0, &[claim(1.0, 1.0, 9.0), claim(2.0, 2.0, 9.0)], None),
            (19.0, &[claim(1.0, 1.0, 9.0), claim(2.0, 2.0, 9.0)], None),
            (6.0, &[claim(0.0, 0.0, 9.0), claim(0.0, 0.0, 9.0)], Some(&[3.0, 3.0])),
        ];
        for (sum, claims, expected) in cases {
            let found = divide(*sum, claims).map(|(parts, _)| parts);
            match (&found, expected) {
                (Some(found), Some(expected)) => {
                    let close = found.iter().zip(*expected).all(|(a, b)| (a - b).abs() < 1e-6);
                    assert!(close, "{found:?} is not {expected:?}");
                }
                _ => assert_eq!(found.is_some(), expected.is_some(), "{claims:?}"),
            }
        }
    }

    #[test]
    fn demand_is_weighted_by_time() {
        let mut demand = Demand::new(0.0);
        demand.set(1.0, 4.0);
        demand.set(2.0, 0.0);
        let seen = demand.take(4.0).unwrap();
        assert_eq!((seen.most, seen.average), (4.0, 1.0));
        assert!((seen.deviation - 3.0_f64.sqrt()).abs() < 1e-9);
        assert_eq!(demand.take(4.0), None);
        assert_eq!(demand.take(5.0), Some(Seen::default()));
    }
}
