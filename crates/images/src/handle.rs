//! The store for async code.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::users::{self, User};
use crate::{Image, ImageError, ImageStore, Result, Usage};

/// A shared [`ImageStore`] whose methods run where they may block.
#[derive(Debug, Clone)]
pub struct Images(Arc<ImageStore>);

impl Images {
    /// See [`ImageStore::open`].
    pub async fn open(root: PathBuf) -> Result<Self> {
        let store = blocking(move || ImageStore::open(&root)).await?;
        Ok(Self(Arc::new(store)))
    }

    /// The store itself, for code that may block.
    pub fn store(&self) -> &ImageStore {
        &self.0
    }

    /// See [`ImageStore::import`].
    pub async fn import(&self, path: PathBuf, name: Option<String>) -> Result<Vec<Image>> {
        self.run(move |store| store.import(&path, name.as_deref())).await
    }

    /// See [`ImageStore::import_archive`].
    pub async fn import_archive(&self, stream: impl Read + Send + 'static, name: Option<String>) -> Result<Vec<Image>> {
        self.run(move |store| store.import_archive(stream, name.as_deref())).await
    }

    /// See [`ImageStore::list`].
    pub async fn list(&self) -> Result<Vec<Image>> {
        self.run(ImageStore::list).await
    }

    /// See [`ImageStore::resolve`].
    pub async fn resolve(&self, reference: &str) -> Result<Option<Image>> {
        let reference = reference.to_owned();
        self.run(move |store| store.resolve(&reference)).await
    }

    /// See [`ImageStore::remove`].
    pub async fn remove(&self, reference: &str) -> Result<Option<Image>> {
        let reference = reference.to_owned();
        self.run(move |store| store.remove(&reference)).await
    }

    /// See [`ImageStore::rootfs`].
    pub async fn rootfs(&self, image: Image, container_id: &str, readonly: bool) -> Result<PathBuf> {
        let id = container_id.to_owned();
        self.run(move |store| store.rootfs(&image, &id, readonly)).await
    }

    /// See [`ImageStore::release`].
    pub async fn release(&self, container_id: &str) -> Result<()> {
        let id = container_id.to_owned();
        self.run(move |store| store.release(&id)).await
    }

    /// See [`ImageStore::container_usage`].
    pub async fn container_usage(&self, container_id: &str) -> Result<Usage> {
        let id = container_id.to_owned();
        self.run(move |store| store.container_usage(&id)).await
    }

    /// See [`ImageStore::usage`].
    pub async fn usage(&self) -> Result<Usage> {
        self.run(ImageStore::usage).await
    }

    /// See [`ImageStore::gc`].
    pub async fn gc(&self) -> Result<Option<Usage>> {
        self.run(ImageStore::gc).await
    }

    /// See [`users::resolve`].
    pub async fn user(&self, rootfs: &Path, user: &str) -> Result<User> {
        let (rootfs, user) = (rootfs.to_owned(), user.to_owned());
        blocking(move || users::resolve(&rootfs, &user)).await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&ImageStore) -> Result<T> + Send + 'static) -> Result<T> {
        let store = self.0.clone();
        blocking(move || work(&store)).await
    }
}

/// How many operations may be under way at once: they keep a disk busy, not a machine full of threads.
static OPERATIONS: Semaphore = Semaphore::const_new(8);

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let _permit = OPERATIONS.acquire().await.map_err(|_| ImageError::Cancelled)?;
    // A panic goes on where it was asked for; only a runtime that shuts down cancels.
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ImageError::Cancelled),
        },
    }
}
