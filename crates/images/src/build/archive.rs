//! Writes images as archives.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use canopus_runtime::layer::Digest;

use super::{BuildSpec, json, write_error};
use crate::error::Result;
use crate::reference::normalize;
use crate::spec::{
    CONFIG, CONTAINERD_NAME, Descriptor, DockerImage, INDEX, Index, LAYER, LAYER_GZIP, MANIFEST, Manifest, Platform,
    REF_NAME, Text,
};

/// Writes an OCI image layout as a tar stream.
pub fn oci_archive(images: &[BuildSpec], out: impl Write) -> Result<()> {
    let mut tar = Archive::new(out);
    let mut index = Index { schema_version: 2, media_type: INDEX.into(), manifests: Vec::new() };
    for image in images {
        let (layers, configuration) = image.render()?;
        let media_type = if image.gzip { LAYER_GZIP } else { LAYER };
        let layers = layers.into_iter().map(|layer| tar.blob(media_type, &layer.bytes)).collect::<Result<Vec<_>>>()?;
        let config = tar.blob(CONFIG, &configuration)?;
        let manifest = Manifest { schema_version: 2, media_type: MANIFEST.into(), config, layers };
        let mut descriptor = tar.blob(MANIFEST, &json(&manifest)?)?;
        descriptor.platform = Some(Platform { architecture: image.architecture.clone(), os: "linux".into() });
        if image.names.is_empty() {
            index.manifests.push(descriptor.clone());
        }
        for name in &image.names {
            let name = normalize(name)?;
            let mut annotations = BTreeMap::from([(CONTAINERD_NAME.to_owned(), name.to_string())]);
            annotations.extend(name.tag.map(|tag| (REF_NAME.to_owned(), tag)));
            index.manifests.push(Descriptor { annotations, ..descriptor.clone() });
        }
    }
    tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.file("index.json", &json(&index)?)?;
    tar.finish()
}

/// Writes what `docker save` wrote before it knew OCI layouts.
pub fn docker_archive(images: &[BuildSpec], out: impl Write) -> Result<()> {
    let mut tar = Archive::new(out);
    let mut list = Vec::new();
    for image in images {
        let (layers, configuration) = image.render()?;
        let mut names = Vec::new();
        for layer in layers {
            let name = format!("{}/layer.tar", layer.diff_id.hex());
            tar.file(&name, &layer.bytes)?;
            names.push(name);
        }
        let config = format!("{}.json", Digest::of(&configuration).hex());
        tar.file(&config, &configuration)?;
        list.push(DockerImage { config, repo_tags: image.names.clone(), layers: names });
    }
    tar.file("manifest.json", &json(&list)?)?;
    tar.finish()
}

struct Archive<W: Write> {
    tar: tar::Builder<W>,
    written: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    fn new(out: W) -> Self {
        Self { tar: tar::Builder::new(out), written: BTreeSet::new() }
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        if !self.written.insert(name.to_owned()) {
            return Ok(());
        }
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        self.tar.append_data(&mut header, name, bytes).map_err(write_error)
    }

    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let digest = Digest::of(bytes);
        self.file(&format!("blobs/sha256/{}", digest.hex()), bytes)?;
        let size = bytes.len() as u64;
        Ok(Descriptor {
            media_type: media_type.into(),
            digest: Text(digest),
            size,
            platform: None,
            annotations: BTreeMap::new(),
        })
    }

    fn finish(self) -> Result<()> {
        self.tar.into_inner().and_then(|mut out| out.flush()).map_err(write_error)
    }
}
