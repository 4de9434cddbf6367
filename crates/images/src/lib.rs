//! Container images: names, the store of images on this host, and a builder of small images.
//!
//! [`ImageStore`] is synchronous; [`Images`] offers the same to async code.

pub mod build;
mod error;
mod handle;
mod import;
mod records;
pub mod reference;
mod source;
mod spec;
mod store;
pub mod users;

pub use canopus_runtime::layer::{Digest, Limits};
pub use canopus_runtime::snapshots::Usage;
pub use error::{ImageError, Result};
pub use handle::Images;
pub use reference::{Reference, ReferenceError, normalize};
pub use spec::ImageConfig;
pub use store::{Image, ImageStore};
