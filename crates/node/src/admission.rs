//! What the node refuses to run at all, whoever has bound it here.

use canopus_api::Value;

use crate::pod;

/// Sysctls that concern a pod alone, as upstream's safe set.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// What the node can give.
#[derive(Debug, Clone, Copy)]
pub struct Allocatable {
    pub milli_cpu: i64,
    pub memory: i64,
    pub pods: i64,
}

/// A reason and a message.
pub type Refusal = (String, String);

/// Why `pod` can't run beside the `others` that were let in before.
pub fn refusal<'a>(pod: &Value, others: impl Iterator<Item = &'a Value>, node: Allocatable) -> Option<Refusal> {
    sysctls(pod).or_else(|| resources(pod, others, node))
}

fn sysctls(pod: &Value) -> Option<Refusal> {
    let spec = &pod["spec"];
    spec["securityContext"]["sysctls"].items().iter().find_map(|sysctl| {
        let name = sysctl["name"].str();
        let dotted = name.replace('/', ".");
        let why = if dotted.starts_with("net.") && spec["hostNetwork"].bool() {
            "not allowed with host net enabled"
        } else if dotted.starts_with("kernel.") && spec["hostIPC"].bool() {
            "not allowed with host ipc enabled"
        } else if !SAFE_SYSCTLS.contains(&dotted.as_str()) {
            "not allowlisted"
        } else {
            return None;
        };
        Some(("SysctlForbidden".to_owned(), format!("forbidden sysctl: {name:?} {why}")))
    })
}

fn resources<'a>(pod: &Value, others: impl Iterator<Item = &'a Value>, node: Allocatable) -> Option<Refusal> {
    let (mut cpu, mut memory, mut pods) = (0, 0, 0);
    for other in others {
        cpu += pod::request(other, "cpu");
        memory += pod::request(other, "memory");
        pods += 1;
    }
    let wanted = [
        ("pods", 1, pods, node.pods),
        ("cpu", pod::request(pod, "cpu"), cpu, node.milli_cpu),
        ("memory", pod::request(pod, "memory"), memory, node.memory),
    ];
    wanted.into_iter().find(|(_, requested, used, capacity)| *requested > 0 && requested + used > *capacity).map(
        |(name, requested, used, capacity)| {
            let figures = format!("requested: {requested}, used: {used}, capacity: {capacity}");
            (format!("OutOf{name}"), format!("Node didn't have enough resource: {name}, {figures}"))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    const NODE: Allocatable = Allocatable { milli_cpu: 2000, memory: 1 << 30, pods: 2 };

    fn asks(cpu: &str) -> Value {
        value!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
    }

    #[test]
    fn more_than_the_node_has() {
        let refused = |pod: &Value, others: &[Value]| refusal(pod, others.iter(), NODE);
        assert_eq!(refused(&asks("2"), &[]), None);
        let why = "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000";
        assert_eq!(refused(&asks("1500m"), &[asks("1")]), Some(("OutOfcpu".into(), why.into())));
        assert!(refused(&asks("0"), &[asks("1"), asks("1")]).is_some_and(|(reason, _)| reason == "OutOfpods"));
    }

    #[test]
    fn sysctls_of_the_pod_alone() {
        let pod = |name: &str, host: bool| value!({"spec": {"hostNetwork": host, "securityContext": {"sysctls": [{"name": name}]}}});
        assert_eq!(sysctls(&pod("net/ipv4/tcp_syncookies", false)), None);
        let why = |p: &Value| sysctls(p).map(|(_, message)| message).unwrap_or_default();
        assert_eq!(why(&pod("kernel.msgmax", false)), "forbidden sysctl: \"kernel.msgmax\" not allowlisted");
        assert!(why(&pod("net.ipv4.tcp_syncookies", true)).ends_with("not allowed with host net enabled"));
    }
}
