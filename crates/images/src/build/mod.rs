//! Builds small images for tests and demonstrations: the same specification always gives the same bytes.

mod archive;
mod busybox;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use canopus_runtime::layer::Digest;
use flate2::{Compression, GzBuilder};

use crate::error::{Context, ImageError, Result};
use crate::import::host_platform;
use crate::spec::{Configuration, ImageConfig, RootFs, Text};

pub use archive::{docker_archive, oci_archive};
pub use busybox::{BUSYBOX, busybox};

/// What an image holds and how it starts. Files go to the last layer begun.
///
/// ```
/// let spec = canopus_images::build::BuildSpec::new("hello:1").file("/etc/motd", 0o644, "hi\n").symlink("/motd", "etc/motd");
/// let mut archive = Vec::new();
/// canopus_images::build::oci_archive(&[spec], &mut archive).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct BuildSpec {
    /// Names, full or short.
    pub names: Vec<String>,
    pub config: ImageConfig,
    architecture: String,
    gzip: bool,
    layers: Vec<Vec<Item>>,
}

#[derive(Debug, Clone)]
struct Item {
    path: String,
    mode: u32,
    owner: (u32, u32),
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Bytes(Vec<u8>),
    Host(PathBuf),
    Symlink(String),
    HardLink(String),
    Directory,
}

impl BuildSpec {
    /// An image of one empty layer; `name` may be empty.
    pub fn new(name: &str) -> Self {
        let names = Vec::from_iter((!name.is_empty()).then(|| name.to_owned()));
        let architecture = host_platform().architecture;
        Self { names, config: ImageConfig::default(), architecture, gzip: true, layers: vec![Vec::new()] }
    }

    pub fn file(self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        self.item(path, mode, Content::Bytes(bytes.into()))
    }

    /// A file with the content of one on this host.
    pub fn host_file(self, path: &str, mode: u32, host: impl Into<PathBuf>) -> Self {
        self.item(path, mode, Content::Host(host.into()))
    }

    /// A directory; those above files need not be given.
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.item(path, mode, Content::Directory)
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.item(path, 0o777, Content::Symlink(target.into()))
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.item(path, 0o644, Content::HardLink(target.trim_start_matches('/').into()))
    }

    /// Removes what the layers below have at `path`.
    pub fn whiteout(self, path: &str) -> Self {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.file(&format!("{parent}/.wh.{name}"), 0, "")
    }

    /// Hides what the layers below have in the directory `path`.
    pub fn opaque(self, path: &str) -> Self {
        self.file(&format!("{path}/.wh..wh..opq"), 0, "")
    }

    /// Owner and group of the item given last.
    pub fn owned_by(mut self, uid: u32, gid: u32) -> Self {
        if let Some(item) = self.layers.last_mut().and_then(|layer| layer.last_mut()) {
            item.owner = (uid, gid);
        }
        self
    }

    /// Begins a layer on top.
    pub fn layer(mut self) -> Self {
        self.layers.push(Vec::new());
        self
    }

    /// For hosts of another kind: `amd64`, `arm64`, …
    pub fn architecture(mut self, architecture: &str) -> Self {
        self.architecture = architecture.into();
        self
    }

    /// Leaves layers uncompressed.
    pub fn uncompressed(mut self) -> Self {
        self.gzip = false;
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.config.env.push(format!("{name}={value}"));
        self
    }

    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.config.entrypoint = words.iter().map(ToString::to_string).collect();
        self
    }

    pub fn cmd(mut self, words: &[&str]) -> Self {
        self.config.cmd = words.iter().map(ToString::to_string).collect();
        self
    }

    pub fn workdir(mut self, path: &str) -> Self {
        self.config.working_dir = path.into();
        self
    }

    pub fn user(mut self, user: &str) -> Self {
        self.config.user = user.into();
        self
    }

    fn item(mut self, path: &str, mode: u32, content: Content) -> Self {
        let item = Item { path: path.trim_start_matches('/').into(), mode, owner: (0, 0), content };
        match self.layers.last_mut() {
            Some(layer) => layer.push(item),
            None => self.layers.push(vec![item]),
        }
        self
    }

    /// The layers as archives hold them, and the configuration.
    fn render(&self) -> Result<(Vec<Layer>, Vec<u8>)> {
        // Directories that a layer below has are left out: giving them again would change their modes.
        let mut dirs = BTreeSet::new();
        let layers = self.layers.iter().map(|items| Layer::render(items, &mut dirs, self.gzip));
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let configuration = Configuration {
            created: "1970-01-01T00:00:00Z".into(),
            architecture: self.architecture.clone(),
            os: "linux".into(),
            config: self.config.clone(),
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids: layers.iter().map(|layer| Text(layer.diff_id)).collect(),
            },
        };
        Ok((layers, json(&configuration)?))
    }
}

struct Layer {
    diff_id: Digest,
    bytes: Vec<u8>,
}

impl Layer {
    fn render<'a>(items: &'a [Item], dirs: &mut BTreeSet<&'a str>, gzip: bool) -> Result<Self> {
        let mut tar = tar::Builder::new(Vec::new());
        for item in items {
            for (at, _) in item.path.match_indices('/') {
                if dirs.insert(&item.path[..at]) {
                    let parent =
                        Item { path: item.path[..at].into(), mode: 0o755, owner: (0, 0), content: Content::Directory };
                    append(&mut tar, &parent)?;
                }
            }
            if matches!(item.content, Content::Directory) {
                dirs.insert(&item.path);
            }
            append(&mut tar, item)?;
        }
        let bytes = tar.into_inner().map_err(write_error)?;
        let diff_id = Digest::of(&bytes);
        if !gzip {
            return Ok(Self { diff_id, bytes });
        }
        // No name and no time in the header, so that the bytes don't depend on them.
        let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
        encoder.write_all(&bytes).map_err(write_error)?;
        Ok(Self { diff_id, bytes: encoder.finish().map_err(write_error)? })
    }
}

fn append(tar: &mut tar::Builder<Vec<u8>>, item: &Item) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(item.mode);
    header.set_uid(item.owner.0.into());
    header.set_gid(item.owner.1.into());
    header.set_mtime(0);
    header.set_size(0);
    let (kind, result) = match &item.content {
        Content::Bytes(bytes) => return add_file(tar, header, &item.path, bytes).map_err(write_error),
        Content::Host(path) => {
            let bytes = fs::read(path).context("read", path)?;
            return add_file(tar, header, &item.path, &bytes).map_err(write_error);
        }
        Content::Symlink(target) => (tar::EntryType::Symlink, Some(target)),
        Content::HardLink(target) => (tar::EntryType::Link, Some(target)),
        Content::Directory => (tar::EntryType::Directory, None),
    };
    header.set_entry_type(kind);
    let appended = match result {
        Some(target) => tar.append_link(&mut header, &item.path, target),
        None => tar.append_data(&mut header, format!("{}/", item.path), io::empty()),
    };
    appended.map_err(write_error)
}

fn add_file(tar: &mut tar::Builder<Vec<u8>>, mut header: tar::Header, path: &str, bytes: &[u8]) -> io::Result<()> {
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, path, bytes)
}

fn write_error(source: io::Error) -> ImageError {
    ImageError::Io { action: "write", path: Path::new("an image archive").into(), source }
}

fn json(document: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(document).map_err(|source| ImageError::Document { name: "an image document".into(), source })
}
