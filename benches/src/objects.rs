//! The objects that benchmarks make.

use crate::cluster::{IMAGE, NODE};
use bytes::Bytes;
use canopus_api::{json, value};

/// A pod that runs: one small container that ends when told to.
pub fn running_pod(name: &str) -> Bytes {
    json::to_vec(&value!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {
            "nodeName": NODE,
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "main", "image": IMAGE, "command": ["sh", "-c", "trap exit TERM; sleep 1000000 & wait"],
            }],
        },
    }))
    .into()
}
