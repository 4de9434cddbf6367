//! What this host lets the runtime do.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::cgroups::{Cgroups, Layout};
use crate::oci::CAPABILITIES;

/// Capabilities in both the effective and the bounding set: those that can be handed on.
pub(crate) fn capabilities() -> BTreeSet<String> {
    parse_capabilities(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

fn parse_capabilities(status: &str) -> BTreeSet<String> {
    let mask = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key));
        line.and_then(|l| u64::from_str_radix(l.trim(), 16).ok()).unwrap_or(0)
    };
    let both = mask("CapEff:") & mask("CapBnd:");
    CAPABILITIES.iter().enumerate().filter(|(i, _)| both >> i & 1 == 1).map(|(_, c)| (*c).to_owned()).collect()
}

/// Files by which a CPU's temperature tells tenants about each other.
pub(crate) fn thermal_throttle() -> Vec<String> {
    let paths = (0..).map(|n| format!("/sys/devices/system/cpu/cpu{n}"));
    let cpus = paths.take_while(|cpu| Path::new(cpu).exists());
    cpus.map(|cpu| format!("{cpu}/thermal_throttle")).filter(|p| Path::new(p).exists()).collect()
}

/// What is missing here, and what follows from it, for the caller to log once.
pub(crate) fn warnings(cgroups: &Cgroups, capabilities: &BTreeSet<String>) -> Vec<String> {
    let mut list = Vec::new();
    if cgroups.layout() != Layout::Unified {
        list.push("the host does not use cgroup v2 alone: limits are set through v1 hierarchies".to_owned());
    }
    for controller in cgroups.missing().into_iter().filter(|c| *c != "hugetlb") {
        list.push(format!("no {controller} cgroup controller: its limits are not enforced"));
    }
    if !capabilities.contains("CAP_SYS_RESOURCE") {
        list.push("no CAP_SYS_RESOURCE: negative oom_score_adj becomes 0 and rlimits are not raised".to_owned());
    }
    let missing = CAPABILITIES.iter().filter(|c| !capabilities.contains(**c) && **c != "CAP_SYS_RESOURCE");
    let missing: Vec<&str> = missing.copied().collect();
    if !missing.is_empty() {
        list.push(format!("containers cannot be given {}", missing.join(", ")));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_masks() {
        let caps =
            parse_capabilities("CapPrm:\t00000000000000ff\nCapEff:\t0000000000000003\nCapBnd:\t0000000000000002\n");
        assert_eq!(caps.into_iter().collect::<Vec<_>>(), ["CAP_DAC_OVERRIDE"]);
    }
}
