//! `canopus image`: the images on this host.

use super::{DataDir, output};
use anyhow::{Context, Result, bail};
use canopus_images::{Image, ImageStore};
use clap::{Args, Subcommand};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Import, list and remove the container images on this host
#[derive(Args)]
#[command(after_help = "\
Examples:
  canopus image import app.tar
  docker save app:1 | canopus image import -
  canopus image ls
  canopus image rm app:1")]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Subcommand)]
enum ImageCommand {
    Import(ImportArgs),
    Ls(LsArgs),
    Rm(RmArgs),
    Busybox(BusyboxArgs),
}

/// Import images from OCI or docker archives, or from OCI layout directories
#[derive(Args)]
#[command(after_help = "\
Examples:
  canopus image import app.tar
  canopus image import --name registry.example/app:1 app.tar.gz
  docker save app:1 | canopus image import -")]
struct ImportArgs {
    #[command(flatten)]
    data: DataDir,
    /// Call the image this instead of what the archive says
    #[arg(long)]
    name: Option<String>,
    /// Archives (tar, plain or compressed with gzip or zstd) or directories; `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// List images
#[derive(Args)]
#[command(
    visible_alias = "list",
    after_help = "\
Examples:
  canopus image ls
  canopus image ls --quiet"
)]
struct LsArgs {
    #[command(flatten)]
    data: DataDir,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

/// Remove images; containers made from them keep what they need
#[derive(Args)]
#[command(
    visible_alias = "remove",
    after_help = "\
Examples:
  canopus image rm app:1
  canopus image rm sha256:0f1e…"
)]
struct RmArgs {
    #[command(flatten)]
    data: DataDir,
    /// Names or ids
    #[arg(required = true)]
    images: Vec<String>,
}

/// Pack this host's static busybox as a small OCI image
#[derive(Args)]
#[command(after_help = "\
Examples:
  canopus image busybox --name demo:1 --output demo.tar
  canopus image busybox --name app:1 --env VERSION=1 --file serve:/bin/serve --output app.tar")]
struct BusyboxArgs {
    /// Name of the image
    #[arg(long, default_value = "busybox:latest")]
    name: String,
    /// The statically linked busybox (Debian's package busybox-static)
    #[arg(long, default_value = canopus_images::build::BUSYBOX)]
    binary: PathBuf,
    /// Environment variables of the image's containers
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair('='))]
    env: Vec<(String, String)>,
    /// Files of this host, and where in the image to put them; their modes stay
    #[arg(long, value_name = "FILE:PATH", value_parser = pair(':'))]
    file: Vec<(String, String)>,
    /// The archive to write
    #[arg(short, long)]
    output: PathBuf,
}

pub fn run(args: ImageArgs) -> Result<()> {
    match args.command {
        ImageCommand::Import(args) => import(&args),
        ImageCommand::Ls(args) => list(&args),
        ImageCommand::Rm(args) => remove(&args),
        ImageCommand::Busybox(args) => busybox(&args),
    }
}

fn open(data: &DataDir) -> Result<ImageStore> {
    let path = data.join("images");
    ImageStore::open(&path).with_context(|| format!("failed to open the image store {}", path.display()))
}

fn import(args: &ImportArgs) -> Result<()> {
    if args.name.is_some() && args.files.len() > 1 {
        bail!("--name can be given for one file only");
    }
    let store = open(&args.data)?;
    for file in &args.files {
        let name = args.name.as_deref();
        let imported = if file == Path::new("-") {
            store.import_archive(std::io::stdin().lock(), name)
        } else {
            store.import(file, name)
        };
        for image in imported.with_context(|| format!("failed to import {}", file.display()))? {
            output::print(&format!("imported {}\n", title(&image)))?;
        }
    }
    Ok(())
}

fn title(image: &Image) -> String {
    if image.repo_tags.is_empty() { image.id.clone() } else { format!("{} ({})", image.repo_tags.join(", "), image.id) }
}

fn list(args: &LsArgs) -> Result<()> {
    let images = open(&args.data)?.list().context("failed to list images")?;
    if args.quiet {
        return output::print(&images.iter().map(|image| format!("{}\n", image.id)).collect::<String>());
    }
    let mut rows = vec![["IMAGE", "TAG", "IMAGE ID", "SIZE"].map(String::from).to_vec()];
    for image in &images {
        rows.extend(lines(&image.id, &image.repo_tags, image.size));
    }
    output::print(&output::columns(&rows))
}

/// One line for each name of an image.
fn lines(id: &str, tags: &[String], size: u64) -> Vec<Vec<String>> {
    let short: String = id.trim_start_matches("sha256:").chars().take(12).collect();
    let line = |name: &str, tag: &str| vec![name.into(), tag.into(), short.clone(), output::human_size(size)];
    if tags.is_empty() {
        return vec![line("<none>", "<none>")];
    }
    tags.iter()
        .map(|full| full.rsplit_once(':').map_or_else(|| line(full, ""), |(name, tag)| line(name, tag)))
        .collect()
}

fn remove(args: &RmArgs) -> Result<()> {
    let store = open(&args.data)?;
    let mut missing = Vec::new();
    for name in &args.images {
        match store.remove(name).with_context(|| format!("failed to remove {name}"))? {
            Some(image) => output::print(&format!("removed {}\n", title(&image)))?,
            None => missing.push(name.as_str()),
        }
    }
    if !missing.is_empty() {
        bail!("no such image: {}", missing.join(", "));
    }
    Ok(())
}

/// Reads two texts with a character between them.
fn pair(separator: char) -> impl Fn(&str) -> Result<(String, String), String> + Clone + Send + Sync {
    move |text| match text.split_once(separator) {
        Some((left, right)) if !left.is_empty() => Ok((left.into(), right.into())),
        _ => Err(format!("there must be a {separator:?} in it, with something before")),
    }
}

fn busybox(args: &BusyboxArgs) -> Result<()> {
    let why = || format!("failed to pack {} (is the package busybox-static installed?)", args.binary.display());
    let mut spec = canopus_images::build::busybox(&args.name, &args.binary).with_context(why)?;
    for (name, value) in &args.env {
        spec = spec.env(name, value);
    }
    for (file, path) in &args.file {
        let metadata = std::fs::metadata(file).with_context(|| format!("failed to read {file}"))?;
        spec = spec.host_file(path, metadata.permissions().mode() & 0o7777, file);
    }
    let failed = || format!("failed to write {}", args.output.display());
    let mut out = BufWriter::new(File::create(&args.output).with_context(failed)?);
    canopus_images::build::oci_archive(&[spec], &mut out).with_context(failed)?;
    out.flush().with_context(failed)?;
    output::print(&format!("wrote {} to {}\n", args.name, args.output.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_line_for_each_name() {
        let id = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let tags = ["docker.io/library/a:1".to_string(), "localhost:5000/b:2".to_string()];
        let shown = output::columns(&lines(id, &tags, 1500));
        assert_eq!(
            shown,
            "docker.io/library/a   1   0123456789ab   1.50kB\nlocalhost:5000/b      2   0123456789ab   1.50kB\n"
        );
        assert_eq!(output::columns(&lines(id, &[], 1)), "<none>   <none>   0123456789ab   1B\n");
    }
}
