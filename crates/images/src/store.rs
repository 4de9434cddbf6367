//! The images of this host.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use canopus_runtime::layer::{Digest, Limits};
use canopus_runtime::snapshots::{Hold, Snapshots, Usage, chain_ids};
use serde::{Deserialize, Serialize};

use crate::error::{Context, ImageError, Result};
use crate::import::{Candidate, LayerFile, candidates};
use crate::records::Records;
use crate::reference::{Reference, normalize};
use crate::source::Source;
use crate::spec::{ImageConfig, Text};

/// An image that is here, ready to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Digest of its configuration, `sha256:…`.
    pub id: String,
    /// Full names with tags: `docker.io/library/hello:1`.
    pub repo_tags: Vec<String>,
    /// Full names with digests: `docker.io/library/hello@sha256:…`.
    pub repo_digests: Vec<String>,
    /// Bytes it takes on disk, layers shared with other images included.
    pub size: u64,
    pub config: ImageConfig,
    /// Chain ids of its layers, bottom first.
    layers: Vec<Text<Digest>>,
}

/// Images and the roots of the containers made from them, below one directory. Several processes may use it at once:
/// each sees the others' changes at its next call.
#[derive(Debug)]
pub struct ImageStore {
    snapshots: Snapshots,
    records: Records,
    limits: Limits,
}

impl ImageStore {
    /// Opens or creates the store at `root`.
    pub fn open(root: &Path) -> Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root).context("create", root)?;
        let snapshots = Snapshots::open(&root.join("snapshots"))?;
        Ok(Self { snapshots, records: Records::new(root), limits: Limits::default() })
    }

    /// Sets what one archive and each of its layers may hold at most.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Imports all images for this host from an OCI layout directory or from an archive file, see
    /// [`ImageStore::import_archive`].
    pub fn import(&self, path: &Path, name: Option<&str>) -> Result<Vec<Image>> {
        if path.is_dir() {
            return self.import_source(&Source::directory(path)?, name);
        }
        self.import_archive(File::open(path).context("open", path)?, name)
    }

    /// Imports all images for this host from a tar stream, plain, gzip or zstd, of an OCI layout or of `docker save`.
    /// `name` replaces the names in the archive, which must then have one image only.
    pub fn import_archive(&self, stream: impl Read, name: Option<&str>) -> Result<Vec<Image>> {
        let temp = self.snapshots.temp_dir()?;
        self.import_source(&Source::archive(stream, temp, &self.limits)?, name)
    }

    fn import_source(&self, source: &Source, name: Option<&str>) -> Result<Vec<Image>> {
        let name = name.map(normalize).transpose()?;
        let mut found = candidates(source)?;
        if let Some(name) = name {
            if found.len() > 1 {
                return Err(ImageError::Ambiguous(found.len()));
            }
            found.iter_mut().for_each(|candidate| candidate.names = vec![name.clone()]);
        }
        let hold = self.snapshots.hold()?;
        let imported = found.iter().map(|candidate| self.unpack(source, candidate, &hold)).collect::<Result<Vec<_>>>();
        let imported = imported.and_then(|images| self.record(images));
        drop(hold);
        if imported.is_err() {
            // Layers unpacked before the error belong to nothing; if others are importing now, they go next time.
            self.gc()?;
        }
        imported
    }

    /// Unpacks the layers that are not here yet.
    fn unpack(&self, source: &Source, candidate: &Candidate, hold: &Hold) -> Result<Image> {
        let diff_ids: Vec<Digest> = candidate.configuration.rootfs.diff_ids.iter().map(|id| id.0).collect();
        let chain = chain_ids(&diff_ids);
        let mut size = 0;
        for (at, (diff_id, file)) in diff_ids.iter().zip(&candidate.layers).enumerate() {
            let failed =
                |source| ImageError::Layer { number: at + 1, count: diff_ids.len(), diff_id: *diff_id, source };
            if !self.snapshots.has(&chain[at]) {
                let stream = match file {
                    LayerFile::Blob { digest, size } => source.blob(digest, *size)?,
                    LayerFile::Named(name) => source.open(name)?.ok_or_else(|| ImageError::Missing(name.clone()))?,
                };
                self.snapshots.unpack(hold, &chain[..at], diff_id, stream, &self.limits).map_err(failed)?;
            }
            size += self.snapshots.layer_usage(&chain[at]).map_err(failed)?.bytes;
        }
        Ok(Image {
            id: candidate.id.to_string(),
            repo_tags: candidate.names.iter().filter_map(Reference::tagged).collect(),
            repo_digests: repo_digests(candidate),
            size,
            config: candidate.configuration.config.clone(),
            layers: chain.into_iter().map(Text).collect(),
        })
    }

    /// Adds images, or names to images known already; a tag leaves the image that had it.
    fn record(&self, new: Vec<Image>) -> Result<Vec<Image>> {
        self.records.update(|images| {
            let mut ids = BTreeSet::new();
            for image in new {
                for known in images.iter_mut() {
                    known.repo_tags.retain(|tag| !image.repo_tags.contains(tag));
                }
                ids.insert(image.id.clone());
                match images.iter_mut().find(|known| known.id == image.id) {
                    Some(known) => {
                        add(&mut known.repo_tags, image.repo_tags);
                        add(&mut known.repo_digests, image.repo_digests);
                    }
                    None => images.push(image),
                }
            }
            Ok(images.iter().filter(|image| ids.contains(&image.id)).cloned().collect())
        })
    }

    /// All images, by id.
    pub fn list(&self) -> Result<Vec<Image>> {
        Ok(self.records.read()?.to_vec())
    }

    /// The image with this name (short or full, by tag or digest) or id (with `sha256:` or without).
    pub fn resolve(&self, reference: &str) -> Result<Option<Image>> {
        let Some(wanted) = Wanted::parse(reference) else { return Ok(None) };
        Ok(self.records.read()?.iter().find(|image| wanted.is(image)).cloned())
    }

    /// Removes an image with all its names, by name or id, and returns it; one that isn't here is no error. Containers
    /// made from it keep what they need.
    pub fn remove(&self, reference: &str) -> Result<Option<Image>> {
        let Some(wanted) = Wanted::parse(reference) else { return Ok(None) };
        if !self.records.read()?.iter().any(|image| wanted.is(image)) {
            return Ok(None);
        }
        let removed = self.records.update(|images| {
            let at = images.iter().position(|image| wanted.is(image));
            Ok(at.map(|at| images.remove(at)))
        })?;
        self.gc()?;
        Ok(removed)
    }

    /// Mounts a root for a container: the image with a layer for the container's changes, or the image alone if
    /// `readonly`. Done again for the same container, it returns the same path.
    pub fn rootfs(&self, image: &Image, container_id: &str, readonly: bool) -> Result<PathBuf> {
        let layers: Vec<Digest> = image.layers.iter().map(|layer| layer.0).collect();
        Ok(self.snapshots.mount(container_id, &layers, readonly)?)
    }

    /// Unmounts a container's root and removes its changes; one that isn't here is no error.
    pub fn release(&self, container_id: &str) -> Result<()> {
        Ok(self.snapshots.remove(container_id)?)
    }

    /// Containers that have a root here, those of earlier runs too.
    pub fn containers(&self) -> Result<Vec<String>> {
        Ok(self.snapshots.containers()?)
    }

    /// What a container's changes take on disk.
    pub fn container_usage(&self, container_id: &str) -> Result<Usage> {
        Ok(self.snapshots.container_usage(container_id)?)
    }

    /// What all images take on disk together.
    pub fn usage(&self) -> Result<Usage> {
        Ok(self.snapshots.usage()?)
    }

    /// Removes layers that no image and no container needs and returns what they took; none if images are being
    /// imported just now.
    pub fn gc(&self) -> Result<Option<Usage>> {
        self.snapshots.gc(|| {
            let images = self.records.read()?;
            Ok(images.iter().flat_map(|image| &image.layers).map(|layer| layer.0).collect())
        })
    }
}

fn repo_digests(candidate: &Candidate) -> Vec<String> {
    let Some(manifest) = candidate.manifest else { return Vec::new() };
    let names: BTreeSet<String> = candidate.names.iter().map(Reference::repository).collect();
    names.into_iter().map(|name| format!("{name}@{manifest}")).collect()
}

fn add(known: &mut Vec<String>, new: Vec<String>) {
    known.extend(new);
    known.sort();
    known.dedup();
}

/// What a caller calls an image.
enum Wanted {
    Id(String),
    Tag(String),
    Digest(String),
}

impl Wanted {
    fn parse(reference: &str) -> Option<Self> {
        if reference.parse::<Digest>().is_ok() {
            return Some(Self::Id(reference.into()));
        }
        if let Ok(digest) = Digest::from_hex(reference) {
            return Some(Self::Id(digest.to_string()));
        }
        let reference = normalize(reference).ok()?;
        // A digest says it all; a tag beside it is for people.
        match &reference.digest {
            Some(digest) => Some(Self::Digest(format!("{}@{digest}", reference.repository()))),
            None => reference.tagged().map(Self::Tag),
        }
    }

    fn is(&self, image: &Image) -> bool {
        match self {
            Self::Id(id) => image.id == *id,
            Self::Tag(name) => image.repo_tags.contains(name),
            Self::Digest(name) => image.repo_digests.contains(name),
        }
    }
}
