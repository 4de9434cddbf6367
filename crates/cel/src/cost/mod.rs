//! What expressions cost: what they did cost ([`actual`]) and what they may cost at most ([`estimate`]).
//!
//! Units are upstream's, since estimates decide which rules a CustomResourceDefinition may have: one for a step, a tenth
//! for a character gone through, ten for a list made.

mod actual;
mod calls;
mod estimate;

pub(crate) use actual::actual;
pub(crate) use estimate::estimate;

pub(crate) const STRING_FACTOR: f64 = 0.1;
pub(crate) const REGEX_FACTOR: f64 = 0.25;
pub(crate) const LIST: u64 = 10;
pub(crate) const MAP: u64 = 30;
pub(crate) const STRUCT: u64 = 40;
/// A check of authorization: no more than two fit into one evaluation.
pub(crate) const CHECK: u64 = 350_000;

/// A range of sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) min: u64,
    pub(crate) max: u64,
}

/// A range of costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostEstimate {
    pub min: u64,
    pub max: u64,
}

fn by_factor(x: u64, factor: f64) -> u64 {
    // Casts saturate.
    (x as f64 * factor).ceil() as u64
}

impl Size {
    pub(crate) const UNKNOWN: Size = Size { min: 0, max: u64::MAX };

    pub(crate) fn fixed(n: u64) -> Size {
        Size { min: n, max: n }
    }

    pub(crate) fn plus(self, other: Size) -> Size {
        Size { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(crate) fn times(self, other: Size) -> Size {
        Size { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub(crate) fn by(self, factor: f64) -> CostEstimate {
        CostEstimate { min: by_factor(self.min, factor), max: by_factor(self.max, factor) }
    }

    pub(crate) fn by_cost(self, cost: CostEstimate) -> CostEstimate {
        CostEstimate { min: self.min.saturating_mul(cost.min), max: self.max.saturating_mul(cost.max) }
    }

    pub(crate) fn union(self, other: Size) -> Size {
        Size { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

impl CostEstimate {
    pub(crate) fn fixed(n: u64) -> CostEstimate {
        CostEstimate { min: n, max: n }
    }

    pub(crate) fn plus(self, other: CostEstimate) -> CostEstimate {
        CostEstimate { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(crate) fn times(self, other: CostEstimate) -> CostEstimate {
        CostEstimate { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub(crate) fn by(self, factor: f64) -> CostEstimate {
        CostEstimate { min: by_factor(self.min, factor), max: by_factor(self.max, factor) }
    }

    pub(crate) fn union(self, other: CostEstimate) -> CostEstimate {
        CostEstimate { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// What parsing a selector costs: the text, and so many requirements as may be in it.
pub(crate) fn selector(length: Size) -> CostEstimate {
    let requirements = length.by(0.5).by((LIST + STRUCT) as f64);
    CostEstimate::fixed(LIST).plus(length.by(STRING_FACTOR)).plus(requirements)
}
