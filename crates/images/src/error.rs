use std::io;
use std::path::PathBuf;

use canopus_runtime::layer::Digest;
use canopus_runtime::layer::archive::ArchiveError;
use canopus_runtime::snapshots::SnapshotError;

use crate::reference::ReferenceError;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("failed to {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("failed to read the image archive")]
    Read(#[source] io::Error),
    #[error("failed to read the image archive")]
    Archive(#[source] ArchiveError),
    #[error("the image archive has more than {0} bytes uncompressed")]
    ArchiveTooLarge(u64),
    #[error("neither an OCI image layout (index.json) nor a docker archive (manifest.json)")]
    UnknownFormat,
    #[error("the archive names {0:?} but doesn't have it")]
    Missing(String),
    #[error("failed to understand {name}")]
    Document { name: String, source: serde_json::Error },
    #[error("invalid image: {0}")]
    Invalid(&'static str),
    #[error("{name} has {size} bytes, more than {limit}")]
    TooLarge { name: String, size: u64, limit: u64 },
    #[error("{name} has digest {found}, not {wanted}")]
    Digest { name: String, wanted: Digest, found: Digest },
    #[error("no image for {wanted} in the archive, only for {found}")]
    NoPlatform { wanted: String, found: String },
    #[error("the archive has {0} images: a name can be given to one only")]
    Ambiguous(usize),
    #[error(transparent)]
    Name(#[from] ReferenceError),
    #[error("failed to unpack layer {number} of {count} ({diff_id})")]
    Layer { number: usize, count: usize, diff_id: Digest, source: SnapshotError },
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    #[error("failed to run {0}")]
    Command(String),
    #[error("the work was cancelled")]
    Cancelled,
}

pub type Result<T, E = ImageError> = std::result::Result<T, E>;

pub(crate) trait Context<T> {
    fn context(self, action: &'static str, path: &std::path::Path) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &std::path::Path) -> Result<T> {
        self.map_err(|source| ImageError::Io { action, path: path.into(), source })
    }
}
