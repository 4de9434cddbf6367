//! How pods begin, restart and end.

use canopus_api::{Value, value};

use crate::{World, phase, shell};

fn first(status: &Value) -> &Value {
    &status["containerStatuses"][0]
}

fn terminated(status: &Value) -> &Value {
    &first(status)["state"]["terminated"]
}

pub async fn out_of_memory(world: &World) {
    let mut container = shell("tail /dev/zero");
    container.set("resources", value!({"limits": {"memory": "8Mi"}}));
    world.create("oom", value!({"restartPolicy": "Never", "containers": [container]})).await;
    let pod = world.until("oom", "Failed", phase("Failed")).await;
    let ended = terminated(&pod["status"]);
    assert_eq!((ended["reason"].str(), ended["exitCode"].int()), ("OOMKilled", 137));
    world.delete("oom").await;
}

pub async fn messages_from_logs(world: &World) {
    let mut container = shell("echo one; printf two; exit 1");
    container.set("terminationMessagePolicy", "FallbackToLogsOnError");
    world.create("fallback", value!({"restartPolicy": "Never", "containers": [container]})).await;
    let pod = world.until("fallback", "Failed", phase("Failed")).await;
    assert_eq!(terminated(&pod["status"])["message"].str(), "one\ntwo");
    world.delete("fallback").await;
}

pub async fn sidecars(world: &World) {
    let mut side = shell("trap 'exit 0' TERM; touch /v/up; while true; do sleep 0.05; done");
    side.set("name", "side");
    side.set("restartPolicy", "Always");
    side.set("startupProbe", value!({"exec": {"command": ["test", "-e", "/v/up"]}, "periodSeconds": 1}));
    let mut main = shell("test -e /v/up && echo after");
    for container in [&mut side, &mut main] {
        container.set("volumeMounts", value!([{"name": "v", "mountPath": "/v"}]));
    }
    let spec = value!({
        "restartPolicy": "Never", "initContainers": [side], "containers": [main],
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    world.create("sidecar", spec).await;
    let pod = world.until("sidecar", "Succeeded", phase("Succeeded")).await;
    assert!(world.log("sidecar", 0).contains("after"), "{}", world.log("sidecar", 0));
    let side = &pod["status"]["initContainerStatuses"][0];
    assert_eq!(side["state"]["terminated"]["exitCode"].as_i64(), Some(0), "{side:?}");
    world.delete("sidecar").await;
}

pub async fn deadlines(world: &World) {
    let container = shell("trap 'exit 0' TERM; while true; do sleep 0.05; done");
    world.create("deadline", value!({"activeDeadlineSeconds": 3, "containers": [container]})).await;
    let pod = world.until("deadline", "Failed", phase("Failed")).await;
    let status = &pod["status"];
    assert_eq!(status["reason"].str(), "DeadlineExceeded");
    assert!(!terminated(status).is_null(), "it is over only when nothing runs: {status:?}");
    world.delete("deadline").await;
}

/// SIGTERM, time to end, SIGKILL; also when the API has forgotten the pod at once.
pub async fn endings(world: &World) {
    let dir = world.dir.path().join("endings");
    std::fs::create_dir_all(&dir).expect("directory");
    let pod = |script: &str| {
        let mut container = shell(script);
        container.set("volumeMounts", value!([{"name": "out", "mountPath": "/out"}]));
        value!({
            "containers": [container], "terminationGracePeriodSeconds": 20,
            "volumes": [{"name": "out", "hostPath": {"path": dir.to_string_lossy().as_ref()}}],
        })
    };
    let polite = |name: &str| {
        pod(&format!("trap 'sleep 0.3; echo bye > /out/{name}; exit 0' TERM; echo up; while true; do sleep 0.05; done"))
    };
    for (name, spec) in [
        ("polite", polite("polite")),
        ("forced", polite("forced")),
        ("deaf", pod("trap '' TERM; echo up; while true; do sleep 0.05; done")),
    ] {
        world.create(name, spec).await;
    }
    for name in ["polite", "forced", "deaf"] {
        world.until(name, "up", |_| world.log(name, 0).contains("up")).await;
    }
    world.force_delete("forced").await;
    world.delete("deaf").await;
    world.delete("polite").await;
    world.eventually("both said goodbye", || dir.join("polite").exists() && dir.join("forced").exists()).await;
    world
        .eventually("the forgotten pod is cleaned up", || !world.dir.path().join("node/pods/uid-forced").exists())
        .await;
}

pub async fn probes(world: &World) {
    let mut container = shell("touch /tmp-alive; sleep 1; rm /tmp-alive; exec sleep 100");
    container.set(
        "livenessProbe",
        value!({"exec": {"command": ["cat", "/tmp-alive"]}, "periodSeconds": 1, "failureThreshold": 1}),
    );
    container.set("readinessProbe", value!({"tcpSocket": {"port": 81}, "periodSeconds": 1}));
    world.create("sick", value!({"containers": [container], "terminationGracePeriodSeconds": 1})).await;
    let pod = world.until("sick", "restarted", |s| first(s)["restartCount"].int() > 0).await;
    assert_eq!(first(&pod["status"])["lastState"]["terminated"]["exitCode"].int(), 137);
    assert!(!first(&pod["status"])["ready"].bool());
    let events = world.events("sick").await;
    let has = |reason: &str, text: &str| events.iter().any(|(r, m)| r == reason && m.contains(text));
    assert!(has("Killing", "Container c failed liveness probe, will be restarted"), "{events:?}");
    assert!(
        has("Unhealthy", "Liveness probe failed: cat: can't open '/tmp-alive': No such file or directory"),
        "{events:?}"
    );
    assert!(has("Unhealthy", ":81: connect: connection refused"), "{events:?}");
    assert!(
        has("Pulled", "already present") && has("Created", "Container created") && has("Started", "Container started")
    );
    world.delete("sick").await;
}

/// A pod's image may change; its container then starts anew, whatever the policy.
pub async fn another_image(world: &World) {
    let spec =
        value!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [shell("exec sleep 100")]});
    world.create("changed", spec).await;
    world.until("changed", "running", |s| !first(s)["state"]["running"].is_null()).await;
    let mut other = shell("echo other; exec sleep 100");
    other.set("image", "busybox:2");
    world.patch("changed", value!({"spec": {"containers": [other]}})).await;
    world
        .until("changed", "restarted", |s| {
            first(s)["restartCount"].int() == 1 && first(s)["image"].str() == "busybox:2"
        })
        .await;
    world.delete("changed").await;
}

pub async fn refused(world: &World) {
    let sysctls = value!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]});
    world.create("unsafe", value!({"securityContext": sysctls, "containers": [shell("true")]})).await;
    let mut big = shell("true");
    big.set("resources", value!({"requests": {"cpu": "1000"}}));
    world.create("big", value!({"containers": [big]})).await;
    for (name, reason) in [("unsafe", "SysctlForbidden"), ("big", "OutOfcpu")] {
        let pod = world.until(name, "Failed", phase("Failed")).await;
        assert_eq!(pod["status"]["reason"].str(), reason);
        assert!(pod["status"]["message"].str().starts_with("Pod was rejected: "));
        world.delete(name).await;
    }
}
