//! Deployments.

use crate::space::{Space, has_lines};
use crate::{IMAGE, web};
use canopus_testkit::Cluster;

fn rolled_out(s: &Space) {
    let out = s.k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert!(out.ends_with("deployment \"web\" successfully rolled out\n"), "{out}");
}

pub fn rollouts(c: &Cluster) {
    let s = Space::new(c, "rollouts");
    s.apply(&web("web", 2, "v1"));
    rolled_out(&s);
    s.k(&["annotate", "deployment", "web", "kubernetes.io/change-cause=first"]);

    assert_eq!(s.k(&["rollout", "pause", "deployment/web"]), "deployment.apps/web paused\n");
    s.apply(&web("web", 2, "v2"));
    let paused = "can't restart paused deployment (run rollout resume first)";
    s.refused(&["rollout", "restart", "deployment/web"], "", paused);
    assert_eq!(s.see("replicasets", "{.items[*].spec.replicas}"), "2", "a paused Deployment does not roll");
    assert_eq!(s.k(&["rollout", "resume", "deployment/web"]), "deployment.apps/web resumed\n");
    rolled_out(&s);
    has_lines(&s.k(&["rollout", "history", "deployment/web"]), &["REVISION CHANGE-CAUSE", "1 ", "2 "]);
    has_lines(
        &s.k(&["rollout", "history", "deployment/web", "--revision=2"]),
        &[&format!("Image: {IMAGE}"), "echo v2"],
    );

    assert_eq!(s.k(&["rollout", "undo", "deployment/web"]), "deployment.apps/web rolled back\n");
    rolled_out(&s);
    assert!(s.see("deployment web", "{.spec.template.spec.containers[0].command}").contains("echo v1"));
    let history = s.k(&["rollout", "history", "deployment/web"]);
    let revisions: Vec<&str> = history.lines().filter_map(|l| l.split_whitespace().next()).collect();
    assert_eq!(revisions, ["deployment.apps/web", "REVISION", "2", "3"], "{history}");
    s.refused(
        &["rollout", "undo", "deployment/web", "--to-revision=9"],
        "",
        "unable to find specified revision 9 in history",
    );

    let before = s.see("pods", "{.items[*].metadata.name}");
    assert_eq!(s.k(&["rollout", "restart", "deployment/web"]), "deployment.apps/web restarted\n");
    rolled_out(&s);
    let after = s.living_pods();
    assert!(after.len() == 2 && after.iter().all(|pod| !before.contains(pod)), "{before} -> {after:?}");
}

pub fn rolling_within_bounds(c: &Cluster) {
    let s = Space::new(c, "rolling");
    let bounds = "  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 1}}\n  selector:";
    let yaml = |version: &str| web("web", 4, version).replace("  selector:", bounds);
    s.apply(&yaml("v1"));
    rolled_out(&s);
    // How many there are is not asserted: pods that a set has yet to delete are still counted.
    let path = "jsonpath={.status.replicas} {.status.availableReplicas} {.status.updatedReplicas}{\"\\n\"}";
    let seen = s.stream(&["get", "deployment", "web", "--watch", "-o", path]);
    seen.shows("4 4 4");
    s.apply(&yaml("v2"));
    rolled_out(&s);
    let lines = seen.lines();
    assert!(lines.len() > 3, "{lines:?}");
    for line in &lines {
        let counts: Vec<u32> = line.split(' ').map(|n| n.parse().unwrap_or(0)).collect();
        assert!(counts[1] >= 3, "less than 3 available: {lines:#?}");
    }
    s.wait_for("pods", "{range .items[*]}{.spec.containers[0].command[2]}{end}", &v2_command().repeat(4));
}

fn v2_command() -> String {
    crate::web_command("v2")
}

pub fn replaced_and_scaled(c: &Cluster) {
    let s = Space::new(c, "scaled");
    s.apply(&web("web", 2, "v1"));
    rolled_out(&s);
    let victim = s.see("pods", "{.items[0].metadata.name}");
    assert_eq!(s.k(&["delete", "pod", &victim]), format!("pod \"{victim}\" deleted from scaled namespace\n"));
    s.wait_for("deployment web", "{.status.readyReplicas}", "2");
    assert!(!s.see("pods", "{.items[*].metadata.name}").contains(&victim));
    assert_eq!(s.k(&["scale", "deployment/web", "--replicas=3"]), "deployment.apps/web scaled\n");
    s.k(&["wait", "--for=jsonpath={.status.readyReplicas}=3", "deployment/web", "--timeout=60s"]);
    s.refused(
        &["scale", "deployment/web", "--current-replicas=7", "--replicas=1"],
        "",
        "Expected replicas to be 7, was 3",
    );
    s.k(&["scale", "deployment", "web", "--replicas=0"]);
    s.wait_for("pods", "{.items}", "[]");
    s.k(&["set", "image", "deployment/web", "web=nowhere.example/other:1"]);
    s.k(&["set", "env", "deployment/web", "A=b"]);
    s.k(&["set", "resources", "deployment/web", "--limits=cpu=100m"]);
    let container = "{.spec.template.spec.containers[0]['image','env','resources']}";
    assert_eq!(
        s.see("deployment web", container),
        r#"nowhere.example/other:1 [{"name":"A","value":"b"}] {"limits":{"cpu":"100m"}}"#
    );
    s.k(&["delete", "deployment", "web"]);
    s.wait_for("replicasets,pods", "{.items}", "[]");
}
