//! StorageObjectInUseProtection: volumes and claims are not gone before whoever uses them is done. Their controllers take
//! the finalizers away.

use super::{Operation, Plugin, Request};
use async_trait::async_trait;
use canopus_api::{Status, Value};

pub struct StorageObjectInUseProtection;

const FINALIZERS: &[(&str, &str, &str)] = &[
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

fn finalizer(request: &Request) -> Option<&'static str> {
    FINALIZERS.iter().find(|(group, plural, _)| request.is(group, plural, "")).map(|(_, _, finalizer)| *finalizer)
}

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, request: &Request) -> bool {
        request.operation == Operation::Create && finalizer(request).is_some()
    }

    async fn admit(&self, request: &mut Request<'_>) -> Result<(), Status> {
        let Some(finalizer) = finalizer(request) else { return Ok(()) };
        let list = request.object.obj_mut("metadata").entry("finalizers", || Value::Null).ensure_array();
        if !list.iter().any(|f| f.str() == finalizer) {
            list.push(finalizer.into());
        }
        Ok(())
    }
}
