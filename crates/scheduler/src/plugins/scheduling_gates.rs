//! Holds a pod back while `spec.schedulingGates` isn't empty (KEP-3521).

use crate::framework::{ClusterEvent, Plugin, Reason};
use crate::pod::Pod;

pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn pre_enqueue(&self, pod: &Pod) -> Option<Reason> {
        let gates: Vec<&str> = pod.gates.iter().map(|g| g.as_str()).collect();
        (!gates.is_empty()).then(|| format!("waiting for scheduling gates: [{}]", gates.join(" ")).into())
    }

    fn hint(&self, pod: &Pod, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::PodChanged(changed) if changed.uid == pod.uid)
    }
}
