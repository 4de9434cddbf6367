//! Files of a sandbox. What they say survives agent and shim; what isn't in them, the shim knows.
//!
//! ```text
//! <state>/sandboxes/<id>/sandbox.json         what was asked for
//!                        shim.json            which process holds it
//!                        shim.sock  shim.log
//!                        netns  shm/          mounts
//!                        hostname  resolv.conf
//!                        oci/<container>/     libcontainer's
//!                        containers/<container>/container.json  config.json  exit.json
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::spec::{ContainerSpec, SandboxSpec};

pub(crate) const SANDBOX_FILE: &str = "sandbox.json";
pub(crate) const SHIM_FILE: &str = "shim.json";
pub(crate) const SOCKET: &str = "shim.sock";
pub(crate) const OCI_DIR: &str = "oci";
pub(crate) const CONTAINER_FILE: &str = "container.json";
pub(crate) const EXIT_FILE: &str = "exit.json";
/// No file of ours is longer.
const MAX_FILE: u64 = 8 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SandboxRecord {
    pub(crate) id: String,
    pub(crate) spec: SandboxSpec,
    /// Nanoseconds since 1970.
    pub(crate) created_at: u64,
    /// The pod's group from the root of the hierarchies.
    pub(crate) cgroup: String,
}

/// Identifies a process for as long as the machine runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShimRecord {
    pub(crate) pid: i32,
    /// Clock ticks since boot, from `/proc/<pid>/stat`: tells a reused number apart.
    pub(crate) start_time: u64,
    pub(crate) boot_id: String,
    /// Process 1 of a shared process namespace.
    pub(crate) init: Option<i32>,
}

impl ShimRecord {
    pub(crate) fn of_this_process(init: Option<i32>) -> io::Result<Self> {
        let pid = std::process::id() as i32;
        let start_time = start_time(pid).ok_or_else(|| io::Error::other("/proc/self/stat is not readable"))?;
        Ok(Self { pid, start_time, boot_id: boot_id()?, init })
    }

    pub(crate) fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time) && boot_id().is_ok_and(|id| id == self.boot_id)
    }
}

fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

/// `None` if there is no such process (any more).
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in parentheses, may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    // A zombie has ended; whoever is its parent may take its time.
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    pub(crate) spec: ContainerSpec,
    pub(crate) created_at: u64,
}

/// Writes a file whole: under another name first.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let part = path.with_extension("part");
    let bytes = serde_json::to_vec(value).map_err(io::Error::from).path("encode", path)?;
    let save = || {
        File::create(&part)?.write_all(&bytes)?;
        fs::rename(&part, path)
    };
    save().path("write", path)
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let size = fs::metadata(path).path("read", path)?.len();
    if size > MAX_FILE {
        return Err(Error::Corrupt { path: path.to_owned(), message: "too long".to_owned() });
    }
    let bytes = fs::read(path).path("read", path)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Corrupt { path: path.to_owned(), message: e.to_string() })
}

/// The same, `None` if there is no such file.
pub(crate) fn read_if_there<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match read(path) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// An id becomes a file name, a cgroup's and an argument.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    match !id.is_empty() && id.len() <= 128 && !id.starts_with(['.', '-']) && id.bytes().all(good) {
        true => Ok(()),
        false => Err(Error::Invalid(format!("not an id: {id:?}"))),
    }
}

/// 64 hexadecimal digits.
pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0u8; 32];
    // SAFETY: fills at most the buffer it is given.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if n != bytes.len() as isize {
        return Err(io::Error::last_os_error()).what(|| "get random bytes".to_owned());
    }
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Names of the directories in `dir`, sorted; none if it isn't there.
pub(crate) fn subdirs(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.path("read", dir)?,
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// Paths of one sandbox.
#[derive(Debug, Clone)]
pub(crate) struct SandboxDir(pub(crate) PathBuf);

impl SandboxDir {
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.0.join("containers")
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for bad in ["", ".", "..", "a/b", "-x", "a b", &"x".repeat(129)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
        check_id(&random_id().unwrap()).unwrap();
    }

    #[test]
    fn a_process_is_known_again() {
        let mut record = ShimRecord::of_this_process(None).unwrap();
        assert!(record.alive());
        record.start_time += 1;
        assert!(!record.alive());
    }
}
