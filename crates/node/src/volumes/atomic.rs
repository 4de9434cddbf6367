//! Replaces a volume's files all at once: they live in a fresh directory that
//! the `..data` link is swapped to, so a container never sees half an update.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

/// One projected file. `mode` holds permission bits only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    /// The writer itself when absent.
    pub owner: Option<u32>,
    /// Owning group (`fsGroup`); the writer's own when absent.
    pub group: Option<u32>,
}

/// The whole content of a volume, by path relative to its root.
pub type Payload = BTreeMap<String, File>;

/// Makes `root` (an existing directory) show exactly `payload`.
///
/// Returns whether anything was written. Fails with `InvalidInput`, before
/// touching the disk, if a path is absolute, empty, too long, holds a `..`
/// component or begins with `..`.
pub fn write(root: &Path, payload: &Payload) -> io::Result<bool> {
    for path in payload.keys() {
        validate(path)?;
    }
    let old = match fs::read_link(root.join(DATA)) {
        Ok(target) => Some(plain_name(target)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let changed = match &old {
        Some(old) => !same(&root.join(old), payload)?,
        None => true,
    };
    if changed {
        let new = fresh_directory(root)?;
        let swapped = fill(&root.join(&new), payload).and_then(|()| swap(root, &new));
        if let Err(error) = swapped {
            // The first error is the one to report; the leftover is harmless.
            let _ = fs::remove_dir_all(root.join(&new));
            return Err(error);
        }
    }
    // Also when unchanged: an earlier call may have stopped after the swap.
    link_names(root, payload)?;
    if changed && let Some(old) = old {
        match fs::remove_dir_all(root.join(old)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(changed)
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn validate(path: &str) -> io::Result<()> {
    if path.len() > MAX_PATH || path.contains('\0') {
        return Err(invalid("invalid path: too long or holds a NUL".into()));
    }
    let normal =
        Path::new(path).components().all(|part| matches!(part, Component::Normal(name) if name.len() <= MAX_NAME));
    if path.is_empty() || path.starts_with("..") || !normal {
        return Err(invalid(format!("invalid path: {path:?}")));
    }
    Ok(())
}

/// `..data` must point beside itself: its target is removed later.
fn plain_name(target: PathBuf) -> io::Result<PathBuf> {
    let mut parts = target.components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) => Ok(target),
        _ => Err(invalid(format!("{DATA} points outside its volume: {target:?}"))),
    }
}

fn fresh_directory(root: &Path) -> io::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    let name = format!("..{}_{:09}", now.as_secs(), now.subsec_nanos());
    fs::DirBuilder::new().mode(0o755).create(root.join(&name))?;
    fs::set_permissions(root.join(&name), fs::Permissions::from_mode(0o755))?;
    Ok(name)
}

fn fill(directory: &Path, payload: &Payload) -> io::Result<()> {
    for (path, file) in payload {
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        out.write_all(&file.data)?;
        if file.group.is_some() || file.owner.is_some() {
            fchown(&out, file.owner, file.group)?;
        }
        // Last, and explicitly: the umask must not change what was asked for.
        out.set_permissions(fs::Permissions::from_mode(file.mode & 0o7777))?;
    }
    Ok(())
}

fn swap(root: &Path, new: &str) -> io::Result<()> {
    let link = root.join(DATA_NEW);
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(new, &link)?;
    fs::rename(link, root.join(DATA))
}

fn link_names(root: &Path, payload: &Payload) -> io::Result<()> {
    let tops: BTreeSet<&OsStr> = payload.keys().filter_map(|path| Path::new(path).iter().next()).collect();
    for name in &tops {
        match symlink(Path::new(DATA).join(name), root.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = entry.file_type()?.is_symlink() && name != DATA;
        if ours && !tops.contains(name.as_os_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn same(directory: &Path, payload: &Payload) -> io::Result<bool> {
    let mut found = 0;
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        let entries = match fs::read_dir(&next) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        for entry in entries {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_dir() {
                open.push(path);
                continue;
            }
            let key = path.strip_prefix(directory).ok().and_then(Path::to_str);
            let Some(wanted) = key.and_then(|key| payload.get(key)) else { return Ok(false) };
            let fits = meta.is_file()
                && meta.len() == wanted.data.len() as u64
                && meta.permissions().mode() & 0o7777 == wanted.mode & 0o7777;
            if !fits || fs::read(&path)? != wanted.data {
                return Ok(false);
            }
            found += 1;
        }
    }
    Ok(found == payload.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { data: text.into(), mode: 0o640, owner: None, group: None };
        files.iter().map(|(path, text)| (path.to_string(), file(text))).collect()
    }

    #[test]
    fn replaces_adds_and_removes_files() {
        let root = std::env::temp_dir().join(format!("canopus-atomic-{}", std::process::id()));
        fs::create_dir(&root).unwrap();
        assert!(write(&root, &payload(&[("a", "1"), ("d/b", "2")])).unwrap());
        assert!(!write(&root, &payload(&[("a", "1"), ("d/b", "2")])).unwrap());
        let mode = fs::metadata(root.join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        assert!(write(&root, &payload(&[("a", "3"), ("c", "4")])).unwrap());
        assert_eq!(fs::read(root.join("a")).unwrap(), b"3");
        assert_eq!(fs::read(root.join("c")).unwrap(), b"4");
        assert!(fs::symlink_metadata(root.join("d")).is_err());
        // a, c, ..data and the one directory it points to
        assert_eq!(fs::read_dir(&root).unwrap().count(), 4);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn refuses_paths_that_leave_the_volume() {
        for path in ["", "/a", "../a", "a/../b", "..data", "./a", "a\0"] {
            let error = write(Path::new("/nonexistent"), &payload(&[(path, "")])).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path:?}");
        }
    }
}
