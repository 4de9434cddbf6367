//! The agent with real containers, against an API in memory. A program of its own rather than a test harness: it is
//! also the shim and the runtime's child, and enters a network namespace before it has threads.

mod api;
mod client;
mod lifecycle;
mod pki;
mod surroundings;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::Memory;
use canopus_api::{Api, DeleteOptions, Gvr, ListOptions, Patch, Target, Value, WriteOptions, value};
use canopus_net::netlink::{Message, Netlink};
use canopus_testkit::leaks;
use tokio_util::sync::CancellationToken;

fn main() {
    let program = std::env::args_os().next().unwrap_or_default();
    if Path::new(&program).file_name().is_some_and(|n| n == "canopus-shim") {
        std::process::exit(canopus_runtime::shim::main(std::env::args_os()));
    }
    if let Some(code) = canopus_runtime::dispatch_child() {
        std::process::exit(code);
    }
    // What test runners ask of every test program.
    if std::env::args().any(|a| a == "--list") {
        println!("pods_live_and_die: test");
        return;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
    Netlink::route().and_then(|mut n| n.execute(&[Message::set_up(1)])).expect("loopback");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let dir = tempfile::tempdir().expect("tempdir");
    let world = Arc::new(World { api: Memory::new(), pki: pki::Pki::new(), dir });
    let tested = world.clone();
    let result = runtime.block_on(async { tokio::spawn(async move { pods_live_and_die(&tested).await }).await });
    // An agent that a failure has left running must not work against the clean-up.
    runtime.shutdown_timeout(Duration::from_secs(2));
    drop(world);
    if result.is_err() {
        std::process::exit(1);
    }
    println!("test pods_live_and_die ... ok");
}

struct World {
    api: Arc<Memory>,
    pki: pki::Pki,
    dir: tempfile::TempDir,
}

/// Whatever became of the test, nothing of it stays.
impl Drop for World {
    fn drop(&mut self) {
        let dir = self.dir.path();
        let reset = canopus_runtime::Runtime::open(self.config().runtime).and_then(|r| r.reset());
        let store = canopus_images::ImageStore::open(&dir.join("images")).expect("images");
        for container in store.containers().expect("containers") {
            store.release(&container).expect("release");
        }
        canopus_node::volumes::teardown(&dir.join("node/pods")).expect("volumes");
        reset.expect("reset");
        let mut left = leaks::mounts(dir);
        left.extend(leaks::groups(&self.cgroup_root()));
        left.extend(leaks::processes(dir));
        assert!(left.is_empty() || std::thread::panicking(), "left behind: {left:#?}");
    }
}

impl World {
    fn cgroup_root(&self) -> String {
        format!("canopus-node-test-{}", std::process::id())
    }

    fn config(&self) -> canopus_node::Config {
        let dir = self.dir.path();
        let program = std::env::current_exe().expect("this program");
        let shim = dir.join("canopus-shim");
        if !shim.exists() {
            std::fs::hard_link(&program, &shim).or_else(|_| std::fs::copy(&program, &shim).map(|_| ())).expect("shim");
        }
        canopus_node::Config {
            node_name: "n1".into(),
            state_dir: dir.join("node"),
            log_dir: dir.join("logs"),
            node_ip: [192, 0, 2, 1].into(),
            bridge: "cni0".into(),
            service_cidrs: Vec::new(),
            cluster_dns: [10, 96, 0, 10].into(),
            cluster_domain: "cluster.local".into(),
            runtime: canopus_runtime::Config {
                state_dir: dir.join("runtime"),
                shim_path: shim,
                child_path: program,
                cgroup_root: self.cgroup_root(),
            },
            image_root: dir.join("images"),
            server: canopus_node::Server { port: 10250, tls: self.pki.server() },
            max_pods: 110,
            // Tests must run on a disk that is nearly full, too.
            eviction_hard: "".parse().expect("no thresholds"),
            version: "v1.36.0".into(),
        }
    }

    fn pod(name: &str) -> Target {
        Target::new(&Gvr::new("", "v1", "pods"), "default", name)
    }

    async fn create(&self, name: &str, mut spec: Value) {
        spec.set("nodeName", "n1");
        let meta = value!({"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {"a": "b"}});
        let pod =
            value!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": {"phase": "Pending"}});
        self.api.create(&Self::pod(name), pod, &WriteOptions::default()).await.expect("create");
    }

    /// Waits until the pod's status is as wanted.
    async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..600 {
            if let Ok(pod) = self.api.get(&Self::pod(name)).await
                && wanted(&pod.value()["status"])
            {
                return (*pod.value()).clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let pod = self.api.get(&Self::pod(name)).await.map(|p| canopus_api::json::to_string(&p.value()));
        panic!("{name} never was {what}: {pod:?}");
    }

    /// What happened to the pod: reasons and messages.
    async fn events(&self, pod: &str) -> Vec<(String, String)> {
        let target = Target::new(&Gvr::new("", "v1", "events"), "", "");
        let list = self.api.list(&target, &ListOptions::default()).await.expect("events");
        let events = list.items.iter().map(|e| e.value()).filter(|e| e["involvedObject"]["name"].str() == pod);
        events.map(|e| (e["reason"].str().to_owned(), e["message"].str().to_owned())).collect()
    }

    async fn until_event(&self, pod: &str, wanted: &(String, String)) {
        for _ in 0..600 {
            if self.events(pod).await.contains(wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{wanted:?} never happened to {pod}: {:?}", self.events(pod).await);
    }

    async fn eventually(&self, what: &str, holds: impl Fn() -> bool) {
        for _ in 0..600 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never: {what}");
    }

    /// Creates or replaces an object of the core group.
    async fn put(&self, plural: &str, object: Value) {
        let target = Target::new(&Gvr::new("", "v1", plural), "default", object["metadata"]["name"].str());
        self.api.create(&target, object.clone(), &WriteOptions::default()).await.expect("create");
    }

    async fn patch(&self, pod: &str, patch: Value) {
        let options = WriteOptions::default();
        self.api.patch(&Self::pod(pod), Patch::Merge(patch), &options).await.expect("patch");
    }

    async fn force_delete(&self, name: &str) {
        let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        self.api.delete(&Self::pod(name), &options).await.expect("delete");
    }

    async fn delete(&self, name: &str) {
        let options = DeleteOptions { grace_period_seconds: Some(1), ..DeleteOptions::default() };
        self.api.delete(&Self::pod(name), &options).await.expect("delete");
        for _ in 0..600 {
            if self.api.get(&Self::pod(name)).await.is_err_and(|e| e.is_not_found()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{name} was never gone");
    }

    fn log(&self, pod: &str, run: u32) -> String {
        let dir = self.dir.path().join(format!("logs/default_{pod}_uid-{pod}/c"));
        std::fs::read_to_string(dir.join(format!("{run}.log"))).unwrap_or_default()
    }
}

fn shell(script: &str) -> Value {
    value!({"name": "c", "image": "busybox:1", "command": ["/bin/sh", "-c", script], "terminationMessagePath": "/dev/termination-log"})
}

fn phase(wanted: &'static str) -> impl Fn(&Value) -> bool {
    move |status| status["phase"].str() == wanted
}

async fn pods_live_and_die(world: &World) {
    let images = canopus_images::Images::open(world.dir.path().join("images")).await.expect("images");
    let busybox = canopus_images::build::busybox("busybox:1", Path::new("/bin/busybox")).expect("busybox");
    let archive = world.dir.path().join("busybox.tar");
    let file = std::fs::File::create(&archive).expect("archive");
    canopus_images::build::oci_archive(&[busybox], file).expect("archive");
    images.import(archive, None).await.expect("import");
    let again = canopus_images::build::busybox("busybox:2", Path::new("/bin/busybox")).expect("busybox");
    let archive = world.dir.path().join("again.tar");
    let file = std::fs::File::create(&archive).expect("archive");
    canopus_images::build::oci_archive(&[again], file).expect("archive");
    images.import(archive, None).await.expect("import");
    let data = value!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": "one"}});
    let map = Target::new(&Gvr::new("", "v1", "configmaps"), "default", "m");
    world.api.create(&map, data, &WriteOptions::default()).await.expect("config map");

    let mut agent = Agent::start(world);
    node_is_ready(world).await;
    runs_to_its_end(world).await;
    fails(world).await;
    missing_image(world).await;
    let running = keeps_running(world, &map).await;
    agent.stop().await;
    agent = Agent::start(world);
    survives_the_agent(world, &running).await;
    serves(world).await;
    refuses(world).await;
    restarts(world).await;
    let quiet = world.api.get(&World::pod("done")).await.expect("pod").revision;
    scenarios(world).await;
    let now = world.api.get(&World::pod("done")).await.expect("pod").revision;
    assert_eq!(now, quiet, "nothing is written of a pod that doesn't change");
    for pod in ["done", "failed", "noimage", "web", "crash"] {
        world.delete(pod).await;
    }
    agent.stop().await;
    nothing_is_left(world);
}

/// Independent of each other, so all at once.
async fn scenarios(world: &World) {
    tokio::join!(
        lifecycle::out_of_memory(world),
        lifecycle::messages_from_logs(world),
        lifecycle::sidecars(world),
        lifecycle::deadlines(world),
        lifecycle::endings(world),
        lifecycle::probes(world),
        lifecycle::another_image(world),
        lifecycle::refused(world),
    );
    tokio::join!(
        surroundings::environment(world),
        surroundings::missing_references(world),
        surroundings::volumes(world),
        surroundings::missing_volumes(world),
        surroundings::rights(world),
        surroundings::root_is_refused(world),
        surroundings::names(world),
    );
}

struct Agent {
    token: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), canopus_node::Error>>,
}

impl Agent {
    fn start(world: &World) -> Agent {
        let token = CancellationToken::new();
        let api: Arc<dyn Api> = world.api.clone();
        Agent { task: tokio::spawn(canopus_node::run(world.config(), api, token.clone())), token }
    }

    async fn stop(self) {
        self.token.cancel();
        self.task.await.expect("no panic").expect("no error");
    }
}

async fn node_is_ready(world: &World) {
    let target = Target::new(&Gvr::new("", "v1", "nodes"), "", "n1");
    for _ in 0..200 {
        if let Ok(node) = world.api.get(&target).await
            && node.value()["status"]["conditions"]
                .items()
                .iter()
                .any(|c| c["type"].str() == "Ready" && c["status"].str() == "True")
        {
            let told = ("NodeReady".to_owned(), "Node n1 status is now: NodeReady".to_owned());
            return world.until_event("n1", &told).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the node never was ready");
}

async fn runs_to_its_end(world: &World) {
    let mut container = shell("echo $WHO $POD $(cat /data/k) $(cat /mem/token); echo bye >/dev/termination-log");
    container.set(
        "env",
        value!([
            {"name": "WHO", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]),
    );
    container.set(
        "volumeMounts",
        value!([
            {"name": "data", "mountPath": "/data"}, {"name": "mem", "mountPath": "/mem"},
        ]),
    );
    let mut init = shell("true");
    init.set("name", "i");
    let spec = value!({
        "restartPolicy": "Never", "initContainers": [init], "containers": [container],
        "volumes": [
            {"name": "data", "configMap": {"name": "m"}},
            {"name": "mem", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        ],
    });
    world.create("done", spec).await;
    let pod = world.until("done", "Succeeded", phase("Succeeded")).await;
    assert!(world.log("done", 0).ends_with("stdout F one done one a-token\n"), "{:?}", world.log("done", 0));
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((ended["reason"].str(), ended["message"].str()), ("Completed", "bye\n"));
    assert!(pod["status"]["initContainerStatuses"][0]["ready"].bool());
}

async fn fails(world: &World) {
    world.create("failed", value!({"restartPolicy": "Never", "containers": [shell("exit 7")]})).await;
    let pod = world.until("failed", "Failed", phase("Failed")).await;
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((ended["exitCode"].int(), ended["reason"].str()), (7, "Error"));
}

async fn missing_image(world: &World) {
    world.create("noimage", value!({"containers": [{"name": "c", "image": "nowhere:1"}]})).await;
    let reason =
        |wanted: &'static str| move |s: &Value| s["containerStatuses"][0]["state"]["waiting"]["reason"].str() == wanted;
    world.until("noimage", "refused", reason("ErrImagePull")).await;
    world.until("noimage", "backing off", reason("ImagePullBackOff")).await;
}

fn is_ready(status: &Value) -> bool {
    status["conditions"].items().iter().any(|c| c["type"].str() == "Ready" && c["status"].str() == "True")
}

/// A pod with probes whose configuration changes. Its container's id.
async fn keeps_running(world: &World, map: &Target) -> String {
    let mut container = shell(
        "httpd -p 8080 -h /; while [ \"$(cat /data/k)\" = one ]; do sleep 0.1; done; echo $(cat /data/k); exec sleep 1000",
    );
    container.set("readinessProbe", value!({"httpGet": {"path": "/data/k", "port": 8080}, "periodSeconds": 1}));
    container.set("livenessProbe", value!({"exec": {"command": ["true"]}, "periodSeconds": 1}));
    container.set("volumeMounts", value!([{"name": "data", "mountPath": "/data"}]));
    let spec = value!({"containers": [container], "volumes": [{"name": "data", "configMap": {"name": "m"}}]});
    world.create("web", spec).await;
    let pod = world.until("web", "ready", is_ready).await;
    assert!(pod["status"]["podIP"].str().starts_with("10.244.9."), "{}", pod["status"]["podIP"].str());
    let patch = Patch::Merge(value!({"data": {"k": "two"}}));
    world.api.patch(map, patch, &WriteOptions::default()).await.expect("patch");
    for _ in 0..200 {
        if world.log("web", 0).contains("two") {
            return pod["status"]["containerStatuses"][0]["containerID"].str().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the change never showed: {:?}", world.log("web", 0));
}

async fn survives_the_agent(world: &World, running: &str) {
    let pod = world.until("web", "ready again", is_ready).await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!((status["containerID"].str(), status["restartCount"].int()), (running, 0));
}

async fn serves(world: &World) {
    let of = &world.pki.client(Some("api-server"));
    let logs = client::get(of, "/containerLogs/default/web/c?tailLines=1").await;
    assert!(logs.contains("200 OK") && logs.contains("two\n"), "{logs}");
    let missing = client::get(of, "/containerLogs/default/nobody/c").await;
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    let exec = |script: &str| format!("/exec/default/web/c?command=sh&command=-c&command={script}&output=1&error=1");
    let [out, err, status] = client::exec(of, &exec("echo+a;echo+b+%3E%262;exit+3"), None).await;
    assert_eq!((out.as_str(), err.as_str()), ("a\n", "b\n"));
    assert!(status.contains("NonZeroExitCode") && status.contains("exit status 3"), "{status}");
    let path = "/exec/default/web/c?command=cat&input=1&output=1";
    let [out, _, status] = client::exec(of, path, Some(b"in and out")).await;
    assert_eq!(out, "in and out");
    assert!(status.contains("Success"), "{status}");
    let path = "/exec/default/web/c?command=sh&tty=1&input=1&output=1";
    let shown = client::terminal(of, path, b"sleep 0.3; stty size; exit\n").await;
    assert!(shown.contains("30 100"), "{shown:?}");
    // More than all buffers on the way hold, to a command that is slow to begin with.
    let big = vec![b'x'; 8 << 20];
    let counted = "/exec/default/web/c?command=sh&command=-c&command=sleep+0.3;wc+-c&input=1&output=1";
    let [out, _, _] = client::exec(of, counted, Some(&big)).await;
    assert_eq!(out.trim(), big.len().to_string());
    let source = "/exec/default/web/c?command=head&command=-c&command=8388608&command=/dev/zero&output=1";
    let [out, _, _] = client::exec(of, source, None).await;
    assert_eq!(out.len(), big.len());
}

/// Only who may is let in, by certificate or by token.
async fn refuses(world: &World) {
    let path = "/containerLogs/default/web/c";
    let nobody = world.pki.client(None);
    let answer = client::get(&nobody, path).await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.ends_with("Unauthorized"), "{answer}");
    let answer = client::get(&world.pki.client(Some("somebody")), path).await;
    let wanted = "Forbidden (user=somebody, verb=get, resource=nodes, subresource(s)=[proxy])";
    assert!(answer.starts_with("HTTP/1.1 403") && answer.ends_with(wanted), "{answer}");
    for (token, path, code) in
        [("good", path, 200), ("bad", path, 401), ("reader", path, 403), ("reader", "/pods", 200)]
    {
        let answer = client::get_as(&nobody, path, &format!("Authorization: Bearer {token}\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{token} {path}: {answer}");
    }
}

async fn restarts(world: &World) {
    world.create("crash", value!({"restartPolicy": "Always", "containers": [shell("echo hi; exit 3")]})).await;
    let looping = |s: &Value| s["containerStatuses"][0]["state"]["waiting"]["reason"].str() == "CrashLoopBackOff";
    let pod = world.until("crash", "in its loop", looping).await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["restartCount"].int(), 1);
    assert_eq!(status["lastState"]["terminated"]["exitCode"].int(), 3);
    assert_eq!(pod["status"]["phase"].str(), "Running");
}

fn nothing_is_left(world: &World) {
    let dir = world.dir.path();
    for below in ["runtime/sandboxes", "node/pods", "logs"] {
        let left: Vec<_> = std::fs::read_dir(dir.join(below)).expect(below).flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let own = dir.to_string_lossy();
    assert!(!mounts.lines().any(|l| l.contains(own.as_ref())), "{mounts}");
}
