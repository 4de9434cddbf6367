//! [`ContainerSpec`] → OCI runtime-spec `config.json`: a pure function.

mod defaults;
mod mounts;
mod seccomp;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::spec::{ContainerSpec, ExecSpec, Propagation, Seccomp, User};

pub use defaults::{CAPABILITIES, DEFAULT_CAPABILITIES};

/// Where a container finds its pod, and what the host can do.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Namespaces to join, as files; `None` means the host's.
    pub net: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    pub uts: Option<PathBuf>,
    /// A pod's shared process namespace.
    pub pid: Option<PathBuf>,
    pub host_pid: bool,
    /// Group of the container, from the root of the hierarchies.
    pub cgroup: String,
    pub shm: PathBuf,
    pub hostname_file: PathBuf,
    pub resolv_conf: PathBuf,
    /// Capabilities this process can hand out.
    pub host_capabilities: BTreeSet<String>,
    /// Present paths among those masked by default which depend on the host.
    pub thermal_throttle: Vec<String>,
}

impl Context {
    fn may(&self, capability: &str) -> bool {
        self.host_capabilities.contains(capability)
    }
}

/// The bundle's configuration. Refuses what cannot be expressed: NUL bytes, an empty command,
/// relative paths.
pub fn config(spec: &ContainerSpec, ctx: &Context) -> Result<Value> {
    check(spec)?;
    let mut config = json!({
        "ociVersion": "1.0.2",
        "root": {"path": spec.rootfs, "readonly": spec.readonly_rootfs},
        "process": process(spec, ctx),
        "mounts": mounts::all(spec, ctx),
        "linux": linux(spec, ctx),
    });
    if let Some(profile) = seccomp::profile(spec, ctx)? {
        config["linux"]["seccomp"] = profile;
    }
    Ok(config)
}

/// The process of an exec session: the container's own with the differences asked for.
pub fn exec_process(container: &ContainerSpec, exec: &ExecSpec, ctx: &Context) -> Result<Value> {
    let mut spec = container.clone();
    spec.args.clone_from(&exec.args);
    spec.env.extend(exec.env.iter().cloned());
    spec.tty = exec.tty;
    if let Some(cwd) = &exec.cwd {
        spec.cwd.clone_from(cwd);
    }
    if let Some(user) = &exec.user {
        spec.user = user.clone();
    }
    check(&spec)?;
    Ok(process(&spec, ctx))
}

fn check(spec: &ContainerSpec) -> Result<()> {
    let refuse = |what: String| Err(Error::Invalid(what));
    if spec.args.first().is_none_or(String::is_empty) {
        return refuse("no command specified".to_owned());
    }
    let texts = spec.args.iter().chain(spec.env.iter().flat_map(|(k, v)| [k, v]));
    if texts.chain([&spec.cwd]).any(|t| t.contains('\0')) {
        return refuse("a NUL byte in command, environment or working directory".to_owned());
    }
    if let Some((name, _)) = spec.env.iter().find(|(k, _)| k.is_empty() || k.contains('=')) {
        return refuse(format!("not an environment variable's name: {name:?}"));
    }
    if !spec.cwd.is_empty() && !spec.cwd.starts_with('/') {
        return refuse(format!("the working directory {:?} is not absolute", spec.cwd));
    }
    if let Some(mount) = spec.mounts.iter().find(|m| !m.destination.is_absolute()) {
        return refuse(format!("the mount path {} is not absolute", mount.destination.display()));
    }
    Ok(())
}

fn process(spec: &ContainerSpec, ctx: &Context) -> Value {
    let capabilities = capabilities(spec, ctx);
    let mut process = json!({
        "terminal": spec.tty,
        "user": user(&spec.user),
        "args": spec.args,
        "env": environment(spec),
        "cwd": if spec.cwd.is_empty() { "/" } else { &spec.cwd },
        "capabilities": {
            "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            "inheritable": [], "ambient": [],
        },
        // Always written: the shim's own must not be inherited.
        "oomScoreAdj": oom_score_adj(spec, ctx),
        "rlimits": rlimits(spec, ctx),
    });
    if spec.no_new_privileges {
        // libcontainer takes any presence, even of `false`, for a yes.
        process["noNewPrivileges"] = json!(true);
    }
    process
}

fn user(user: &User) -> Value {
    // The primary group belongs to the supplementary ones too, as in containerd.
    let mut groups = user.supplementary_groups.clone();
    if !groups.contains(&user.gid) {
        groups.insert(0, user.gid);
    }
    json!({"uid": user.uid, "gid": user.gid, "additionalGids": groups})
}

/// Later entries replace earlier ones in place; `PATH` is always there, `TERM` on a terminal.
fn environment(spec: &ContainerSpec) -> Vec<String> {
    let mut env: Vec<(&str, &str)> = vec![("PATH", defaults::PATH)];
    if spec.tty {
        env.push(("TERM", "xterm"));
    }
    for (name, value) in &spec.env {
        match env.iter_mut().find(|(n, _)| n == name) {
            Some(entry) => entry.1 = value,
            None => env.push((name, value)),
        }
    }
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// What is asked for, less what this host cannot give.
fn capabilities(spec: &ContainerSpec, ctx: &Context) -> Vec<String> {
    let asked: Vec<&str> = match spec.privileged {
        true => CAPABILITIES.to_vec(),
        false => spec.capabilities.iter().map(String::as_str).collect(),
    };
    let mut given: Vec<String> = asked.into_iter().filter(|c| ctx.may(c)).map(str::to_owned).collect();
    given.sort();
    given.dedup();
    given
}

fn oom_score_adj(spec: &ContainerSpec, ctx: &Context) -> i32 {
    let floor = if ctx.may("CAP_SYS_RESOURCE") { -1000 } else { 0 };
    spec.oom_score_adj.clamp(floor, 1000)
}

fn rlimits(spec: &ContainerSpec, ctx: &Context) -> Value {
    let raise = ctx.may("CAP_SYS_RESOURCE");
    let wanted = spec.rlimits.iter().filter(|_| raise);
    wanted.map(|r| json!({"type": r.kind, "soft": r.soft, "hard": r.hard})).collect()
}

fn linux(spec: &ContainerSpec, ctx: &Context) -> Value {
    let mut linux = Map::new();
    linux.insert("namespaces".into(), namespaces(spec, ctx));
    linux.insert("cgroupsPath".into(), json!(format!("/{}", ctx.cgroup.trim_start_matches('/'))));
    linux.insert("rootfsPropagation".into(), json!(propagation(spec)));
    if !spec.devices.is_empty() || spec.privileged {
        linux.insert("devices".into(), devices(spec));
    }
    if !spec.privileged {
        let masked = spec.masked_paths.clone().unwrap_or_else(|| {
            let fixed = defaults::MASKED_PATHS.iter().map(|p| (*p).to_owned());
            fixed.chain(ctx.thermal_throttle.iter().cloned()).collect()
        });
        linux.insert("maskedPaths".into(), json!(masked));
        let readonly = spec.readonly_paths.clone();
        linux.insert("readonlyPaths".into(), readonly.map_or_else(|| json!(defaults::READONLY_PATHS), |p| json!(p)));
    }
    Value::Object(linux)
}

fn namespaces(spec: &ContainerSpec, ctx: &Context) -> Value {
    let mut list = vec![json!({"type": "mount"})];
    if !spec.privileged {
        list.push(json!({"type": "cgroup"}));
    }
    for (kind, path) in [("network", &ctx.net), ("ipc", &ctx.ipc), ("uts", &ctx.uts), ("pid", &ctx.pid)] {
        if let Some(path) = path {
            list.push(json!({"type": kind, "path": path}));
        }
    }
    if ctx.pid.is_none() && !ctx.host_pid {
        list.push(json!({"type": "pid"}));
    }
    Value::Array(list)
}

/// libcontainer knows one propagation for all mounts: the widest any of them asks for.
fn propagation(spec: &ContainerSpec) -> &'static str {
    let has = |p: Propagation| spec.mounts.iter().any(|m| m.propagation == p);
    match (has(Propagation::Bidirectional), has(Propagation::HostToContainer)) {
        (true, _) => "shared",
        (false, true) => "slave",
        (false, false) => "private",
    }
}

fn devices(spec: &ContainerSpec) -> Value {
    let node = |d: &crate::spec::Device| {
        json!({
            "path": d.path,
            "type": d.rule.kind.to_string(),
            "major": d.rule.major.unwrap_or(0),
            "minor": d.rule.minor.unwrap_or(0),
            "fileMode": d.mode.unwrap_or(0o666),
        })
    };
    spec.devices.iter().map(node).collect()
}

/// Whether a seccomp profile has any effect.
fn confined(spec: &ContainerSpec) -> bool {
    !spec.privileged && spec.seccomp != Seccomp::Unconfined
}

#[cfg(test)]
mod tests;
