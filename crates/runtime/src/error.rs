//! Errors of this crate.

use std::io;
use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    #[error("no such sandbox: {0}")]
    NoSandbox(String),
    #[error("no such container: {0}")]
    NoContainer(String),
    #[error("{0} exists already")]
    Exists(String),
    /// The sandbox's shim is gone: after a reboot, or because something killed it.
    #[error("sandbox {0} is not running")]
    NotReady(String),
    /// The shim refused or failed.
    #[error("{message}")]
    Shim { code: crate::proto::Code, message: String },
    #[error("failed to {what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{path} is not what it should be: {message}")]
    Corrupt { path: PathBuf, message: String },
}

impl Error {
    /// True for a sandbox or container that is not there (any more).
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::NoSandbox(_) | Self::NoContainer(_) | Self::Shim { code: crate::proto::Code::NotFound, .. }
        )
    }
}

/// Says what an I/O error interrupted.
pub(crate) trait Context<T> {
    fn what(self, what: impl FnOnce() -> String) -> Result<T>;

    fn path(self, verb: &str, path: &Path) -> Result<T>
    where
        Self: Sized,
    {
        self.what(|| format!("{verb} {}", path.display()))
    }
}

impl<T> Context<T> for io::Result<T> {
    fn what(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source })
    }
}
