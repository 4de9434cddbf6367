//! A container's working directory need not exist in its image: it is made, as runc does.

use std::fs::File;
use std::io;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};

/// Reads root and working directory from the bundle and makes what is missing. Symbolic links are
/// followed inside the root only.
pub(super) fn create(bundle: &Path) -> io::Result<()> {
    let config: serde_json::Value =
        serde_json::from_reader(io::BufReader::new(File::open(bundle.join("config.json"))?))?;
    let text = |pointer| config.pointer(pointer).and_then(|v| v.as_str());
    let (Some(root), Some(cwd)) = (text("/root/path"), text("/process/cwd")) else { return Ok(()) };
    make(&File::open(root)?, Path::new(cwd))
}

fn make(root: &File, path: &Path) -> io::Result<()> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let open = |path: &Path| openat2(root, path, how);
    let mut done = Path::new("/").to_path_buf();
    let mut parent = open(&done)?;
    for part in path.components().filter(|c| matches!(c, Component::Normal(_))) {
        done.push(part);
        parent = match open(&done) {
            Err(Errno::ENOENT) => {
                mkdirat(&parent, Path::new(part.as_os_str()), Mode::from_bits_truncate(0o755))?;
                open(&done)?
            }
            other => other?,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn directories_are_made_inside_the_root_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir(root.join("inner")).unwrap();
        symlink("/inner", root.join("link")).unwrap();
        symlink("../../..", root.join("out")).unwrap();
        let handle = File::open(&root).unwrap();
        for cwd in ["/a/b", "/link/c", "/out/d"] {
            make(&handle, Path::new(cwd)).unwrap();
        }
        for made in ["a/b", "inner/c", "d"] {
            assert!(root.join(made).is_dir(), "{made}");
        }
    }
}
