//! Views that tell when they last changed, so that what is derived from them can be kept until then.

use crate::cache::Cache;
use canopus_api::View;

pub trait Changes: View {
    /// Grows with every change of this resource, and only then.
    fn last_change(&self) -> u64;
}

impl Changes for Cache {
    fn last_change(&self) -> u64 {
        Cache::last_change(self)
    }
}
