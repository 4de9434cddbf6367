//! What the runtime says of a pod, as the planner wants it. Blocks.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::path::Path;

use canopus_api::Time;
use canopus_runtime::{ContainerState, ContainerStatus, Runtime, SandboxState, SandboxStatus};

use crate::container::{
    CONTAINER_NAME, IMAGE, IMAGE_ID, POD_IPS, POD_UID, RESTART_COUNT, SANDBOX_ATTEMPT, TERMINATION_LOG,
    TERMINATION_POLICY,
};
use crate::planner::{Instance, Observed, Sandbox, State};

/// Upstream's bound on a termination message.
const MAX_MESSAGE: u64 = 4096;
const MAX_FALLBACK: u64 = 2048;
const MAX_FALLBACK_LINES: usize = 80;

/// The state of the pod's `sandboxes`; those that are gone are left out.
pub fn observe(runtime: &Runtime, sandboxes: &[String]) -> canopus_runtime::Result<Observed> {
    let mut found: Vec<SandboxStatus> = Vec::new();
    for id in sandboxes {
        match runtime.sandbox_status(id) {
            Ok(status) => found.push(status),
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e),
        }
    }
    found.sort_by_key(|s| (attempt(&s.spec.annotations, SANDBOX_ATTEMPT), s.created_at));
    let current = found.last().map(|s| s.id.clone()).unwrap_or_default();
    let mut instances = Vec::new();
    for sandbox in &found {
        for status in runtime.list_containers(Some(&sandbox.id))? {
            instances.push(instance(status, sandbox.id == current));
        }
    }
    let sandbox = found.last().map(|s| Sandbox {
        id: s.id.clone(),
        attempt: attempt(&s.spec.annotations, SANDBOX_ATTEMPT),
        // One whose maker died before it had a network is of no use.
        ready: s.state == SandboxState::Ready && s.spec.annotations.contains_key(POD_IPS),
    });
    Ok(Observed { sandbox, instances })
}

/// The sandboxes of every pod, by uid. One that doesn't say whose it is has the uid "".
pub fn by_pod(runtime: &Runtime) -> canopus_runtime::Result<BTreeMap<String, Vec<SandboxStatus>>> {
    let mut pods: BTreeMap<String, Vec<SandboxStatus>> = BTreeMap::new();
    for status in runtime.list_sandboxes()? {
        let uid = status.spec.labels.get(POD_UID).cloned().unwrap_or_default();
        pods.entry(uid).or_default().push(status);
    }
    Ok(pods)
}

/// The addresses a sandbox was given; none if it is the host's or unfinished.
pub fn addresses(sandbox: &SandboxStatus) -> Vec<IpAddr> {
    let text = sandbox.spec.annotations.get(POD_IPS).map_or("", String::as_str);
    text.split(',').filter_map(|ip| ip.parse().ok()).collect()
}

fn attempt(annotations: &BTreeMap<String, String>, key: &str) -> u32 {
    annotations.get(key).and_then(|a| a.parse().ok()).unwrap_or(0)
}

fn time(nanos: u64) -> Option<Time> {
    (nanos > 0).then(|| Time(i64::try_from(nanos / 1000).unwrap_or(i64::MAX)))
}

fn instance(status: ContainerStatus, current: bool) -> Instance {
    let spec = &status.spec;
    let state = match status.state {
        ContainerState::Created => State::Created,
        ContainerState::Starting => State::Starting,
        ContainerState::Running => State::Running,
        ContainerState::Exited => State::Exited,
        ContainerState::Unknown => State::Unknown,
    };
    let exit = status.exit.as_ref();
    let message = if state == State::Exited { message(&status) } else { String::new() };
    Instance {
        id: status.id.clone(),
        name: spec.labels.get(CONTAINER_NAME).cloned().unwrap_or_default(),
        attempt: attempt(&spec.annotations, RESTART_COUNT),
        current,
        state,
        created_at: time(status.created_at).unwrap_or_default(),
        started_at: time(exit.map_or(status.started_at, |e| e.started_at)),
        finished_at: exit.and_then(|e| time(e.finished_at)),
        exit_code: exit.map_or(0, |e| e.code),
        signal: exit.and_then(|e| e.signal),
        oom_killed: exit.is_some_and(|e| e.oom_killed),
        start_error: exit.and_then(|e| e.message.clone()),
        message,
        image_id: spec.annotations.get(IMAGE_ID).cloned().unwrap_or_default(),
        image: spec.annotations.get(IMAGE).cloned().unwrap_or_default(),
        user: (spec.user.uid, spec.user.gid, spec.user.supplementary_groups.clone()),
    }
}

fn message(status: &ContainerStatus) -> String {
    let spec = &status.spec;
    let file = spec.annotations.get(TERMINATION_LOG).map(Path::new);
    let own = file.and_then(|f| tail(f, MAX_MESSAGE)).unwrap_or_default();
    let fallback = spec.annotations.get(TERMINATION_POLICY).map(String::as_str) == Some("FallbackToLogsOnError");
    let failed = status.exit.as_ref().is_some_and(|e| e.code != 0);
    match &spec.log {
        Some(log) if own.is_empty() && fallback && failed => {
            let text = tail(&log.path, MAX_FALLBACK * 4).unwrap_or_default();
            log_end(&text)
        }
        _ => own,
    }
}

/// The last of a log: at most 80 lines and 2 KiB, as upstream. Its lines say "time stream tag text".
fn log_end(log: &str) -> String {
    let entries: Vec<(&str, &str)> = log
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(4, ' ').skip(2);
            Some((fields.next()?, fields.next()?))
        })
        .collect();
    let from = entries.len().saturating_sub(MAX_FALLBACK_LINES);
    let mut text = String::new();
    for (tag, part) in &entries[from..] {
        text.push_str(part);
        if !tag.starts_with('P') {
            text.push('\n');
        }
    }
    let most = usize::try_from(MAX_FALLBACK).unwrap_or(usize::MAX);
    let start = text.char_indices().map(|(i, _)| i).find(|i| text.len() - i <= most).unwrap_or(0);
    text.split_off(start)
}

fn tail(path: &Path, most: u64) -> Option<String> {
    let mut file = fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most))).ok()?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_a_message() {
        assert_eq!(log_end("cut off\n2026 stdout P a\n2026 stdout F b\n2026 stderr F c\n"), "ab\nc\n");
        let many: String = (0..100).map(|i| format!("t stdout F {i}\n")).collect();
        assert!(log_end(&many).starts_with("20\n21\n"));
        let long = format!("t stdout F {}\n", "x".repeat(5000));
        assert_eq!(log_end(&long).len(), 2048);
    }
}
