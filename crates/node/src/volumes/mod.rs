//! Volumes on the host: directories, memory, and files that show API objects, replaced atomically.

pub mod atomic;
pub mod subpath;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use atomic::File;
use canopus_api::{Quantity, Value};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::env::{self, Facts, References};
use crate::pod;

pub use atomic::{Payload, write};

/// Bound tokens by (audience, seconds).
pub type Tokens = BTreeMap<(String, i64), String>;

/// A volume's type: the name of the field that is set.
pub fn kind(volume: &Value) -> &str {
    volume.entries().find(|(k, v)| *k != "name" && !v.is_null()).map_or("", |(k, _)| k.as_str())
}

/// The directory of a volume below a pod's own.
pub fn path(pod_dir: &Path, volume: &Value) -> PathBuf {
    let plugin = match kind(volume) {
        "emptyDir" => "kubernetes.io~empty-dir",
        "secret" => "kubernetes.io~secret",
        "configMap" => "kubernetes.io~configmap",
        "downwardAPI" => "kubernetes.io~downward-api",
        "hostPath" => return PathBuf::from(volume["hostPath"]["path"].str()),
        _ => "kubernetes.io~projected",
    };
    pod_dir.join("volumes").join(plugin).join(volume["name"].str())
}

/// Whether a volume's files are written from API objects.
pub fn has_payload(volume: &Value) -> bool {
    matches!(kind(volume), "configMap" | "secret" | "downwardAPI" | "projected")
}

/// ConfigMaps and Secrets a volume refers to.
pub fn references(volume: &Value) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut add = |source: &Value, name_field: &str| {
        if !source["configMap"].is_null() {
            found.push(("ConfigMap", source["configMap"]["name"].str().to_owned()));
        }
        if !source["secret"].is_null() {
            found.push(("Secret", source["secret"][name_field].str().to_owned()));
        }
    };
    add(volume, "secretName");
    for source in volume["projected"]["sources"].items() {
        add(source, "name");
    }
    found
}

/// The bound tokens a volume asks for: audience and seconds.
pub fn tokens(volume: &Value) -> Vec<(String, i64)> {
    let sources = volume["projected"]["sources"].items().iter().filter_map(|s| s.get("serviceAccountToken"));
    sources.map(token_key).collect()
}

fn token_key(source: &Value) -> (String, i64) {
    (source["audience"].str().to_owned(), source["expirationSeconds"].as_i64().unwrap_or(3600))
}

/// Makes the directory, mount or check that the volume's type asks for, once. `memory` bounds what is kept in
/// memory. Blocks.
pub fn prepare(pod_dir: &Path, volume: &Value, fs_group: Option<u32>, memory: Option<i64>) -> Result<(), String> {
    let target = path(pod_dir, volume);
    let kind = kind(volume);
    match kind {
        "hostPath" => return host_path(&target, volume["hostPath"]["type"].str()),
        "emptyDir" | "configMap" | "downwardAPI" | "secret" | "projected" => {}
        other => return Err(format!("no volume plugin matched: {other:?} volumes are not supported")),
    }
    let failed = |e: io::Error| format!("failed to set up {}: {e}", target.display());
    let mode = if fs_group.is_some() { 0o2777 } else { 0o777 };
    let in_memory = match kind {
        "emptyDir" => volume["emptyDir"]["medium"].str() == "Memory",
        kind => kind != "configMap" && kind != "downwardAPI",
    };
    if !in_memory {
        return directory(&target, mode, fs_group).map_err(failed);
    }
    fs::create_dir_all(&target).map_err(failed)?;
    if is_mount(&target).map_err(failed)? {
        return Ok(());
    }
    let limit = Quantity::from_value(&volume["emptyDir"]["sizeLimit"]).filter(|q| !q.is_zero()).map(|q| q.value());
    let size = limit.into_iter().chain(memory.filter(|_| kind == "emptyDir")).min();
    let mut options = format!("mode={mode:o}");
    options.extend(size.map(|bytes| format!(",size={bytes}")));
    options.extend(fs_group.map(|group| format!(",gid={group}")));
    mount(Some("tmpfs"), &target, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).map_err(|e| failed(e.into()))
}

/// Makes a directory with mode and group all at once: what containers change of it later stays.
fn directory(target: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    if target.exists() {
        return Ok(());
    }
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    fs::create_dir_all(parent)?;
    // No volume's name begins with a dot.
    let fresh = parent.join(format!(".{}", name.to_string_lossy()));
    match fs::create_dir(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    std::os::unix::fs::chown(&fresh, None, group)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))?;
    fs::rename(&fresh, target)
}

fn is_mount(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok(fs::symlink_metadata(path)?.dev() != fs::symlink_metadata(parent)?.dev())
}

fn host_path(path: &Path, wanted: &str) -> Result<(), String> {
    let shown = path.display();
    let failed = |e: io::Error| format!("hostPath {shown}: {e}");
    let there = fs::metadata(path).ok().map(|m| m.file_type());
    let good = match (wanted, there) {
        ("", _) => true,
        ("DirectoryOrCreate", None) => {
            fs::create_dir_all(path).map_err(failed)?;
            true
        }
        ("FileOrCreate", None) => {
            fs::File::create_new(path).map_err(failed)?;
            true
        }
        ("DirectoryOrCreate" | "Directory", Some(t)) => t.is_dir(),
        ("FileOrCreate" | "File", Some(t)) => t.is_file(),
        ("Socket", Some(t)) => t.is_socket(),
        ("CharDevice", Some(t)) => t.is_char_device(),
        ("BlockDevice", Some(t)) => t.is_block_device(),
        _ => false,
    };
    let what = match wanted {
        "DirectoryOrCreate" | "Directory" => "a directory",
        "FileOrCreate" | "File" => "a file",
        "Socket" => "a socket file",
        "CharDevice" => "a character device",
        _ => "a block device",
    };
    if good { Ok(()) } else { Err(format!("hostPath type check failed: {shown} is not {what}")) }
}

/// What the files of a volume are to hold now.
pub fn payload(
    volume: &Value,
    facts: &Facts,
    refs: &References,
    tokens: &Tokens,
    group: Option<u32>,
) -> Result<Payload, String> {
    let mut files = Payload::new();
    let source = &volume[kind(volume)];
    let mode = mode_of(&source["defaultMode"], 0o644);
    match kind(volume) {
        "configMap" => object("ConfigMap", source["name"].str(), source, refs, mode, &mut files)?,
        "secret" => object("Secret", source["secretName"].str(), source, refs, mode, &mut files)?,
        "downwardAPI" => downward(source, facts, mode, &mut files)?,
        _ => {
            for source in source["sources"].items() {
                projected(source, facts, refs, tokens, mode, &mut files)?;
            }
        }
    }
    for file in files.values_mut().filter(|_| group.is_some()) {
        // As upstream: owner and the pod's group may read.
        file.group = group;
        file.mode |= 0o440;
    }
    Ok(files)
}

fn mode_of(value: &Value, default: u32) -> u32 {
    value.as_i64().and_then(|m| u32::try_from(m).ok()).map_or(default, |m| m & 0o777)
}

fn projected(
    source: &Value,
    facts: &Facts,
    refs: &References,
    tokens: &Tokens,
    mode: u32,
    files: &mut Payload,
) -> Result<(), String> {
    if let Some(s) = source.get("configMap") {
        object("ConfigMap", s["name"].str(), s, refs, mode, files)?;
    }
    if let Some(s) = source.get("secret") {
        object("Secret", s["name"].str(), s, refs, mode, files)?;
    }
    if let Some(s) = source.get("downwardAPI") {
        downward(s, facts, mode, files)?;
    }
    if let Some(s) = source.get("serviceAccountToken") {
        let token = tokens.get(&token_key(s)).ok_or("the service account token is not there yet")?;
        let (owner, path) = (fs_user(facts.pod), s["path"].str());
        let private = owner.is_some() || !facts.pod["spec"]["securityContext"]["fsGroup"].is_null();
        add(files, path, token.clone().into_bytes(), if private { 0o600 } else { mode })?;
        if let Some(file) = files.get_mut(path) {
            file.owner = owner;
        }
    }
    if !source["clusterTrustBundle"].is_null() {
        return Err("clusterTrustBundle sources are not supported".to_owned());
    }
    Ok(())
}

/// The one user that all containers run as, if they say so.
fn fs_user(pod: &Value) -> Option<u32> {
    let shared = &pod["spec"]["securityContext"]["runAsUser"];
    let of = |c: &Value| c["securityContext"]["runAsUser"].as_i64().or_else(|| shared.as_i64());
    let mut users = pod::containers(pod).map(of);
    let first = users.next()??;
    users.all(|u| u == Some(first)).then(|| u32::try_from(first).ok())?
}

fn add(files: &mut Payload, path: &str, bytes: Vec<u8>, mode: u32) -> Result<(), String> {
    let clean = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || !clean || path.starts_with("..") {
        return Err(format!("invalid path {path:?} in a volume"));
    }
    files.insert(path.to_owned(), File { data: bytes, mode, owner: None, group: None });
    Ok(())
}

fn object(
    kind: &str,
    name: &str,
    source: &Value,
    refs: &References,
    mode: u32,
    files: &mut Payload,
) -> Result<(), String> {
    let kind: &'static str = if kind == "Secret" { "Secret" } else { "ConfigMap" };
    let optional = source["optional"].bool();
    let Some(object) = refs.get(&(kind, name.to_owned())) else {
        return if optional { Ok(()) } else { Err(format!("{} {name:?} not found", kind.to_lowercase())) };
    };
    let text = object["data"].entries().map(|(k, v)| (k.as_str(), env::payload(kind, v)));
    let binary = object["binaryData"].entries().map(|(k, v)| (k.as_str(), env::payload("Secret", v)));
    let mut entries: BTreeMap<&str, Vec<u8>> = text.chain(binary).collect();
    if source["items"].is_empty() {
        for (key, bytes) in entries {
            add(files, key, bytes, mode)?;
        }
        return Ok(());
    }
    for item in source["items"].items() {
        let key = item["key"].str();
        match entries.remove(key) {
            Some(bytes) => add(files, item["path"].str(), bytes, mode_of(&item["mode"], mode))?,
            None if optional => {}
            None => {
                return Err(format!(
                    "references non-existent {} key: {key}",
                    if kind == "Secret" { "secret" } else { "config" }
                ));
            }
        }
    }
    Ok(())
}

fn downward(source: &Value, facts: &Facts, mode: u32, files: &mut Payload) -> Result<(), String> {
    for item in source["items"].items() {
        let text = match item.get("fieldRef") {
            Some(field) => env::field_value(field["fieldPath"].str(), facts)?,
            None => env::resource_value(&item["resourceFieldRef"], &Value::Null, facts)?,
        };
        add(files, item["path"].str(), text.into_bytes(), mode_of(&item["mode"], mode))?;
    }
    Ok(())
}

/// Unmounts and removes all of a pod's directory. Blocks.
pub fn teardown(pod_dir: &Path) -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let prefix = format!("{}/", pod_dir.display());
    let mut below: Vec<&str> = mounts.lines().filter_map(|l| l.split(' ').nth(1)).collect();
    below.retain(|m| m.starts_with(&prefix));
    for target in below.into_iter().rev() {
        umount2(target, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_dir_all(pod_dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn paths_cannot_escape() {
        for path in ["../x", "/x", "a/../b", "", "..data"] {
            assert!(add(&mut Payload::new(), path, Vec::new(), 0).is_err(), "{path}");
        }
        let dir = tempfile::tempdir().expect("tempdir");
        let volume = value!({"name": "v", "emptyDir": {}});
        prepare(dir.path(), &volume, Some(7), None).expect("volume");
        let made = path(dir.path(), &volume);
        let meta = || std::fs::metadata(&made).expect("metadata");
        assert_eq!((meta().permissions().mode() & 0o7777, meta().gid()), (0o2777, 7));
        std::fs::set_permissions(&made, fs::Permissions::from_mode(0o700)).expect("mode");
        prepare(dir.path(), &volume, Some(7), None).expect("volume");
        assert_eq!(meta().permissions().mode() & 0o7777, 0o700, "what a container has changed stays");
    }
}
