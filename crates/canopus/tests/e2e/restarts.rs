//! `canopus up` ends and starts again under running workloads.

use crate::space::Space;
use crate::web;
use canopus_testkit::{Cluster, eventually};
use std::time::Duration;

/// Objects, containers and Services are as they were, and Services answer while nothing runs.
pub fn of_the_whole_process(c: &mut Cluster) {
    let (ip, before) = {
        let s = std::mem::ManuallyDrop::new(Space::new(c, "restarts"));
        s.apply(&web("web", 2, "v1"));
        s.k(&["expose", "deployment", "web", "--port=80", "--target-port=http"]);
        s.k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
        (s.see("service web", "{.spec.clusterIP}"), identities(c))
    };
    eventually(Duration::from_secs(20), || fetch(c, &ip));
    let objects = c.k(&["get", "configmaps,secrets,services,deployments", "-A", "-o", "name"]);
    for kill in [true, false] {
        if kill {
            c.kill()
        } else {
            c.stop()
        }
        for _ in 0..5 {
            fetch(c, &ip).unwrap_or_else(|e| panic!("while it was away (killed: {kill}): {e}"));
        }
        c.up();
        fetch(c, &ip).unwrap_or_else(|e| panic!("after it came back (killed: {kill}): {e}"));
        assert_eq!(identities(c), before);
        assert_eq!(c.k(&["get", "configmaps,secrets,services,deployments", "-A", "-o", "name"]), objects);
    }
    // Everything works on: a new pod, a new endpoint.
    c.k(&["-n", "restarts", "scale", "deployment/web", "--replicas=3"]);
    c.k(&["-n", "restarts", "wait", "--for=jsonpath={.status.readyReplicas}=3", "deployment/web", "--timeout=60s"]);
    assert!(identities(c).contains(before.lines().next().unwrap_or("nothing")));
    c.k(&["delete", "namespace", "restarts", "--timeout=60s"]);
}

fn identities(c: &Cluster) -> String {
    let path = "{range .items[*]}{.metadata.name} {.status.podIP} {.status.containerStatuses[0].containerID} \
                {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
    c.k(&["-n", "restarts", "get", "pods", "-o", &format!("jsonpath={path}")])
}

fn fetch(c: &Cluster, ip: &str) -> Result<(), String> {
    let out = c.host().command("curl").args(["-sS", "-m", "2", &format!("http://{ip}/index.html")]).output();
    let out = out.expect("curl runs");
    if out.stdout.starts_with(b"v1 ") { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
}
