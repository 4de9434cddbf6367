//! A ReplicaSet as a plan changes it: the numbers that matter, and a copy to write if any of them changed.

use super::revision::{DESIRED, MAX};
use crate::pods::created;
use canopus_api::{Time, Value};
use std::sync::Arc;

pub(super) struct Set {
    pub value: Arc<Value>,
    pub replicas: i64,
    pub changed: bool,
}

impl Set {
    pub fn new(value: &Arc<Value>) -> Set {
        let replicas = value["spec"]["replicas"].as_i64().unwrap_or(1);
        Set { value: value.clone(), replicas, changed: false }
    }

    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].str()
    }

    pub fn created(&self) -> Time {
        created(&self.value)
    }

    pub fn status(&self, count: &str) -> i64 {
        self.value["status"][count].int()
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.value["metadata"]["annotations"][name].as_str()
    }

    pub fn annotate(&mut self, name: &str, text: &str) {
        if self.annotation(name) != Some(text) {
            Arc::make_mut(&mut self.value).set_path(&["metadata", "annotations", name], text);
            self.changed = true;
        }
    }

    /// The replicas its deployment had when this set was last scaled.
    pub fn desired(&self) -> Option<i64> {
        self.annotation(DESIRED)?.parse().ok().filter(|n| *n >= 0)
    }

    pub fn max(&self) -> Option<i64> {
        self.annotation(MAX)?.parse().ok().filter(|n| *n >= 0)
    }

    pub fn resize(&mut self, replicas: i64) {
        if self.replicas != replicas {
            self.replicas = replicas;
            Arc::make_mut(&mut self.value).set_path(&["spec", "replicas"], replicas);
            self.changed = true;
        }
    }
}

/// Whether two templates are the same but for the hash label.
pub(super) fn same_template(a: &Value, b: &Value) -> bool {
    let bare = |template: &Value| {
        let mut template = template.clone();
        template.remove_path(&["metadata", "labels", canopus_api::labels::POD_TEMPLATE_HASH]);
        // Null and absent are the same to a server.
        template.remove_path(&["metadata", "creationTimestamp"]);
        template
    };
    bare(a) == bare(b)
}
