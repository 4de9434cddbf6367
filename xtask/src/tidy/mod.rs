//! Rules of the code base that the compiler does not know.

mod crates;
mod source;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Checks everything and prints what is wrong, each with its place.
pub fn run() -> ExitCode {
    // As it is now, not when this was built: clones may share a target directory.
    let Some(own) = std::env::var_os("CARGO_MANIFEST_DIR") else {
        eprintln!("tidy: run it as `cargo xtask tidy`");
        return ExitCode::FAILURE;
    };
    let root = Path::new(&own).join("..");
    match check(&root) {
        Ok(problems) if problems.is_empty() => {
            println!("tidy: all is well");
            ExitCode::SUCCESS
        }
        Ok(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            eprintln!("tidy: {} problems", problems.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("tidy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(root: &Path) -> io::Result<Vec<String>> {
    let mut problems = Vec::new();
    for folder in ["crates", "benches", "fuzz"] {
        for manifest in files(&root.join(folder), &|path| path.ends_with("Cargo.toml"))? {
            problems.extend(crates::check(&shown(root, &manifest), &fs::read_to_string(&manifest)?));
        }
    }
    for folder in ["crates", "benches", "fuzz", "xtask"] {
        for file in files(&root.join(folder), &|path| path.extension().is_some_and(|e| e == "rs"))? {
            problems.extend(source::check(&shown(root, &file), &fs::read_to_string(&file)?));
        }
    }
    Ok(problems)
}

fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

/// The files below `folder` that are `wanted`, in order.
fn files(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut entries: Vec<fs::DirEntry> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "target" {
                found.extend(files(&path, wanted)?);
            }
        } else if wanted(&path) {
            found.push(path);
        }
    }
    Ok(found)
}
