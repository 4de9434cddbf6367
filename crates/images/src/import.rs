//! Finds the images in an archive or directory that this host can run, and checks all but their layers.

use canopus_runtime::layer::Digest;

use crate::error::{ImageError, Result};
use crate::reference::{Reference, normalize};
use crate::source::{Source, parse};
use crate::spec::{
    CONFIG, CONTAINERD_NAME, Configuration, DOCKER_LIST, DOCKER_MANIFEST, Descriptor, DockerImage, INDEX, Index,
    MANIFEST, Manifest, Platform, REF_NAME,
};

const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const MAX_IMAGES: usize = 1000;
const MAX_NESTING: u32 = 4;

/// An image found, its layers not read yet.
pub(crate) struct Candidate {
    /// Digest of the configuration.
    pub id: Digest,
    /// Digest of what a registry would know it by: the manifest's, or the index's above it.
    pub manifest: Option<Digest>,
    pub configuration: Configuration,
    pub layers: Vec<LayerFile>,
    pub names: Vec<Reference>,
}

/// Where a layer's bytes are.
pub(crate) enum LayerFile {
    Blob {
        digest: Digest,
        size: u64,
    },
    /// By name and checked by its diff id alone.
    Named(String),
}

pub(crate) fn host_platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    };
    Platform { architecture: architecture.into(), os: "linux".into() }
}

/// All images for this host. It is an error if there is none.
pub(crate) fn candidates(source: &Source) -> Result<Vec<Candidate>> {
    let mut search = Search { source, host: host_platform(), others: Vec::new() };
    let found = if let Some(bytes) = source.read("index.json")? {
        search.layout(&parse("index.json", &bytes)?)?
    } else if let Some(bytes) = source.read("manifest.json")? {
        search.docker(&parse::<Vec<DockerImage>>("manifest.json", &bytes)?)?
    } else {
        return Err(ImageError::UnknownFormat);
    };
    if found.is_empty() {
        let text = |platform: &Platform| format!("{}/{}", platform.os, platform.architecture);
        let others: Vec<String> = search.others.iter().take(20).map(text).collect();
        let found = if others.is_empty() { "things that are not images".into() } else { others.join(", ") };
        return Err(ImageError::NoPlatform { wanted: text(&search.host), found });
    }
    Ok(merge(found))
}

struct Search<'a> {
    source: &'a Source,
    host: Platform,
    /// Platforms of images that this host can't run.
    others: Vec<Platform>,
}

impl Search<'_> {
    fn layout(&mut self, index: &Index) -> Result<Vec<Candidate>> {
        if index.manifests.len() > MAX_IMAGES {
            return Err(ImageError::Invalid("too many images"));
        }
        let mut found: Vec<Candidate> = Vec::new();
        for descriptor in &index.manifests {
            let Some(mut candidate) = self.descriptor(descriptor, 0)? else { continue };
            candidate.manifest = Some(descriptor.digest.0);
            candidate.names.extend(name_of(descriptor)?);
            found.push(candidate);
        }
        Ok(found)
    }

    /// The image that a descriptor leads to, if this host can run it.
    fn descriptor(&mut self, descriptor: &Descriptor, depth: u32) -> Result<Option<Candidate>> {
        if let Some(platform) = descriptor.platform.as_ref().filter(|platform| !self.fits(platform)) {
            self.others.push(platform.clone());
            return Ok(None);
        }
        match descriptor.media_type.as_str() {
            INDEX | DOCKER_LIST if depth >= MAX_NESTING => Err(ImageError::Invalid("indexes nested too deep")),
            INDEX | DOCKER_LIST => {
                let bytes = self.source.document(&descriptor.digest.0, descriptor.size)?;
                let index: Index = parse("an image index", &bytes)?;
                if index.manifests.len() > MAX_IMAGES {
                    return Err(ImageError::Invalid("too many images"));
                }
                for inner in &index.manifests {
                    if let Some(found) = self.descriptor(inner, depth + 1)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
            MANIFEST | DOCKER_MANIFEST => self.manifest(descriptor),
            _ => Ok(None),
        }
    }

    fn manifest(&mut self, descriptor: &Descriptor) -> Result<Option<Candidate>> {
        let bytes = self.source.document(&descriptor.digest.0, descriptor.size)?;
        let manifest: Manifest = parse("an image manifest", &bytes)?;
        if !matches!(manifest.config.media_type.as_str(), CONFIG | DOCKER_CONFIG | "") {
            return Ok(None);
        }
        let id = manifest.config.digest.0;
        let bytes = self.source.document(&id, manifest.config.size)?;
        let layers = manifest.layers.iter().map(|layer| LayerFile::Blob { digest: layer.digest.0, size: layer.size });
        self.candidate(id, &bytes, layers.collect(), Vec::new())
    }

    fn docker(&mut self, images: &[DockerImage]) -> Result<Vec<Candidate>> {
        if images.len() > MAX_IMAGES {
            return Err(ImageError::Invalid("too many images"));
        }
        let mut found = Vec::new();
        for image in images {
            let bytes = self.source.read(&image.config)?.ok_or_else(|| ImageError::Missing(image.config.clone()))?;
            let names = image.repo_tags.iter().map(|tag| normalize(tag)).collect::<Result<_, _>>()?;
            let layers = image.layers.iter().cloned().map(LayerFile::Named).collect();
            found.extend(self.candidate(Digest::of(&bytes), &bytes, layers, names)?);
        }
        Ok(found)
    }

    fn candidate(
        &mut self,
        id: Digest,
        bytes: &[u8],
        layers: Vec<LayerFile>,
        names: Vec<Reference>,
    ) -> Result<Option<Candidate>> {
        let configuration: Configuration = parse("an image configuration", bytes)?;
        let platform = Platform { architecture: configuration.architecture.clone(), os: configuration.os.clone() };
        if !self.fits(&platform) {
            self.others.push(platform);
            return Ok(None);
        }
        if configuration.rootfs.diff_ids.len() != layers.len() {
            return Err(ImageError::Invalid("manifest and configuration have different numbers of layers"));
        }
        Ok(Some(Candidate { id, manifest: None, configuration, layers, names }))
    }

    fn fits(&self, platform: &Platform) -> bool {
        *platform == self.host
    }
}

/// The name that annotations give. An `org.opencontainers.image.ref.name` that is a bare word is a tag within a
/// repository the archive doesn't name (the specification leaves it open), so it names nothing here.
fn name_of(descriptor: &Descriptor) -> Result<Option<Reference>> {
    if let Some(name) = descriptor.annotations.get(CONTAINERD_NAME) {
        return Ok(Some(normalize(name)?));
    }
    let name = descriptor.annotations.get(REF_NAME).filter(|name| name.contains(['/', ':']));
    Ok(name.map(|name| normalize(name)).transpose()?)
}

/// One candidate per image, with the names of all its occurrences.
fn merge(found: Vec<Candidate>) -> Vec<Candidate> {
    let mut merged: Vec<Candidate> = Vec::new();
    for candidate in found {
        match merged.iter_mut().find(|known| known.id == candidate.id && known.manifest == candidate.manifest) {
            Some(known) => known.names.extend(candidate.names),
            None => merged.push(candidate),
        }
    }
    merged
}
