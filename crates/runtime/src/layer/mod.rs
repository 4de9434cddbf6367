//! Applies image layers to directories.
//!
//! [`apply`] unpacks one layer, a tar stream that may be gzip or zstd compressed, into an empty directory that will
//! be an overlayfs layer: whiteouts become overlayfs's own marks. It follows the OCI image layer specification and
//! trusts nothing in the stream: no name leads outside the directory, and bytes, members and names are bounded.
//! What it leaves behind after an error is the caller's to remove.

pub mod archive;
mod decompress;
mod digest;
mod pax;
mod place;
mod tree;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

pub use decompress::decompress;
pub use digest::{Digest, DigestError, Hashing, TooManyBytes};

use archive::{ArchiveError, Reader};

/// What one layer may hold at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the uncompressed stream; also the most a sparse file may claim.
    pub bytes: u64,
    /// Members of the archive, extended headers included.
    pub members: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 30, members: 2_000_000 }
    }
}

/// What was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Digest of the uncompressed stream, to be compared with the image configuration's.
    pub diff_id: Digest,
    /// Length of the uncompressed stream.
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("failed to open the layer's directory {path}")]
    Open { path: PathBuf, source: Errno },
    #[error("failed to read the layer")]
    Read(#[source] io::Error),
    #[error("failed to read the layer")]
    Archive(#[source] ArchiveError),
    #[error("the layer has more than {0} bytes uncompressed")]
    TooLarge(u64),
    #[error("refused layer member {path:?}: {reason}")]
    Refused { path: String, reason: &'static str },
    #[error("failed to create layer member {path:?}")]
    Create { path: String, source: io::Error },
}

impl From<ArchiveError> for LayerError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Read(error) => error.into(),
            other => Self::Archive(other),
        }
    }
}

impl From<io::Error> for LayerError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|cause| cause.downcast_ref::<TooManyBytes>()) {
            Some(TooManyBytes(limit)) => Self::TooLarge(*limit),
            None => Self::Read(error),
        }
    }
}

/// Applies the layer in `stream` to the empty directory `target`, which nobody else uses meanwhile.
///
/// `lowers` are the layers below, topmost first: directories the layer names but doesn't describe take their
/// attributes from there, and symlinks there are followed. Needs root's capabilities.
pub fn apply(stream: impl Read, target: &Path, lowers: &[PathBuf], limits: &Limits) -> Result<Applied, LayerError> {
    let mut placer = place::Placer::new(target, lowers, limits.bytes)?;
    let mut reader = Reader::new(Hashing::new(decompress(stream)?, limits.bytes), limits.members);
    while let Some(member) = reader.next_member()? {
        placer.place(&member, &mut reader)?;
    }
    placer.finish()?;
    let mut stream = reader.into_inner();
    io::copy(&mut stream, &mut io::sink())?;
    let (diff_id, bytes) = stream.finish();
    Ok(Applied { diff_id, bytes })
}

#[cfg(test)]
mod tests;
