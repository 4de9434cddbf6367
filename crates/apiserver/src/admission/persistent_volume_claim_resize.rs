//! PersistentVolumeClaimResize: a claim grows only when it is bound and its class says that volumes can grow.

use super::{Operation, Plugin, Request};
use async_trait::async_trait;
use canopus_api::{Quantity, Status, Value, View};
use canopus_resources::core::persistentvolume::class;
use std::sync::Arc;

pub struct PersistentVolumeClaimResize {
    pub classes: Arc<dyn View>,
}

fn size(claim: &Value) -> Quantity {
    Quantity::from_value(&claim["spec"]["resources"]["requests"]["storage"]).unwrap_or_default()
}

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, request: &Request) -> bool {
        request.operation == Operation::Update
            && request.is("", "persistentvolumeclaims", "")
            && size(&request.object) > size(request.old)
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        if request.old["status"]["phase"].str() != "Bound" {
            return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
        }
        let name = class(&request.object);
        let same = !name.is_empty() && name == class(request.old);
        let grows = |name: &str| self.classes.get("", name).is_some_and(|c| c.value()["allowVolumeExpansion"].bool());
        if same && grows(name) {
            return Ok(());
        }
        Err(request.forbidden("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"))
    }
}
