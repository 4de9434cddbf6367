//! Directories for work in progress: removed when dropped, and by whoever next opens the store after a crash.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::fstree;

/// A private directory that its maker holds a lock on while it lives.
pub struct TempDir {
    path: PathBuf,
    _lock: File,
}

impl TempDir {
    /// Makes one in `parent`.
    pub fn new(parent: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = parent.join(name);
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                // Left by an earlier process of this number, or by one in another pid namespace.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other?,
            }
            // Somebody may be sweeping and have taken it for a leftover before it was locked.
            let Ok(lock) = File::open(&path) else {
                continue;
            };
            match lock.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => continue,
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
            if fs::metadata(&path).is_ok_and(|found| lock.metadata().is_ok_and(|own| own.ino() == found.ino())) {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What cannot be removed now is tried again at the next sweep.
        let _ = remove_path(&self.path);
    }
}

/// Removes what dead processes left in `parent`.
pub fn sweep(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        let Ok(lock) = File::open(&path) else {
            continue;
        };
        if lock.try_lock().is_ok() {
            remove_path(&path)?;
        }
    }
    Ok(())
}

/// Removes the directory at `path` and all in it; one that doesn't exist is no error.
pub(super) fn remove_path(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    match File::open(parent).and_then(|parent| fstree::remove(&parent, OsStr::new(name))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
