//! The objects that benchmarks make.

use crate::cluster::IMAGE;
use anyhow::{Context, Result};
use bytes::Bytes;
use canopus_api::{Value, json, value};

/// A pod that runs: one small container that ends when told to.
pub fn running_pod(name: &str) -> Bytes {
    json::to_vec(&value!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "main", "image": IMAGE, "command": ["sh", "-c", "trap exit TERM; sleep 1000000 & wait"],
            }],
        },
    }))
    .into()
}

const NUMBER: &str = "00000000";
const TURN: &str = "\"bench/turn\":\"00000000\"";
const DIGITS: std::ops::Range<usize> = TURN.len() - 9..TURN.len() - 1;

/// A pod as Deployments make them, about 3 KB when it is stored, with its number in its name. No scheduler minds it.
pub struct PendingPod {
    body: Vec<u8>,
    number_at: usize,
}

impl PendingPod {
    pub fn new() -> Result<PendingPod> {
        let env: Vec<Value> =
            (0..6).map(|i| value!({"name": format!("VARIABLE_{i}"), "value": "some-value-of-it"})).collect();
        let body = json::to_vec(&value!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("web-7d9c5b8f6-{NUMBER}"),
                "labels": {"app": "web", "pod-template-hash": "7d9c5b8f6"},
                "annotations": {"bench/turn": "00000000"},
            },
            "spec": {
                "schedulerName": "none",
                "containers": [{
                    "name": "web", "image": "registry.example/web:1.2.3", "env": env,
                    "ports": [{"containerPort": 8080, "name": "http"}],
                    "resources": {
                        "limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"},
                    },
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 5},
                }],
            },
        }));
        let number_at = find(&body, format!("f6-{NUMBER}").as_bytes()).context("the pod has a name")? + 3;
        Ok(PendingPod { body, number_at })
    }

    pub fn name(number: usize) -> String {
        format!("web-7d9c5b8f6-{number:08}")
    }

    pub fn number(&self, number: usize) -> Bytes {
        let mut body = self.body.clone();
        body[self.number_at..self.number_at + NUMBER.len()].copy_from_slice(format!("{number:08}").as_bytes());
        body.into()
    }
}

/// The object that an answer holds, changed in one annotation: what a client that updates it sends next.
pub fn turned(object: &[u8], turn: usize) -> Result<Bytes> {
    let mut body = object.to_vec();
    let at = find(&body, &TURN.as_bytes()[..DIGITS.start]).context("the object has the annotation")?;
    body[at + DIGITS.start..at + DIGITS.end].copy_from_slice(format!("{turn:08}").as_bytes());
    Ok(body.into())
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_differ() {
        let pod = PendingPod::new().unwrap();
        let other = pod.number(1234567);
        let value = json::parse(&other).unwrap();
        assert_eq!(value["metadata"]["name"].str(), PendingPod::name(1234567));
        let turned = json::parse(&turned(&other, 42).unwrap()).unwrap();
        assert_eq!(turned["metadata"]["annotations"]["bench/turn"].str(), "00000042");
        assert_eq!(turned["spec"], value["spec"]);
    }
}
