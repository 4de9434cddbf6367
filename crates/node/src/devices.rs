//! The host's device nodes, which privileged containers see all of.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use canopus_runtime::cgroups::DeviceRule;
use canopus_runtime::spec::Device;

/// Directories of `/dev` that are the container's own, or hold no devices.
const SKIPPED: [&str; 7] = ["pts", "shm", "mqueue", "fd", ".lxc", ".lxd-mounts", ".udev"];
/// Made in every container by the runtime.
const USUAL: [&str; 8] = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"];

/// Every block and character device below `/dev`. Blocks.
pub fn all() -> Vec<Device> {
    let mut found = Vec::new();
    below(Path::new("/dev"), &mut found);
    found
}

fn below(dir: &Path, found: &mut Vec<Device>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let kind = match meta.file_type() {
            t if t.is_dir() && !SKIPPED.contains(&name.as_str()) => {
                below(&path, found);
                continue;
            }
            t if t.is_char_device() => 'c',
            t if t.is_block_device() => 'b',
            _ => continue,
        };
        if dir == Path::new("/dev") && USUAL.contains(&name.as_str()) {
            continue;
        }
        let number = |n: u64| u32::try_from(n).ok();
        let (major, minor) = (number(libc::major(meta.rdev()).into()), number(libc::minor(meta.rdev()).into()));
        let rule = DeviceRule::new(kind, major, minor, "rwm");
        found.push(Device { path, rule, mode: Some(meta.mode() & 0o7777) });
    }
}
