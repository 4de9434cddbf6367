//! The real kubectl against the real binary. One cluster for the whole file; each part cleans up after itself.

mod api;
mod cli;
mod containers;
mod kills;

use canopus_testkit::Cluster;
use std::path::Path;

/// One part of the test, on the cluster all share.
type Part = (&'static str, fn(&Cluster));

#[test]
fn a_cluster_driven_by_kubectl() {
    let mut cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_canopus")));
    let parts: &[Part] = &[
        ("discovery and identity", api::discovery_and_identity),
        ("objects: create, apply, patch, label, diff, delete", api::objects),
        ("errors change nothing", api::errors),
        ("explain", api::explain),
        ("deployments, replica sets, services, garbage", api::workloads),
        ("namespaces, service accounts, tokens", api::namespaces),
    ];
    for (name, part) in parts {
        println!("-- {name}");
        part(&cluster);
    }
    println!("-- a pod in real containers");
    containers::a_pod(&mut cluster);
    println!("-- killed and started again");
    api::survives_kill(&mut cluster);
    println!("-- killed under load");
    kills::under_load(&mut cluster);
}
