//! The real kubectl against the real binary and real containers. Stories share a cluster, each in a namespace of its own,
//! and play side by side; what ends the process plays alone.

mod access;
mod api;
mod cli;
mod clients;
mod customs;
mod elsewhere;
mod keys;
mod kills;
mod kube_rs;
mod pods;
mod reads;
mod restarts;
mod services;
mod space;
mod workloads;
mod writes;

use canopus_testkit::Cluster;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

const IMAGE: &str = "canopus-e2e:1";
/// How many stories play at a time.
const SIDE_BY_SIDE: usize = 6;

type Story = (&'static str, fn(&Cluster));

const STORIES: &[Story] = &[
    ("helm", clients::helm),
    ("kubectl of other versions", clients::other_kubectls),
    ("the Python client", clients::python),
    ("a controller written with kube-rs", kube_rs::operator),
    ("kube-rs: watchers, a lock", kube_rs::watchers),
    ("kube-rs: streams", kube_rs::streams),
    ("a crash loop backs off", pods::crash_loop),
    ("rollouts: status, history, undo, restart, pause, resume", workloads::rollouts),
    ("a rolling update keeps to its bounds", workloads::rolling_within_bounds),
    ("Services from host and pods, following readiness", services::from_host_and_pods),
    ("a container killed from outside is restarted", pods::killed_from_outside),
    ("a deleted pod is replaced; scale; set", workloads::replaced_and_scaled),
    ("an image that is not there", pods::missing_image),
    ("requests that cannot be met", pods::impossible),
    ("pods, Services and nodes through the API server", services::proxied),
    ("attach", pods::attach),
    ("exec and port-forward over SPDY", pods::spdy),
    ("names: A, SRV, PTR", services::names),
    ("masquerade", services::masquerade),
    ("exec with a terminal, cp", pods::exec_and_cp),
    ("logs", pods::logs),
    ("run, wait, events, delete", pods::run_and_wait),
    ("volumes change live", pods::live_volumes),
    ("a pod's token", pods::token_in_a_pod),
    ("describe", reads::descriptions),
    ("output formats", reads::formats),
    ("watch", reads::watches),
    ("generators", writes::generators),
    ("apply, diff, prune", writes::apply),
    ("server-side apply", writes::server_side_apply),
    ("edit", writes::edit),
    ("patch, label, annotate", writes::patches),
    ("errors change nothing", writes::errors),
    ("delete", writes::deletions),
    ("discovery and identity", api::discovery_and_identity),
    ("explain", api::explain),
    ("policies are checked", api::policies_are_checked),
    ("namespaces, service accounts, tokens", api::namespaces),
    ("definitions that operators bring", customs::of_operators),
    ("certificates for users", access::certificates),
    ("rights", access::rights),
];

/// One cluster at a time: on two cores more would mostly wait for each other.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn a_cluster_driven_by_kubectl() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = ready_cluster();
    // STORY=logs plays those alone that have it in their names.
    let asked = std::env::var("STORY").unwrap_or_default();
    let open = Mutex::new(STORIES.iter().filter(|(name, _)| name.contains(&asked)).collect::<VecDeque<_>>());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some((name, story)) = { open.lock().expect("no panic holds it").pop_front() } {
                    let start = Instant::now();
                    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(&cluster)));
                    println!("-- {name}: {} in {:.1?}", if played.is_ok() { "ok" } else { "FAILED" }, start.elapsed());
                    if played.is_err() {
                        failed.lock().expect("no panic holds it").push(*name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic holds it");
    assert!(failed.is_empty(), "failed: {failed:#?}");
    cluster.no_pods_left();
}

#[test]
fn a_cluster_that_is_killed() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut cluster = ready_cluster();
    restarts::of_the_whole_process(&mut cluster);
    api::survives_kill(&mut cluster);
    kills::under_load(&mut cluster);
}

#[test]
fn a_cluster_in_etcd() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    elsewhere::in_etcd(Path::new(env!("CARGO_BIN_EXE_canopus")));
}

#[test]
fn a_cluster_whose_keys_take_turns() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    keys::take_turns(Path::new(env!("CARGO_BIN_EXE_canopus")));
}

/// A cluster whose node is ready and has the image.
fn ready_cluster() -> Cluster {
    ready_cluster_of(Cluster::new(Path::new(env!("CARGO_BIN_EXE_canopus"))))
}

/// The same of one that has not been started yet.
fn ready_cluster_of(mut cluster: Cluster) -> Cluster {
    cluster.up();
    cluster.import_busybox(IMAGE);
    cluster.wait_for("node node-1", "{.status.conditions[?(@.type==\"Ready\")].status}", "True");
    cluster
}

fn web_command(version: &str) -> String {
    format!("mkdir -p /tmp/w; echo {version} $HOSTNAME > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w")
}

/// A Deployment of web servers that say their version and name.
fn web(name: &str, replicas: u32, version: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: '{IMAGE}'
        command: [sh, -c, '{}']
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /index.html, port: http}}, periodSeconds: 1}}
",
        web_command(version)
    )
}
