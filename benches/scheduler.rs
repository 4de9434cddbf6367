//! `scheduler`: how fast decisions are made: upstream's SchedulingBasic (5,000 nodes, 1,000 pods there, 10,000 pods measured) from
//! parsed objects to assumed pods, without the API.

use canopus_api::{Object, Value, value};
use canopus_benches::Report;
use canopus_scheduler::cache::{Cache, Snapshot};
use canopus_scheduler::cycle::{Turn, schedule};
use canopus_scheduler::node::Node;
use canopus_scheduler::pod::Pod;
use canopus_scheduler::queue::Queue;
use std::sync::Arc;
use std::time::Instant;

const NODES: usize = 5_000;
const BEFORE: usize = 1_000;
const MEASURED: usize = 10_000;

fn node(i: usize) -> Value {
    value!({
        "metadata": {"name": format!("node-{i}"), "labels": {"kubernetes.io/hostname": format!("node-{i}")}},
        "spec": {}, "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}},
    })
}

fn pod(i: usize) -> Object {
    let name = format!("pod-{i}");
    let pod = value!({
        "metadata": {"name": &name, "namespace": "default", "uid": &name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "pause", "image": "pause", "resources": {
            "limits": {"cpu": "100m", "memory": "500Mi"}, "requests": {"cpu": "100m", "memory": "500Mi"}}}]},
    });
    Object::from_value(pod, &[], 1)
}

/// Schedules the pods `range` one after the other; answers how many found a node.
fn place(objects: &[Object], queue: &mut Queue, cache: &mut Cache, snapshot: &mut Snapshot, turn: &mut Turn) -> usize {
    for object in objects {
        queue.put(Arc::new(Pod::of(object)), Instant::now());
    }
    let mut placed = 0;
    while let Some(next) = queue.pop(Instant::now()) {
        cache.update(snapshot);
        if let Ok(node) = schedule(&next.pod, snapshot, turn) {
            cache.assume(Arc::new(next.pod.placed(&node)));
            placed += 1;
        }
        queue.done(&next.pod.uid);
    }
    placed
}

fn main() {
    let report = Report::new("scheduler");
    let (mut queue, mut cache, mut snapshot) = (Queue::default(), Cache::default(), Snapshot::default());
    let mut turn = Turn::new(1);
    for i in 0..NODES {
        cache.put_node(Arc::new(Node::of(&node(i))));
    }
    let objects: Vec<Object> = (0..BEFORE + MEASURED).map(pod).collect();
    place(&objects[..BEFORE], &mut queue, &mut cache, &mut snapshot, &mut turn);
    let begin = Instant::now();
    let placed = place(&objects[BEFORE..], &mut queue, &mut cache, &mut snapshot, &mut turn);
    let rate = placed as f64 / begin.elapsed().as_secs_f64();
    report.goal("decisions_basic", rate, "1/s", 8100.0);
}
