//! What a caller asks for: plain data, kept as JSON in the state directory.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroups::{DeviceRule, Resources};

/// A process namespace is the host's, the pod's (shared by its containers) or the container's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PidMode {
    #[default]
    Container,
    Pod,
    Host,
}

/// Contents of a pod's `/etc/resolv.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DnsConfig {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// A pod's shared parts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SandboxSpec {
    /// Chosen at random if empty.
    pub id: String,
    /// Kept for the caller, never read here.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub hostname: String,
    pub host_network: bool,
    pub host_ipc: bool,
    pub pid: PidMode,
    /// `net.core.somaxconn` → `1024`. Only those of the pod's own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// The host's `/etc/resolv.conf` if unset.
    pub dns: Option<DnsConfig>,
    /// Group of the pod below the runtime's root: `kubepods/burstable/pod<uid>`.
    pub cgroup_parent: String,
    /// Limits of that group.
    pub resources: Resources,
    /// Bytes of the pod's `/dev/shm`; 64 MiB if unset.
    pub shm_size: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MountKind {
    /// A file or directory of the host.
    Bind { source: PathBuf },
    /// Memory, of at most so many bytes if given.
    Tmpfs { size: Option<u64> },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    pub destination: PathBuf,
    pub kind: MountKind,
    #[serde(default)]
    pub readonly: bool,
    /// Also makes what is mounted below it read-only.
    #[serde(default)]
    pub recursive_readonly: bool,
    #[serde(default)]
    pub propagation: Propagation,
    /// Further options: `nosuid`, `noexec`, `mode=0700`, …
    #[serde(default)]
    pub options: Vec<String>,
}

impl Mount {
    pub fn bind(source: impl Into<PathBuf>, destination: impl Into<PathBuf>, readonly: bool) -> Self {
        Self {
            destination: destination.into(),
            kind: MountKind::Bind { source: source.into() },
            readonly,
            recursive_readonly: false,
            propagation: Propagation::Private,
            options: Vec::new(),
        }
    }
}

/// A device node of the host to make in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    pub path: PathBuf,
    pub rule: DeviceRule,
    #[serde(default)]
    pub mode: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Seccomp {
    #[default]
    Unconfined,
    RuntimeDefault,
    /// A profile file's contents (`Localhost`), in the format of Docker's and OCI's `linux.seccomp`.
    Profile(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE`.
    pub kind: String,
    pub soft: u64,
    pub hard: u64,
}

/// Who runs a process, by number: names are looked up by the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub supplementary_groups: Vec<u32>,
}

/// Where a container's output goes, in CRI's log format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogConfig {
    pub path: PathBuf,
    /// The file is rotated once it is at least this long.
    #[serde(default)]
    pub max_size: Option<u64>,
    /// Files kept, the current one included; 5 if unset.
    #[serde(default)]
    pub max_files: Option<u32>,
}

/// One container, with image defaults, names and profiles already resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerSpec {
    /// Chosen at random if empty.
    pub id: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub args: Vec<String>,
    /// In order; of two with one name the later wins.
    pub env: Vec<(String, String)>,
    /// `/` if empty.
    pub cwd: String,
    pub user: User,
    pub rootfs: PathBuf,
    pub readonly_rootfs: bool,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    /// With `CAP_`. Ignored if privileged.
    pub capabilities: Vec<String>,
    pub privileged: bool,
    pub no_new_privileges: bool,
    /// Paths to hide and to make read-only; `None` means the usual ones, empty none.
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    pub seccomp: Seccomp,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: i32,
    pub resources: Resources,
    pub tty: bool,
    pub stdin: bool,
    /// Close standard input when the first client has detached from it.
    pub stdin_once: bool,
    pub log: Option<LogConfig>,
    /// By default `SIGTERM`.
    pub stop_signal: Option<i32>,
}

/// A further process in a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExecSpec {
    pub args: Vec<String>,
    /// Added to the container's own.
    pub env: Vec<(String, String)>,
    /// The container's if unset.
    pub cwd: Option<String>,
    pub user: Option<User>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}
