//! A container's mounts, parents before children.

use std::path::Path;

use serde_json::{Value, json};

use super::Context;
use crate::spec::{ContainerSpec, Mount, MountKind};

/// The fixed ones, then the pod's files, then what the container asks for.
pub(super) fn all(spec: &ContainerSpec, ctx: &Context) -> Value {
    let mut mounts = fixed(spec, ctx);
    let taken = |path: &str| spec.mounts.iter().any(|m| m.destination == Path::new(path));
    let access = if spec.readonly_rootfs { "ro" } else { "rw" };
    for (path, source) in [("/etc/hostname", &ctx.hostname_file), ("/etc/resolv.conf", &ctx.resolv_conf)] {
        if !taken(path) && !source.as_os_str().is_empty() {
            mounts.push(json!({
                "destination": path, "type": "bind", "source": source, "options": ["rbind", access],
            }));
        }
    }
    let mut own: Vec<&Mount> = spec.mounts.iter().collect();
    own.sort_by_key(|m| m.destination.components().count());
    // One of the container's own takes the place of a fixed one.
    mounts.retain(|m| !m["destination"].as_str().is_some_and(taken));
    mounts.extend(own.into_iter().map(mount));
    Value::Array(mounts)
}

fn fixed(spec: &ContainerSpec, ctx: &Context) -> Vec<Value> {
    let sys = if spec.privileged { "rw" } else { "ro" };
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        json!({
            "destination": "/dev/shm", "type": "bind", "source": ctx.shm,
            "options": ["rbind", "rw"],
        }),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", sys]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", sys]),
    ]
}

fn mount(m: &Mount) -> Value {
    let mut options: Vec<String> = Vec::new();
    let (kind, source) = match &m.kind {
        MountKind::Bind { source } => {
            options.push("rbind".to_owned());
            ("bind", source.clone())
        }
        MountKind::Tmpfs { size } => {
            options.extend(["nosuid".to_owned(), "nodev".to_owned()]);
            options.extend(size.map(|bytes| format!("size={bytes}")));
            ("tmpfs", "tmpfs".into())
        }
    };
    let access = match (m.readonly, m.recursive_readonly) {
        (true, true) => "rro",
        (true, false) => "ro",
        (false, _) => "rw",
    };
    options.push(access.to_owned());
    options.extend(m.options.iter().cloned());
    json!({"destination": m.destination, "type": kind, "source": source, "options": options})
}
