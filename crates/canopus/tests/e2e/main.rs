//! The real kubectl against real containers. One cluster for the whole file; each part cleans up after itself.

mod api;
mod containers;
mod workloads;

use canopus_testkit::Cluster;
use std::path::Path;

pub const IMAGE: &str = "canopus-e2e:1";

#[test]
fn a_cluster_driven_by_kubectl() {
    let mut cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_canopus")));
    cluster.import_busybox(IMAGE);
    let parts: &[(&str, fn(&Cluster))] = &[
        ("discovery and identity", api::discovery_and_identity),
        ("objects: create, apply, patch, label, edit, diff, delete", api::objects),
        ("errors change nothing", api::errors),
        ("explain", api::explain),
        ("a pod: logs, exec, env, volumes", containers::a_pod),
        ("a container that ends is restarted", containers::restarts),
        ("a missing image", containers::missing_image),
        ("an impossible request stays pending", containers::impossible),
        ("a deployment: scale, rollout, undo", workloads::deployment),
        ("a service: address, DNS, readiness", workloads::service),
    ];
    for (name, part) in parts {
        println!("-- {name}");
        part(&cluster);
    }
    println!("-- the agent is killed and started again");
    workloads::survives_kill(&mut cluster);
}
