//! Our messages against those that `k8s-pb` makes of upstream's `.proto` files: what we write it reads and writes again,
//! and we read the same object.

use canopus_api::{Map, Value, protobuf, value};
use canopus_schema::{FieldType, Shape, Type, WireField, WireTarget};
use proptest::prelude::*;
use prost::Message;

/// Choices for an object, from bytes that shrink well: when they are used up, nothing more is in it.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn yes(&mut self) -> bool {
        self.next() % 8 > 2
    }
}

const DEPTH: usize = 7;

fn object(ty: &'static Type, choices: &mut Choices, depth: usize) -> Option<Map> {
    let mut map = Map::new();
    fill(ty, ty.wire, choices, depth, &mut map);
    (!map.is_empty()).then_some(map)
}

fn fill(ty: &'static Type, wire: &'static [WireField], choices: &mut Choices, depth: usize, map: &mut Map) {
    for field in wire {
        match &field.target {
            WireTarget::Inline(inner) => fill(ty, inner, choices, depth, map),
            WireTarget::Field { index, .. } if choices.yes() => {
                let field = &ty.fields[*index];
                if is_newer(ty, field.name) {
                    continue;
                }
                if let Some(value) = some(&field.ty, choices, depth) {
                    map.insert(field.name, value);
                }
            }
            WireTarget::Field { .. } => {}
        }
    }
}

/// Some value that isn't the zero of its type; None if it would be too deep.
fn some(ty: &'static FieldType, choices: &mut Choices, depth: usize) -> Option<Value> {
    let number = i64::from(choices.next()) + 1;
    Some(match ty {
        FieldType::String => format!("s{number}").into(),
        FieldType::Bytes => ["AA==", "/v8=", "aGVsbG8="][number as usize % 3].into(),
        FieldType::Int32 => Value::Int(if number % 2 == 0 { -number } else { number }),
        FieldType::Int64 => Value::Int(number << 40),
        FieldType::Double => Value::Float(number as f64 + 0.5),
        FieldType::Bool => true.into(),
        FieldType::Any => return None,
        FieldType::Array(of) => vec![some(of, choices, depth)?, some(of, choices, depth)?].into(),
        FieldType::Map(of) => {
            value!({(format!("k{number}")): (some(of, choices, depth)?), "k": (some(of, choices, depth)?)})
        }
        FieldType::Ref(of) => match of.get().shape {
            Shape::Object if depth == 0 => return None,
            Shape::Object => object(of.get(), choices, depth - 1)?.into(),
            Shape::Quantity => format!("{number}m").into(),
            Shape::IntOrString if number % 2 == 0 => number.into(),
            Shape::IntOrString => format!("{number}%").into(),
            Shape::Time => "2026-01-02T03:04:05Z".into(),
            Shape::MicroTime => format!("2026-01-02T03:04:05.{number:06}Z").into(),
            Shape::Json if of.get().name.ends_with("OrBool") => false.into(),
            Shape::Json if of.get().name.ends_with("OrStringArray") => value!(["a", "b"]),
            Shape::Json if of.get().name.ends_with("OrArray") => value!([{"id": "x"}]),
            Shape::RawExtension | Shape::FieldsV1 | Shape::Json | Shape::Any => value!({"any": [1, "x", {}]}),
        },
    })
}

/// What upstream added after the `.proto` files that k8s-pb was made of.
const NEWER: &[&str] = &[
    "CSIDriverSpec.preventPodSchedulingIfMissing",
    "Device.nodeAllocatableResourceMappings",
    "DeviceAttribute.bools",
    "DeviceAttribute.ints",
    "DeviceAttribute.strings",
    "DeviceAttribute.versions",
    "ListMeta.shardInfo",
    "PodSpec.schedulingGroup",
    "PodStatus.nodeAllocatableResourceClaimStatuses",
    "ResourceHealth.message",
    "VolumeMountStatus.volumeStatus",
];

fn is_newer(ty: &Type, field: &str) -> bool {
    let name = ty.name.rsplit('.').next().unwrap_or_default();
    NEWER.iter().any(|newer| newer.split_once('.') == Some((name, field)))
}

/// The paths at which `a` does not say what `b` says.
fn differences(a: &Value, b: &Value, path: &str, out: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => b.iter().for_each(|(key, b)| {
            differences(a.get(key).unwrap_or(&Value::Null), b, &format!("{path}.{key}"), out);
        }),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).for_each(|(a, b)| differences(a, b, path, out));
        }
        _ if a == b => {}
        _ => out.push(path.to_string()),
    }
}

fn check<M: Message + Default>(api_version: &str, kind: &str, choices: &[u8], lost: &mut Vec<String>) {
    let ty = protobuf::type_of(api_version, kind).unwrap_or_else(|| panic!("{kind} has no messages")).get();
    let mut value = Value::Object(object(ty, &mut Choices(choices.iter()), DEPTH).unwrap_or_default());
    value.set("apiVersion", api_version);
    value.set("kind", kind);
    let ours = protobuf::encode(&value).unwrap();
    // Go's zeros of what it does not hold by pointer come on top.
    let all = protobuf::decode(&ours).unwrap();
    differences(&all, &value, kind, lost);

    let unknown = k8s_pb::apimachinery::pkg::runtime::Unknown::decode(&ours[4..]).unwrap();
    let theirs = M::decode(unknown.raw.as_deref().unwrap()).unwrap();
    let raw = theirs.encode_to_vec();
    let again = k8s_pb::apimachinery::pkg::runtime::Unknown { raw: Some(raw), ..unknown };
    let bytes = [protobuf::MAGIC, &again.encode_to_vec()].concat();
    let read = protobuf::decode(&bytes).unwrap();
    differences(&read, &all, kind, lost);
}

macro_rules! kinds {
    ($choices:ident $lost:ident; $($module:ident $version:ident $api_version:literal: $($kind:ident)+;)+) => {
        $($(check::<k8s_pb::api::$module::$version::$kind>($api_version, stringify!($kind), $choices, &mut $lost);)+)+
    };
}

fn check_all(choices: &[u8]) {
    let mut lost = Vec::new();
    kinds!(choices lost;
        core v1 "v1": ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod
            PodList ReplicationController ResourceQuota Secret Service ServiceAccount;
        apps v1 "apps/v1": ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
        batch v1 "batch/v1": CronJob Job;
        rbac v1 "rbac.authorization.k8s.io/v1": ClusterRole ClusterRoleBinding Role RoleBinding;
        coordination v1 "coordination.k8s.io/v1": Lease;
        discovery v1 "discovery.k8s.io/v1": EndpointSlice;
        policy v1 "policy/v1": PodDisruptionBudget Eviction;
        autoscaling v2 "autoscaling/v2": HorizontalPodAutoscaler;
        networking v1 "networking.k8s.io/v1": Ingress NetworkPolicy;
        storage v1 "storage.k8s.io/v1": CSIDriver StorageClass;
        admissionregistration v1 "admissionregistration.k8s.io/v1": ValidatingAdmissionPolicy ValidatingWebhookConfiguration;
        certificates v1 "certificates.k8s.io/v1": CertificateSigningRequest;
        resource v1 "resource.k8s.io/v1": ResourceClaim ResourceSlice;
        authorization v1 "authorization.k8s.io/v1": SubjectAccessReview;
    );
    use k8s_pb::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    check::<CustomResourceDefinition>("apiextensions.k8s.io/v1", "CustomResourceDefinition", choices, &mut lost);
    lost.sort();
    lost.dedup();
    assert_eq!(lost, [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_we_write_others_read(choices in prop::collection::vec(any::<u8>(), 0..600)) {
        check_all(&choices);
    }
}

#[test]
fn everything_at_once() {
    check_all(&(0..60_000u32).map(|i| 3 + (i % 5) as u8).collect::<Vec<_>>());
}
