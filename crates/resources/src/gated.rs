//! Every field that belongs to a feature, with the feature's gate. While the gate is off, what clients write there is
//! dropped without a word, unless the object had the feature in use before (upstream `dropDisabledFields`).

use canopus_api::Value;

/// A field: the gate, the resource's group and plural, and where the field is. `[]` stands for each item of a list, `{}` for
/// each value of a map; a parent with `?` goes with its last field.
struct Gated(&'static str, &'static str, &'static str, &'static str);

const DEVICES: &str = "resource.k8s.io";
const GROUPS: &str = "scheduling.k8s.io";

static FIELDS: &[Gated] = &[
    Gated("MaxUnavailableStatefulSet", "apps", "statefulsets", "spec.updateStrategy.rollingUpdate.maxUnavailable"),
    Gated("HPAConfigurableTolerance", "autoscaling", "horizontalpodautoscalers", "spec.behavior.scaleDown.tolerance"),
    Gated("HPAConfigurableTolerance", "autoscaling", "horizontalpodautoscalers", "spec.behavior.scaleUp.tolerance"),
    Gated("DRAExtendedResource", DEVICES, "deviceclasses", "spec.extendedResourceName"),
    Gated("DRAResourceClaimDeviceStatus", DEVICES, "resourceclaims", "status.devices"),
    Gated("DRAConsumableCapacity", DEVICES, "resourceclaims", "status.allocation.devices.results[].shareID"),
    Gated("DRAConsumableCapacity", DEVICES, "resourceclaims", "status.allocation.devices.results[].consumedCapacity"),
    Gated(
        "DRADeviceBindingConditions",
        DEVICES,
        "resourceclaims",
        "status.allocation.devices.results[].bindingConditions",
    ),
    Gated(
        "DRADeviceBindingConditions",
        DEVICES,
        "resourceclaims",
        "status.allocation.devices.results[].bindingFailureConditions",
    ),
    Gated("DRADeviceTaints", DEVICES, "resourceslices", "spec.devices[].taints"),
    Gated("DRAPartitionableDevices", DEVICES, "resourceslices", "spec.sharedCounters"),
    Gated("DRAPartitionableDevices", DEVICES, "resourceslices", "spec.perDeviceNodeSelection"),
    Gated("DRAPartitionableDevices", DEVICES, "resourceslices", "spec.devices[].consumesCounters"),
    Gated("DRAPartitionableDevices", DEVICES, "resourceslices", "spec.devices[].nodeName"),
    Gated("DRAPartitionableDevices", DEVICES, "resourceslices", "spec.devices[].nodeSelector"),
    Gated("DRAPartitionableDevices", DEVICES, "resourceslices", "spec.devices[].allNodes"),
    Gated("DRADeviceBindingConditions", DEVICES, "resourceslices", "spec.devices[].bindingConditions"),
    Gated("DRADeviceBindingConditions", DEVICES, "resourceslices", "spec.devices[].bindingFailureConditions"),
    Gated("DRADeviceBindingConditions", DEVICES, "resourceslices", "spec.devices[].bindsToNode"),
    Gated("DRAConsumableCapacity", DEVICES, "resourceslices", "spec.devices[].allowMultipleAllocations"),
    Gated("DRAConsumableCapacity", DEVICES, "resourceslices", "spec.devices[].capacity{}.requestPolicy"),
    Gated("DRANodeAllocatableResources", DEVICES, "resourceslices", "spec.devices[].nodeAllocatableResourceMappings"),
    Gated("DRAListTypeAttributes", DEVICES, "resourceslices", "spec.devices[].attributes{}.bools"),
    Gated("DRAListTypeAttributes", DEVICES, "resourceslices", "spec.devices[].attributes{}.ints"),
    Gated("DRAListTypeAttributes", DEVICES, "resourceslices", "spec.devices[].attributes{}.strings"),
    Gated("DRAListTypeAttributes", DEVICES, "resourceslices", "spec.devices[].attributes{}.versions"),
    Gated("DRAWorkloadResourceClaims", GROUPS, "podgroups", "spec.resourceClaims"),
    Gated("DRAWorkloadResourceClaims", GROUPS, "podgroups", "status.resourceClaimStatuses"),
    Gated("TopologyAwareWorkloadScheduling", GROUPS, "podgroups", "spec.schedulingConstraints"),
    Gated("WorkloadAwarePreemption", GROUPS, "podgroups", "spec.disruptionMode"),
    Gated("WorkloadAwarePreemption", GROUPS, "podgroups", "spec.priority"),
    Gated("WorkloadAwarePreemption", GROUPS, "podgroups", "spec.priorityClassName"),
    Gated("DRAWorkloadResourceClaims", GROUPS, "workloads", "spec.podGroupTemplates[].resourceClaims"),
    Gated("TopologyAwareWorkloadScheduling", GROUPS, "workloads", "spec.podGroupTemplates[].schedulingConstraints"),
    Gated("WorkloadAwarePreemption", GROUPS, "workloads", "spec.podGroupTemplates[].disruptionMode"),
    Gated("WorkloadAwarePreemption", GROUPS, "workloads", "spec.podGroupTemplates[].priority"),
    Gated("WorkloadAwarePreemption", GROUPS, "workloads", "spec.podGroupTemplates[].priorityClassName"),
    Gated("VolumeLimitScaling", "storage.k8s.io", "csidrivers", "spec.preventPodSchedulingIfMissing"),
];

/// Fields of claims' specs, wherever those are.
static CLAIMS: &[(&str, &str)] = &[
    ("DRAPrioritizedList", "devices.requests[].firstAvailable"),
    ("DRADeviceTaints", "devices.requests[].exactly.tolerations"),
    ("DRADeviceTaints", "devices.requests[].firstAvailable[].tolerations"),
    ("DRAConsumableCapacity", "devices.requests[].exactly.capacity"),
    ("DRAConsumableCapacity", "devices.requests[].firstAvailable[].capacity"),
    ("DRAConsumableCapacity", "devices.constraints[].distinctAttribute"),
];
static CLAIM_SPECS: &[(&str, &str, &str)] =
    &[(DEVICES, "resourceclaims", "spec."), (DEVICES, "resourceclaimtemplates", "spec.spec.")];

/// Fields of pods' specs, wherever those are.
static PODS: &[(&str, &str)] = &[
    ("ClusterTrustBundleProjection", "volumes[].projected.sources[].clusterTrustBundle"),
    ("GenericWorkload", "schedulingGroup"),
    ("HostnameOverride", "hostnameOverride"),
    ("PodCertificateRequest", "volumes[].projected.sources[].podCertificate"),
    ("PodLevelResources", "resources"),
];
/// Fields of containers of all three kinds.
static CONTAINERS: &[(&str, &str)] = &[
    ("ContainerRestartRules", "restartPolicyRules"),
    ("ContainerStopSignals", "lifecycle?.stopSignal"),
    ("EnvFiles", "env[].valueFrom.fileKeyRef"),
];
static POD_SPECS: &[(&str, &str, &str)] = &[
    ("", "pods", "spec."),
    ("", "podtemplates", "template.spec."),
    ("", "replicationcontrollers", "spec.template.spec."),
    ("apps", "daemonsets", "spec.template.spec."),
    ("apps", "deployments", "spec.template.spec."),
    ("apps", "replicasets", "spec.template.spec."),
    ("apps", "statefulsets", "spec.template.spec."),
    ("batch", "cronjobs", "spec.jobTemplate.spec.template.spec."),
    ("batch", "jobs", "spec.template.spec."),
];

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// A field that goes when it is left empty.
    Frail(String),
    Items,
    Values,
}

/// The fields of one resource whose gates are off.
#[derive(Default)]
pub struct Disabled(Vec<(&'static str, Vec<Step>)>);

impl Disabled {
    /// Of a resource, given which gates are on.
    pub fn of(group: &str, version: &str, plural: &str, on: impl Fn(&str) -> bool) -> Disabled {
        let all = fields(group, version, plural).into_iter().filter(|(gate, _)| !on(gate));
        Disabled(all.map(|(gate, path)| (gate, steps(&path))).collect())
    }

    /// Drops them from `new`, but for those of features that `old` (Null for a new object) uses already.
    pub fn drop(&self, new: &mut Value, old: &Value) {
        for (gate, path) in &self.0 {
            let in_use = || self.0.iter().any(|(g, path)| g == gate && present(old, path));
            if present(new, path) && !in_use() {
                remove(new, path);
            }
        }
    }
}

/// (gate, path) of each gated field of a resource.
fn fields(group: &str, version: &str, plural: &str) -> Vec<(&'static str, String)> {
    let own = FIELDS.iter().filter(|f| (f.1, f.2) == (group, plural)).map(|f| (f.0, f.3.to_string()));
    let mut all: Vec<_> = own.collect();
    let place = |specs: &[(&str, &str, &'static str)]| {
        specs.iter().find(|(g, p, _)| (*g, *p) == (group, plural)).map(|(_, _, prefix)| *prefix)
    };
    if let Some(prefix) = place(CLAIM_SPECS) {
        all.extend(CLAIMS.iter().map(|(gate, path)| (*gate, format!("{prefix}{path}"))));
    }
    if let Some(prefix) = place(POD_SPECS) {
        all.extend(PODS.iter().map(|(gate, path)| (*gate, format!("{prefix}{path}"))));
        for list in ["initContainers", "containers", "ephemeralContainers"] {
            all.extend(CONTAINERS.iter().map(|(gate, path)| (*gate, format!("{prefix}{list}[].{path}"))));
        }
    }
    if (group, version) == (DEVICES, "v1beta1") {
        for (_, path) in &mut all {
            *path = path.replace(".exactly.", ".").replace("spec.devices[].", "spec.devices[].basic.");
        }
    }
    all
}

fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        match (part.strip_suffix("[]"), part.strip_suffix("{}"), part.strip_suffix('?')) {
            (Some(list), ..) => steps.extend([Step::Field(list.into()), Step::Items]),
            (_, Some(map), _) => steps.extend([Step::Field(map.into()), Step::Values]),
            (.., Some(parent)) => steps.push(Step::Frail(parent.into())),
            _ => steps.push(Step::Field(part.into())),
        }
    }
    steps
}

/// Whether there is anything at `path`. Nothing is changed where there isn't: objects share their parts.
fn present(value: &Value, path: &[Step]) -> bool {
    match path {
        [] => !value.is_null(),
        [Step::Field(name) | Step::Frail(name), rest @ ..] => value.get(name).is_some_and(|v| present(v, rest)),
        [Step::Items, rest @ ..] => value.items().iter().any(|v| present(v, rest)),
        [Step::Values, rest @ ..] => value.entries().any(|(_, v)| present(v, rest)),
    }
}

fn remove(value: &mut Value, path: &[Step]) {
    match path {
        [] => {}
        [Step::Field(name)] => drop(value.remove(name)),
        [Step::Field(name), rest @ ..] => {
            if let Some(inner) = value.get_mut(name) {
                remove(inner, rest);
            }
        }
        [Step::Frail(name), rest @ ..] => {
            let Some(inner) = value.get_mut(name) else { return };
            let before = inner.is_empty();
            remove(inner, rest);
            if !before && inner.is_empty() {
                value.remove(name);
            }
        }
        [Step::Items, rest @ ..] => value.as_array_mut().into_iter().flatten().for_each(|v| remove(v, rest)),
        [Step::Values, rest @ ..] => {
            value.as_object_mut().into_iter().flat_map(|m| m.values_mut()).for_each(|v| remove(v, rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::{gates, value};
    use canopus_schema::{FieldType, Type};

    #[test]
    fn fields_of_features_that_are_off_are_dropped() {
        let off = |group, plural, gate: &'static str| Disabled::of(group, "v1", plural, move |g| g != gate);
        let cases = [
            (
                off("", "pods", "ContainerStopSignals"),
                value!({"spec": {"containers": [{"name": "a", "lifecycle": {"stopSignal": "X"}}, {"lifecycle": {"stopSignal": "X", "preStop": {}}}]}}),
                value!({"spec": {"containers": [{"name": "a"}, {"lifecycle": {"preStop": {}}}]}}),
            ),
            (
                off("batch", "cronjobs", "GenericWorkload"),
                value!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"schedulingGroup": {"a": 1}, "hostname": "h"}}}}}}),
                value!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"hostname": "h"}}}}}}),
            ),
            (
                off(DEVICES, "resourceslices", "DRAListTypeAttributes"),
                value!({"spec": {"devices": [{"attributes": {"a": {"ints": [1]}, "b": {"int": 1}}, "taints": [{}]}]}}),
                value!({"spec": {"devices": [{"attributes": {"a": {}, "b": {"int": 1}}, "taints": [{}]}]}}),
            ),
        ];
        for (disabled, object, left) in cases {
            let mut new = object.clone();
            disabled.drop(&mut new, &Value::Null);
            assert_eq!(new, left);
            let mut same = object.clone();
            disabled.drop(&mut same, &object);
            assert_eq!(same, object, "what is in use stays");
        }
    }

    /// The type that a path leads to.
    fn leads_to(ty: &'static Type, path: &[Step]) -> bool {
        let Some((Step::Field(name) | Step::Frail(name), rest)) = path.split_first() else { return false };
        let Some(field) = ty.field(name) else { return false };
        match (field.ty, rest) {
            (_, []) => true,
            (FieldType::Ref(inner), rest) => leads_to(inner.get(), rest),
            (FieldType::Array(FieldType::Ref(inner)), [Step::Items, rest @ ..])
            | (FieldType::Map(FieldType::Ref(inner)), [Step::Values, rest @ ..]) => leads_to(inner.get(), rest),
            _ => false,
        }
    }

    #[test]
    fn gates_and_fields_exist() {
        let known: Vec<&str> = gates::all().map(|gate| gate.name).collect();
        let mut gated = 0;
        for info in crate::ALL.iter().map(|r| r.info()) {
            let ty = canopus_schema::kind(info.group, info.version, info.kind).unwrap().get();
            for (gate, path) in fields(info.group, info.version, info.plural) {
                assert!(known.contains(&gate), "{gate}");
                // The first version of autoscalers has no such fields.
                let has = leads_to(ty, &steps(&path)) || (info.version == "v1" && info.group == "autoscaling");
                assert!(has, "{}: {path}", info.kind);
                gated += 1;
            }
        }
        assert!(gated > FIELDS.len());
    }
}
