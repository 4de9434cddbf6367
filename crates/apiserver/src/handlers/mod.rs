//! What each verb does, written once for all resources. HTTP and the in-process API both end here.

mod binding;
pub mod decode;
pub mod delete;
mod deletion;
mod eviction;
mod outdated;
mod owners;
pub mod read;
mod reset;
mod scale;
pub mod subresources;
mod token;
mod versions;
pub mod write;

use canopus_api::Object;
use std::sync::Arc;

/// The outcome of a write.
#[derive(Debug)]
pub struct Written {
    pub object: Arc<Object>,
    pub created: bool,
    /// For `Warning` headers.
    pub warnings: Vec<String>,
}
