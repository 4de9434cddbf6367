//! The file that says which images there are. Any process may change it, under a lock; others see the new file at once.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::Image;
use crate::error::{Context, ImageError, Result};

/// Tells one version of the file from another: each is a new inode.
type Stamp = (u64, u64, i64, i64);

#[derive(Default, Serialize, Deserialize)]
struct Document {
    images: Vec<Image>,
}

#[derive(Debug)]
pub(crate) struct Records {
    path: PathBuf,
    cache: Mutex<Option<(Stamp, Arc<Vec<Image>>)>>,
}

impl Records {
    pub(crate) fn new(root: &Path) -> Self {
        Self { path: root.join("images.json"), cache: Mutex::new(None) }
    }

    /// The images as they are now.
    pub(crate) fn read(&self) -> Result<Arc<Vec<Image>>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
            Err(error) => return Err(error).context("open", &self.path),
        };
        let found = file.metadata().context("read", &self.path)?;
        let stamp = (found.ino(), found.size(), found.mtime(), found.mtime_nsec());
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, images)) = cache.as_ref()
            && *known == stamp
        {
            return Ok(images.clone());
        }
        let document: Document = serde_json::from_reader(io::BufReader::new(file))
            .map_err(|source| ImageError::Document { name: self.path.display().to_string(), source })?;
        let images = Arc::new(document.images);
        *cache = Some((stamp, images.clone()));
        Ok(images)
    }

    /// Changes the images, on disk before it returns. Nothing changes if `change` fails.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Vec<Image>) -> Result<T>) -> Result<T> {
        let lock = self.path.with_extension("lock");
        let file = File::options().read(true).append(true).create(true).open(&lock).context("open", &lock)?;
        file.lock().context("lock", &lock)?;
        let mut images = self.read()?.to_vec();
        let result = change(&mut images)?;
        images.sort_by(|a, b| a.id.cmp(&b.id));
        self.write(&Document { images })?;
        Ok(result)
    }

    fn write(&self, document: &Document) -> Result<()> {
        let new = self.path.with_extension("new");
        let bytes = serde_json::to_vec(document)
            .map_err(|source| ImageError::Document { name: self.path.display().to_string(), source })?;
        let mut options = File::options();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&new).context("create", &new)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).context("write", &new)?;
        fs::rename(&new, &self.path).context("replace", &self.path)?;
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        File::open(parent).and_then(|parent| parent.sync_all()).context("write back", parent)
    }
}
