//! What the runtime is asked to run: sandboxes and containers as the pod's spec, image and node say.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use canopus_api::Value;
use canopus_images::ImageConfig;
use canopus_runtime::cgroups::Resources;
use canopus_runtime::oci::{CAPABILITIES, DEFAULT_CAPABILITIES};
use canopus_runtime::spec::{
    ContainerSpec, Device, DnsConfig, LogConfig, Mount, PidMode, Propagation, SandboxSpec, Seccomp, User,
};

use crate::env;
use crate::pod::{self, Qos};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// On a sandbox that is complete: its addresses, none if it is on the host's network.
pub const POD_IPS: &str = "canopus/pod-ips";
pub const SANDBOX_ATTEMPT: &str = "io.kubernetes.pod.sandboxAttempt";
pub const TERMINATION_LOG: &str = "io.kubernetes.container.terminationMessageHostPath";
pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// As the spec names it.
pub const IMAGE: &str = "io.kubernetes.container.image";
pub const IMAGE_ID: &str = "io.kubernetes.container.imageID";

/// Log files are rotated at this size, and this many kept, as upstream's defaults.
const LOG_SIZE: u64 = 10 << 20;
const LOG_FILES: u32 = 5;

/// The labels by which a pod is found again.
pub fn labels(pod: &Value) -> BTreeMap<String, String> {
    let meta = &pod["metadata"];
    let pairs = [(POD_NAME, "name"), (POD_NAMESPACE, "namespace"), (POD_UID, "uid")];
    pairs.iter().map(|(label, field)| ((*label).to_owned(), meta[*field].str().to_owned())).collect()
}

/// A pod's shared parts.
pub fn sandbox(pod: &Value, attempt: u32, dns: Option<DnsConfig>, hostname: String) -> SandboxSpec {
    let spec = &pod["spec"];
    let pid = match (spec["hostPID"].bool(), spec["shareProcessNamespace"].bool()) {
        (true, _) => PidMode::Host,
        (_, true) => PidMode::Pod,
        _ => PidMode::Container,
    };
    let sysctls = spec["securityContext"]["sysctls"].items().iter();
    SandboxSpec {
        labels: labels(pod),
        annotations: BTreeMap::from([(SANDBOX_ATTEMPT.to_owned(), attempt.to_string())]),
        hostname,
        host_network: spec["hostNetwork"].bool(),
        host_ipc: spec["hostIPC"].bool(),
        pid,
        sysctls: sysctls.map(|s| (s["name"].str().to_owned(), s["value"].str().to_owned())).collect(),
        dns,
        cgroup_parent: format!("{}/pod{}", pod::qos(pod).cgroup(), pod["metadata"]["uid"].str()),
        resources: pod_limits(pod),
        ..SandboxSpec::default()
    }
}

/// The pod's name on its network, cut to what a host name may be.
fn short_hostname(pod: &Value) -> String {
    let wanted = match pod["spec"]["hostname"].str() {
        "" => pod["metadata"]["name"].str(),
        name => name,
    };
    let cut: String = wanted.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// What `hostname` says in the pod.
pub fn hostname(pod: &Value, domain: &str) -> String {
    let short = short_hostname(pod);
    match pod["spec"]["subdomain"].str() {
        sub if !sub.is_empty() && pod["spec"]["setHostnameAsFQDN"].bool() => {
            format!("{short}.{sub}.{}.svc.{domain}", pod["metadata"]["namespace"].str())
        }
        _ => short,
    }
}

/// Shares of the sum of requests; quota and memory only if every container has a limit.
pub fn pod_limits(pod: &Value) -> Resources {
    let mains = pod["spec"]["containers"].items();
    let sum = |kind: &str, name: &str, milli: bool| -> (i64, bool) {
        let mut complete = !mains.is_empty();
        let mut total = 0_i64;
        for c in mains {
            match pod::resource(c, kind, name) {
                Some(q) => total = total.saturating_add(if milli { q.milli_value() } else { q.value() }),
                None => complete = false,
            }
        }
        (total, complete)
    };
    let (cpu, cpu_complete) = sum("limits", "cpu", true);
    let (memory, memory_complete) = sum("limits", "memory", false);
    let sidecars = pod["spec"]["initContainers"].items().iter().any(pod::is_sidecar);
    Resources {
        cpu_shares: Some(shares(sum("requests", "cpu", true).0)),
        cpu_quota: (cpu_complete && cpu > 0 && !sidecars).then_some(quota(cpu)),
        memory_limit: (memory_complete && memory > 0 && !sidecars).then_some(memory),
        ..Resources::default()
    }
}

/// CPU shares of so many millicores.
pub fn shares(milli: i64) -> u64 {
    u64::try_from(milli.saturating_mul(1024) / 1000).unwrap_or(0).clamp(2, 262_144)
}

/// Microseconds per 100 ms.
fn quota(milli: i64) -> i64 {
    milli.saturating_mul(100).max(1000)
}

/// What `/etc/resolv.conf` says in a pod; `None` for the host's own.
pub fn dns(pod: &Value, server: IpAddr, domain: &str, host: &DnsConfig) -> Option<DnsConfig> {
    let spec = &pod["spec"];
    let policy = match spec["dnsPolicy"].str() {
        "ClusterFirst" if spec["hostNetwork"].bool() => "Default",
        "ClusterFirstWithHostNet" | "" => "ClusterFirst",
        other => other,
    };
    let mut config = match policy {
        "ClusterFirst" => {
            let namespace = pod["metadata"]["namespace"].str();
            let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
            searches.extend(host.searches.iter().cloned());
            DnsConfig { servers: vec![server.to_string()], searches, options: vec!["ndots:5".to_owned()] }
        }
        "None" => DnsConfig::default(),
        _ if spec["dnsConfig"].is_null() => return None,
        _ => host.clone(),
    };
    let extra = &spec["dnsConfig"];
    let texts = |v: &Value| v.items().iter().map(|s| s.str().to_owned()).collect::<Vec<_>>();
    config.servers.extend(texts(&extra["nameservers"]));
    config.searches.extend(texts(&extra["searches"]));
    for option in extra["options"].items() {
        let name = option["name"].str();
        config.options.retain(|o| o.split(':').next() != Some(name));
        config.options.push(match option["value"].as_str() {
            Some(value) => format!("{name}:{value}"),
            None => name.to_owned(),
        });
    }
    Some(config)
}

/// Parses a `resolv.conf`.
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let keyword = words.next().unwrap_or_default();
        let rest = words.map(str::to_owned);
        match keyword {
            "nameserver" => config.servers.extend(rest.take(1)),
            "search" | "domain" => config.searches = rest.collect(),
            "options" => config.options.extend(rest),
            _ => {}
        }
    }
    config
}

/// `/etc/hosts` of a pod, which begins as the host's own for one on its network.
pub fn etc_hosts(pod: &Value, ips: &[IpAddr], domain: &str, host: Option<&str>) -> String {
    let mut text = match host {
        Some(host) => format!("# Kubernetes-managed hosts file (host network).\n{host}"),
        None => own_hosts(pod, ips, domain),
    };
    let aliases = pod["spec"]["hostAliases"].items();
    if !aliases.is_empty() {
        text += "\n# Entries added by HostAliases.\n";
    }
    for alias in aliases {
        let names: Vec<&str> = alias["hostnames"].items().iter().map(Value::str).collect();
        text += &format!("{}\t{}\n", alias["ip"].str(), names.join("\t"));
    }
    text
}

fn own_hosts(pod: &Value, ips: &[IpAddr], domain: &str) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let name = short_hostname(pod);
    let subdomain = pod["spec"]["subdomain"].str();
    for ip in ips {
        text += &match subdomain {
            "" => format!("{ip}\t{name}\n"),
            sub => format!("{ip}\t{name}.{sub}.{}.svc.{domain}\t{name}\n", pod["metadata"]["namespace"].str()),
        };
    }
    text
}

/// What was found out for one container before it is made.
pub struct Parts<'a> {
    pub pod: &'a Value,
    pub container: &'a Value,
    pub id: String,
    pub attempt: u32,
    pub image_id: String,
    pub image: &'a ImageConfig,
    pub rootfs: PathBuf,
    pub user: User,
    pub home: String,
    pub hostname: String,
    pub seccomp: Seccomp,
    /// Of the host, for a privileged container.
    pub devices: Vec<Device>,
    /// The pod's and the service links' environment.
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub log: PathBuf,
    pub termination_log: PathBuf,
    pub memory_capacity: i64,
}

/// The runtime's view of one container.
pub fn container(parts: Parts) -> ContainerSpec {
    let (pod, c) = (parts.pod, parts.container);
    let security = &c["securityContext"];
    let mut environment: Vec<(String, String)> =
        vec![("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned())];
    environment.push(("HOSTNAME".to_owned(), parts.hostname.clone()));
    if !parts.home.is_empty() {
        environment.push(("HOME".to_owned(), parts.home.clone()));
    }
    let image_env = parts.image.env.iter().filter_map(|e| e.split_once('='));
    environment.extend(image_env.map(|(k, v)| (k.to_owned(), v.to_owned())));
    environment.extend(parts.env.iter().cloned());
    let privileged = security["privileged"].bool();
    let mut annotations = BTreeMap::from([
        (RESTART_COUNT.to_owned(), parts.attempt.to_string()),
        (TERMINATION_LOG.to_owned(), parts.termination_log.display().to_string()),
        (TERMINATION_POLICY.to_owned(), c["terminationMessagePolicy"].str().to_owned()),
    ]);
    annotations.insert(IMAGE_ID.to_owned(), parts.image_id);
    annotations.insert(IMAGE.to_owned(), c["image"].str().to_owned());
    let mut labels = labels(pod);
    labels.insert(CONTAINER_NAME.to_owned(), c["name"].str().to_owned());
    ContainerSpec {
        id: parts.id,
        labels,
        annotations,
        args: command(c, parts.image, &parts.env),
        env: environment,
        cwd: match c["workingDir"].str() {
            "" => parts.image.working_dir.clone(),
            dir => dir.to_owned(),
        },
        user: parts.user,
        rootfs: parts.rootfs,
        readonly_rootfs: security["readOnlyRootFilesystem"].bool(),
        mounts: parts.mounts,
        capabilities: capabilities(&security["capabilities"]),
        privileged,
        no_new_privileges: security["allowPrivilegeEscalation"].as_bool() == Some(false),
        masked_paths: (security["procMount"].str() == "Unmasked").then(Vec::new),
        readonly_paths: (security["procMount"].str() == "Unmasked").then(Vec::new),
        seccomp: parts.seccomp,
        devices: parts.devices,
        oom_score_adj: oom_score(pod, c, parts.memory_capacity),
        resources: limits(c),
        tty: c["tty"].bool(),
        stdin: c["stdin"].bool(),
        stdin_once: c["stdinOnce"].bool(),
        log: Some(LogConfig { path: parts.log, max_size: Some(LOG_SIZE), max_files: Some(LOG_FILES) }),
        stop_signal: stop_signal(&parts.image.stop_signal),
        ..ContainerSpec::default()
    }
}

fn command(container: &Value, image: &ImageConfig, env: &[(String, String)]) -> Vec<String> {
    let lookup = |name: &str| env.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let texts = |v: &Value| v.items().iter().map(|s| env::expand(s.str(), lookup)).collect::<Vec<_>>();
    let (command, args) = (texts(&container["command"]), texts(&container["args"]));
    match (command.is_empty(), args.is_empty()) {
        (false, _) => [command, args].concat(),
        (true, false) => [image.entrypoint.clone(), args].concat(),
        (true, true) => [image.entrypoint.clone(), image.cmd.clone()].concat(),
    }
}

fn capabilities(wanted: &Value) -> Vec<String> {
    let full = |v: &Value| {
        let name = v.str().to_ascii_uppercase();
        if name.starts_with("CAP_") || name == "ALL" { name } else { format!("CAP_{name}") }
    };
    let dropped: Vec<String> = wanted["drop"].items().iter().map(full).collect();
    let added: Vec<String> = wanted["add"].items().iter().map(full).collect();
    let mut set: Vec<String> = DEFAULT_CAPABILITIES.iter().map(|c| (*c).to_owned()).collect();
    if added.iter().any(|c| c == "ALL") {
        set = CAPABILITIES.iter().map(|c| (*c).to_owned()).collect();
    }
    set.retain(|c| !dropped.contains(c) && !dropped.iter().any(|d| d == "ALL"));
    for capability in added.into_iter().filter(|c| c != "ALL") {
        if !set.contains(&capability) {
            set.push(capability);
        }
    }
    set
}

/// Why `runAsNonRoot` forbids to run: by the user that the pod asks for, or else the image's.
pub fn root_refusal(wanted: Option<u32>, image_user: &str) -> Option<String> {
    let user = image_user.split(':').next().unwrap_or_default();
    match (wanted, user) {
        (Some(0), _) => Some("container's runAsUser breaks non-root policy".to_owned()),
        (Some(_), _) => None,
        (None, "") => Some("container has runAsNonRoot and image will run as root".to_owned()),
        (None, user) => match user.parse::<u32>() {
            Ok(0) => Some("container has runAsNonRoot and image will run as root".to_owned()),
            Ok(_) => None,
            Err(_) => Some(format!(
                "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root"
            )),
        },
    }
}

fn oom_score(pod: &Value, container: &Value, capacity: i64) -> i32 {
    if matches!(pod["spec"]["priorityClassName"].str(), "system-node-critical") {
        return -997;
    }
    match pod::qos(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request = pod::resource(container, "requests", "memory").map_or(0, |q| q.value());
            let share = i128::from(request) * 1000 / i128::from(capacity.max(1));
            i32::try_from((1000 - share).clamp(3, 999)).unwrap_or(999)
        }
    }
}

fn limits(container: &Value) -> Resources {
    let get = |kind: &str, name: &str| pod::resource(container, kind, name).filter(|q| !q.is_zero());
    let cpu = get("limits", "cpu").map(|q| q.milli_value());
    let request = pod::resource(container, "requests", "cpu").map(|q| q.milli_value());
    Resources {
        cpu_shares: Some(shares(request.or(cpu).unwrap_or(0))),
        cpu_quota: cpu.map(quota),
        cpu_period: cpu.map(|_| 100_000),
        memory_limit: get("limits", "memory").map(|q| q.value()),
        memory_oom_group: Some(true),
        ..Resources::default()
    }
}

fn stop_signal(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return Some(number);
    }
    let full = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    full.parse::<nix::sys::signal::Signal>().ok().map(|s| s as i32)
}

/// A bind mount of a volume (or a path in it) as a `volumeMounts` entry asks for.
pub fn volume_mount(mount: &Value, source: &Path, read_only: bool) -> Mount {
    let mut made = Mount::bind(source, mount["mountPath"].str(), read_only || mount["readOnly"].bool());
    made.propagation = match mount["mountPropagation"].str() {
        "HostToContainer" => Propagation::HostToContainer,
        "Bidirectional" => Propagation::Bidirectional,
        _ => Propagation::Private,
    };
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn commands() {
        let image = ImageConfig { entrypoint: vec!["/e".into()], cmd: vec!["c".into()], ..ImageConfig::default() };
        let env = [("A".to_owned(), "x".to_owned())];
        let cases = [
            (value!({}), vec!["/e", "c"]),
            (value!({"args": ["$(A)"]}), vec!["/e", "x"]),
            (value!({"command": ["/b"]}), vec!["/b"]),
            (value!({"command": ["/b"], "args": ["y"]}), vec!["/b", "y"]),
        ];
        for (container, wanted) in cases {
            assert_eq!(command(&container, &image, &env), wanted);
        }
    }

    #[test]
    fn non_root_policies() {
        let refused = |wanted, user: &str| root_refusal(wanted, user).unwrap_or_default();
        assert_eq!(refused(Some(0), "5"), "container's runAsUser breaks non-root policy");
        assert_eq!(refused(None, ""), "container has runAsNonRoot and image will run as root");
        assert_eq!(refused(None, "0:5"), "container has runAsNonRoot and image will run as root");
        assert!(refused(None, "nobody").contains("has non-numeric user (nobody), cannot verify user is non-root"));
        assert_eq!(refused(None, "65534:0") + &refused(Some(5), ""), "");
    }

    #[test]
    fn names_of_pods() {
        let mut pod = value!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"hostname": "h"}});
        assert_eq!(hostname(&pod, "cluster.local"), "h");
        pod.set_path(&["spec", "subdomain"], "sub");
        assert_eq!(hostname(&pod, "cluster.local"), "h");
        let ips = [IpAddr::from([10, 0, 0, 1])];
        assert!(etc_hosts(&pod, &ips, "c.l", None).ends_with("\n10.0.0.1\th.sub.ns.svc.c.l\th\n"));
        pod.set_path(&["spec", "setHostnameAsFQDN"], true);
        assert_eq!(hostname(&pod, "cluster.local"), "h.sub.ns.svc.cluster.local");
        pod.set_path(&["spec", "hostAliases"], value!([{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]));
        let text = etc_hosts(&pod, &ips, "c.l", Some("127.0.0.1 localhost\n"));
        let wanted = "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n\n\
                      # Entries added by HostAliases.\n1.2.3.4\ta\tb\n";
        assert_eq!(text, wanted);
    }

    #[test]
    fn capability_sets() {
        assert_eq!(capabilities(&value!({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]})), ["CAP_NET_BIND_SERVICE"]);
        assert!(!capabilities(&value!({"drop": ["KILL"]})).contains(&"CAP_KILL".to_owned()));
        assert_eq!(capabilities(&value!({"add": ["ALL"]})).len(), CAPABILITIES.len());
    }

    #[test]
    fn resolv_conf_by_policy() {
        let host = DnsConfig { servers: vec!["9.9.9.9".into()], searches: vec!["lan".into()], options: vec![] };
        let pod = |policy: &str, host_network: bool| value!({"metadata": {"namespace": "ns"}, "spec": {"dnsPolicy": policy, "hostNetwork": host_network}});
        let server = IpAddr::from([10, 96, 0, 10]);
        let cluster = dns(&pod("ClusterFirst", false), server, "cluster.local", &host).expect("config");
        assert_eq!(cluster.servers, ["10.96.0.10"]);
        assert_eq!(cluster.searches, ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"]);
        assert_eq!(dns(&pod("ClusterFirst", true), server, "cluster.local", &host), None);
        assert_eq!(dns(&pod("None", false), server, "cluster.local", &host), Some(DnsConfig::default()));
    }
}
