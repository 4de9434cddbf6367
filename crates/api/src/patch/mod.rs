//! The patch formats: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and Kubernetes' strategic merge patch.
//!
//! All are pure: the patched tree comes back, to be checked, defaulted and validated like any other body.

pub mod json;
pub mod merge;
mod ordering;
pub mod strategic;

pub use json::json_patch;
pub use merge::merge_patch;
pub use strategic::strategic_merge;

use crate::status::Status;

/// Upstream's answer to a patch that is well formed and does not apply; it does not say why.
fn rejected() -> Status {
    let mut status = Status::new(422, "Invalid", "the server rejected our request due to an error in our request");
    status.details = Some(Box::default());
    status
}
