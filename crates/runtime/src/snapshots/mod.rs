//! Layer directories and the overlay mounts made of them.
//!
//! ```text
//! lock                      shared while layers are added or mounted, exclusive while unused ones are collected
//! layers/<chain id>/fs      a layer as overlayfs wants it; never changed
//! layers/<chain id>/size    its bytes and inodes on disk
//! containers/<id>/          layers (its chain ids, bottom first), upper, work, and rootfs, the mount point
//! empty/0, empty/1          the lowest layers of mounts, so that there are always enough
//! tmp/                      work in progress
//! ```
//!
//! Everything appears by a rename when it is complete and on disk, so a crash leaves nothing half done but what is in
//! `tmp`, which the next [`Snapshots::open`] removes. Several processes may use one store at once.

pub(crate) mod fstree;
mod mount;
mod temp;

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub use fstree::Usage;
pub use temp::{TempDir, sweep};

use crate::layer::{self, Digest, LayerError, Limits};
use mount::{MAX_LAYERS, Writable};

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("failed to {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error("the layer's content is {found}, not {wanted}")]
    DiffId { wanted: Digest, found: Digest },
    #[error("there is no layer {0}")]
    NoLayer(Digest),
    #[error("more than {MAX_LAYERS} layers")]
    TooManyLayers,
    #[error("invalid container id {0:?}")]
    Id(String),
    #[error("container {0} is mounted with other layers")]
    InUse(String),
}

type Result<T, E = SnapshotError> = std::result::Result<T, E>;

trait Context<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| SnapshotError::Io { action, path: path.into(), source })
    }
}

/// A store of layers and container roots below one directory.
#[derive(Debug)]
pub struct Snapshots {
    root: PathBuf,
}

/// Keeps layers from being collected while it lives.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "closing the file releases the lock")] File);

/// Chain ids of layers with these diff ids, bottom first, as the OCI image specification defines them.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => *diff_id,
            Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
        });
    }
    chain
}

impl Snapshots {
    /// Opens or creates the store at `root` and removes what a crash left half done.
    pub fn open(root: &Path) -> Result<Self> {
        let store = Self { root: root.into() };
        for dir in ["layers", "containers", "empty/0", "empty/1", "tmp"] {
            let path = root.join(dir);
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).context("create", &path)?;
        }
        // It is the root directory when an image has no layers.
        let empty = root.join("empty/0");
        fs::set_permissions(&empty, std::os::unix::fs::PermissionsExt::from_mode(0o755)).context("change", &empty)?;
        let tmp = root.join("tmp");
        sweep(&tmp).context("clean", &tmp)?;
        Ok(store)
    }

    /// A private directory on the same file system, gone when dropped.
    pub fn temp_dir(&self) -> Result<TempDir> {
        let tmp = self.root.join("tmp");
        TempDir::new(&tmp).context("create a directory in", &tmp)
    }

    /// Keeps all layers until dropped; take it before [`Snapshots::unpack`] and keep it until they are recorded.
    pub fn hold(&self) -> Result<Hold> {
        let path = self.root.join("lock");
        let file = self.lock_file()?;
        file.lock_shared().context("lock", &path)?;
        Ok(Hold(file))
    }

    fn lock_file(&self) -> Result<File> {
        let path = self.root.join("lock");
        File::options().read(true).append(true).create(true).open(&path).context("open", &path)
    }

    fn layer(&self, chain_id: &Digest) -> PathBuf {
        self.root.join("layers").join(chain_id.hex())
    }

    /// Whether the layer is here.
    pub fn has(&self, chain_id: &Digest) -> bool {
        self.layer(chain_id).is_dir()
    }

    /// Adds the layer in `stream` on top of `parents` (chain ids, bottom first), if it has this diff id.
    pub fn unpack(
        &self,
        _hold: &Hold,
        parents: &[Digest],
        diff_id: &Digest,
        stream: impl Read,
        limits: &Limits,
    ) -> Result<Digest> {
        let chain_id = match parents.last() {
            None => *diff_id,
            Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
        };
        if self.has(&chain_id) {
            return Ok(chain_id);
        }
        let temp = self.temp_dir()?;
        let content = temp.path().join("new").join("fs");
        fs::create_dir_all(&content).context("create", &content)?;
        fs::set_permissions(&content, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .context("change", &content)?;
        let found = layer::apply(stream, &content, &self.directories(parents)?, limits)?.diff_id;
        if found != *diff_id {
            return Err(SnapshotError::DiffId { wanted: *diff_id, found });
        }
        let usage = fstree::usage(&content).context("measure", &content)?;
        let size = temp.path().join("new").join("size");
        fs::write(&size, format!("{} {}\n", usage.bytes, usage.inodes)).context("write", &size)?;
        self.publish(&temp.path().join("new"), &self.layer(&chain_id))?;
        Ok(chain_id)
    }

    /// Moves a finished directory to its place once all of it is on disk. If somebody else was faster, theirs stays.
    fn publish(&self, from: &Path, to: &Path) -> Result<()> {
        let file = File::open(from).context("open", from)?;
        nix::unistd::syncfs(&file).map_err(io::Error::from).context("write back", from)?;
        match fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(()),
            other => other.context("create", to)?,
        }
        self.sync_parent(to)
    }

    fn sync_parent(&self, path: &Path) -> Result<()> {
        let parent = path.parent().unwrap_or(&self.root);
        File::open(parent).and_then(|parent| parent.sync_all()).context("write back", parent)
    }

    /// Directories of layers given bottom first, topmost first as overlayfs takes them.
    fn directories(&self, layers: &[Digest]) -> Result<Vec<PathBuf>> {
        if layers.len() > MAX_LAYERS {
            return Err(SnapshotError::TooManyLayers);
        }
        let found = |id: &Digest| {
            if self.has(id) { Ok(self.layer(id).join("fs")) } else { Err(SnapshotError::NoLayer(*id)) }
        };
        layers.iter().rev().map(found).collect()
    }

    fn container(&self, id: &str) -> Result<PathBuf> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if id.is_empty() || id.len() > 200 || id.starts_with('.') || !id.bytes().all(allowed) {
            return Err(SnapshotError::Id(id.into()));
        }
        Ok(self.root.join("containers").join(id))
    }

    /// Mounts `layers` (chain ids, bottom first) for container `id` and returns where. Unless `readonly`, changes go
    /// to a layer of the container's own. Doing it again finds it done, or mounts it again after a restart of the host.
    pub fn mount(&self, id: &str, layers: &[Digest], readonly: bool) -> Result<PathBuf> {
        let _hold = self.hold()?;
        let container = self.container(id)?;
        let rootfs = container.join("rootfs");
        let mut lowers = self.directories(layers)?;
        let record: String = layers.iter().map(|layer| layer.hex() + "\n").collect();
        if !container.exists() {
            self.prepare(&container, &record, lowers.first())?;
        } else if fs::read_to_string(container.join("layers")).ok().as_ref() != Some(&record) {
            return Err(SnapshotError::InUse(id.into()));
        }
        if mount::is_mounted(&rootfs) {
            return Ok(rootfs);
        }
        lowers.push(self.root.join("empty/0"));
        if readonly {
            // overlayfs wants two layers at least when it has no upper one.
            lowers.extend((lowers.len() < 2).then(|| self.root.join("empty/1")));
            mount::overlay(&lowers, None, &rootfs).context("mount", &rootfs)?;
        } else {
            let (upper, work) = (container.join("upper"), container.join("work"));
            temp::remove_path(&work).context("remove", &work)?;
            fs::DirBuilder::new().mode(0o700).create(&work).context("create", &work)?;
            mount::overlay(&lowers, Some(Writable { upper: &upper, work: &work }), &rootfs)
                .context("mount", &rootfs)?;
        }
        Ok(rootfs)
    }

    /// Makes a container's directories, its root with the attributes of the image's.
    fn prepare(&self, container: &Path, record: &str, top: Option<&PathBuf>) -> Result<()> {
        use std::os::unix::fs::{MetadataExt, chown};
        let temp = self.temp_dir()?;
        let new = temp.path().join("new");
        for dir in ["upper", "work", "rootfs"] {
            let path = new.join(dir);
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).context("create", &path)?;
        }
        let empty = self.root.join("empty/0");
        let (model, upper) = (top.unwrap_or(&empty), new.join("upper"));
        let found = fs::metadata(model).context("read", model)?;
        chown(&upper, Some(found.uid()), Some(found.gid())).context("change", &upper)?;
        fs::set_permissions(&upper, found.permissions()).context("change", &upper)?;
        fs::write(new.join("layers"), record).context("write", &new)?;
        fs::rename(&new, container).context("create", container)
    }

    /// Where the container's root is or would be mounted.
    pub fn rootfs(&self, id: &str) -> Result<PathBuf> {
        Ok(self.container(id)?.join("rootfs"))
    }

    /// Unmounts the container's root, if mounted, and removes its changes. One that doesn't exist is no error.
    pub fn remove(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let rootfs = container.join("rootfs");
        mount::unmount(&rootfs).context("unmount", &rootfs)?;
        let temp = self.temp_dir()?;
        match fs::rename(&container, temp.path().join("old")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.context("remove", &container),
        }
    }

    /// Ids of all containers that have a root here.
    pub fn containers(&self) -> Result<Vec<String>> {
        let mut ids = names(&self.root.join("containers"))?;
        ids.sort();
        Ok(ids)
    }

    /// What the container's own changes take.
    pub fn container_usage(&self, id: &str) -> Result<Usage> {
        let upper = self.container(id)?.join("upper");
        fstree::usage(&upper).context("measure", &upper)
    }

    /// What a layer takes.
    pub fn layer_usage(&self, chain_id: &Digest) -> Result<Usage> {
        let path = self.layer(chain_id).join("size");
        let text = fs::read_to_string(&path).context("read", &path)?;
        let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(bytes), Some(inodes)) => Ok(Usage { bytes, inodes }),
            _ => Err(io::Error::from(io::ErrorKind::InvalidData)).context("understand", &path),
        }
    }

    /// What all layers take together.
    pub fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        for name in names(&self.root.join("layers"))? {
            match Digest::from_hex(&name).map(|id| self.layer_usage(&id)) {
                Ok(Ok(layer)) => usage += layer,
                // Collected since.
                Ok(Err(SnapshotError::Io { source, .. })) if source.kind() == io::ErrorKind::NotFound => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(usage)
    }

    /// Removes layers that neither `live` (asked when no more can be added) nor a container needs, and returns what
    /// they took. None if somebody is adding layers just now: then try later.
    pub fn gc<E: From<SnapshotError>>(
        &self,
        live: impl FnOnce() -> Result<BTreeSet<Digest>, E>,
    ) -> Result<Option<Usage>, E> {
        let lock = self.lock_file()?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => {
                return Err(SnapshotError::Io { action: "lock", path: self.root.join("lock"), source }.into());
            }
        }
        let mut live = live()?;
        live.extend(self.mounted_layers()?);
        let mut freed = Usage::default();
        let temp = self.temp_dir()?;
        for name in names(&self.root.join("layers"))? {
            let Ok(id) = Digest::from_hex(&name) else {
                continue;
            };
            if !live.contains(&id) {
                freed += self.layer_usage(&id)?;
                let path = self.layer(&id);
                fs::rename(&path, temp.path().join(name)).context("remove", &path)?;
            }
        }
        // Deleting takes its time, and nothing leads to these layers any more: let others go on meanwhile.
        drop(lock);
        drop(temp);
        Ok(Some(freed))
    }

    fn mounted_layers(&self) -> Result<BTreeSet<Digest>> {
        let mut layers = BTreeSet::new();
        for id in self.containers()? {
            let path = self.root.join("containers").join(id).join("layers");
            match fs::read_to_string(&path) {
                Ok(text) => layers.extend(text.lines().filter_map(|line| Digest::from_hex(line).ok())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context("read", &path),
            }
        }
        Ok(layers)
    }
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).context("list", dir)?;
    entries.map(|entry| Ok(entry.context("list", dir)?.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests;
