//! `kill -9` of the whole process under load: containers do not notice, nothing is lost, nothing is left.
//! `CANOPUS_SOAK_KILLS` is how often.

use canopus_testkit::{Cluster, eventually};
use std::time::Duration;

const IMAGE: &str = "canopus-e2e:1";
/// Pods that are there all along.
const STEADY: usize = 3;
/// Pods made in each round.
const BATCH: usize = 4;

fn kills() -> usize {
    std::env::var("CANOPUS_SOAK_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(12)
}

/// A pod that runs a shell script.
fn pod(name: &str, group: &str, policy: &str, script: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{group: {group}}}}}
spec:
  nodeName: node-1
  restartPolicy: {policy}
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: '{IMAGE}'
    command: [sh, -c, '{script}']
    volumeMounts: [{{name: scratch, mountPath: /scratch}}]
  volumes: [{{name: scratch, emptyDir: {{medium: Memory}}}}]
"
    )
}

/// The exit code a pod of a batch ends with.
fn code(round: usize, n: usize) -> usize {
    (round * BATCH + n) % 7
}

fn batch(round: usize) -> String {
    let one = |n: usize| {
        let script = format!("echo begin; sleep 0.{}; echo end; exit {}", n * 3, code(round, n));
        pod(&format!("end-{round}-{n}"), &format!("end-{round}"), "Never", &script)
    };
    (0..BATCH).map(one).collect()
}

pub fn under_load(c: &mut Cluster) {
    let count = "i=0; trap \"exit 0\" TERM; while true; do i=$((i+1)); echo $i; sleep 0.02; done";
    let steady: String = (0..STEADY).map(|n| pod(&format!("steady-{n}"), "steady", "Always", count)).collect();
    c.apply(&steady);
    c.k(&["wait", "--for=condition=Ready", "pod", "-l", "group=steady", "--timeout=60s"]);
    let identity = "jsonpath={range .items[*].status.containerStatuses[0]}{.containerID} {.restartCount}{\"\\n\"}{end}";
    let identity = ["get", "pods", "-l", "group=steady", "-o", identity];
    let before = c.k(&identity);
    let kills = kills();
    for round in 0..kills {
        c.apply(&batch(round));
        if round > 1 {
            check_batch(c, round - 2);
            c.k(&["delete", "pods", "-l", &format!("group=end-{}", round - 2), "--wait=false"]);
        }
        // Into every phase of the pods' lives, whatever the machine's speed.
        std::thread::sleep(Duration::from_millis((round * 97 % 400) as u64));
        c.kill();
        c.up();
        assert_eq!(c.k(&identity), before, "after kill {round}");
    }
    for round in kills.saturating_sub(2)..kills {
        check_batch(c, round);
    }
    for n in 0..STEADY {
        counts_without_gaps(c, &format!("steady-{n}"));
    }
    c.k(&["delete", "pods", "--all", "--timeout=60s"]);
    c.no_pods_left();
}

/// Every pod ended once, as it was to, and its log says all of it, once.
fn check_batch(c: &Cluster, round: usize) {
    let status = "{range .items[*]}{.metadata.name} {.status.containerStatuses[0].state.terminated.exitCode} \
                  {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
    let (group, status) = (format!("group=end-{round}"), format!("jsonpath={status}"));
    let wanted: String = (0..BATCH).map(|n| format!("end-{round}-{n} {} 0\n", code(round, n))).collect();
    eventually(Duration::from_secs(60), || {
        let got = c.kubectl(&["get", "pods", "-l", &group, "-o", &status]).stdout;
        if got == wanted { Ok(()) } else { Err(format!("{got:?} instead of {wanted:?}\n{}", c.log_tail())) }
    });
    for n in 0..BATCH {
        assert_eq!(c.k(&["logs", &format!("end-{round}-{n}")]), "begin\nend\n");
    }
}

/// The log holds 1, 2, 3 and so on, each once, in order.
fn counts_without_gaps(c: &Cluster, name: &str) {
    let log = c.k(&["logs", name]);
    let numbers: Vec<usize> = log.lines().map(|l| l.parse().expect("a number")).collect();
    let wanted: Vec<usize> = (1..=numbers.len()).collect();
    assert_eq!(numbers, wanted, "{name}");
    assert!(numbers.len() > 10, "{name}: {} lines", numbers.len());
}
