//! Administrators' access to devices, which takes no part in allocation: only for claims in namespaces that are marked as
//! theirs (KEP-5018). Upstream has this in the storage of claims.

use super::fresh::Fresh;
use super::{Operation, Plugin, Request};
use async_trait::async_trait;
use canopus_api::{Errors, Field, Status, Value};

const LABEL: &str = "resource.kubernetes.io/admin-access";

pub struct AdminAccess {
    pub namespaces: Fresh,
}

/// Which of the requests is one for such access. Claims do not change what they ask for.
fn asked(request: &Request) -> Option<usize> {
    let of = match request.resource.plural {
        "resourceclaims" => &request.object["spec"],
        _ => &request.object["spec"]["spec"],
    };
    let grants = |r: &Value| r["exactly"]["adminAccess"].bool() || r["adminAccess"].bool();
    of["devices"]["requests"].items().iter().position(grants)
}

/// Which of the results is such access, where none was before.
fn granted(request: &Request) -> Option<usize> {
    let results = |object: &Value| {
        let results = object["status"]["allocation"]["devices"]["results"].items();
        results.iter().position(|r| r["adminAccess"].bool())
    };
    results(&request.object).filter(|_| results(request.old).is_none())
}

#[async_trait]
impl Plugin for AdminAccess {
    fn name(&self) -> &'static str {
        "AdminAccess"
    }

    fn handles(&self, request: &Request) -> bool {
        if request.resource.group != "resource.k8s.io" {
            return false;
        }
        match (request.resource.plural, request.operation, request.subresource) {
            ("resourceclaims" | "resourceclaimtemplates", Operation::Create, "") => asked(request).is_some(),
            ("resourceclaims", Operation::Update, "status") => granted(request).is_some(),
            _ => false,
        }
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        let namespace = self.namespaces.get("", request.namespace).await?;
        if namespace.is_some_and(|n| n.value()["metadata"]["labels"][LABEL].str() == "true") {
            return Ok(());
        }
        let why = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
        let mut errors = Errors::new();
        let root = Field::root(&request.object);
        if request.operation == Operation::Create {
            // Of templates, too.
            let spec = root.at("spec");
            let devices = spec.at("devices");
            let (requests, at) = (devices.at("requests"), asked(request).unwrap_or_default());
            errors.forbidden(&requests.index(at).at("adminAccess"), why);
        } else {
            let status = root.at("status");
            let allocation = status.at("allocation");
            let devices = allocation.at("devices");
            let (results, at) = (devices.at("results"), granted(request).unwrap_or_default());
            errors.forbidden(&results.index(at).at("adminAccess"), why);
        }
        Err(Status::invalid(&request.resource.gvk(), request.name, errors))
    }
}

#[cfg(test)]
mod tests {
    use crate::LocalApi;
    use crate::user::{MASTERS, User};
    use canopus_api::{Gvr, Target, Value, WriteOptions, value};

    #[tokio::test]
    async fn only_where_administrators_are() {
        let server = crate::testing::server().await;
        let api = LocalApi::shared(server.clone(), User::new("admin", &[MASTERS]), "tests");
        let options = WriteOptions::default();
        let marked =
            value!({"metadata": {"name": "admins", "labels": {"resource.kubernetes.io/admin-access": "true"}}});
        let made = api.create(&Target::new(&Gvr::new("", "v1", "namespaces"), "", ""), marked, &options).await.unwrap();
        server.cache("", "v1", "namespaces").unwrap().reached(made.revision).await.unwrap();
        let create = async |plural: &str, namespace: &str, spec: Value| {
            let at = Target::new(&Gvr::new("resource.k8s.io", "v1", plural), namespace, "");
            let object = value!({"metadata": {"generateName": "c-"}, "spec": spec});
            api.create(&at, object, &options).await.map(|_| ()).map_err(|e| e.message)
        };
        let spec = |admin: bool| {
            value!({"devices": {"requests": [
                {"name": "a", "exactly": {"deviceClassName": "x"}},
                {"name": "b", "exactly": {"deviceClassName": "x", "adminAccess": admin}},
            ]}})
        };
        let template = |admin: bool| value!({"spec": spec(admin)});
        for (plural, plain, admin) in
            [("resourceclaims", spec(false), spec(true)), ("resourceclaimtemplates", template(false), template(true))]
        {
            create(plural, "default", plain).await.unwrap();
            let refused = create(plural, "default", admin.clone()).await.unwrap_err();
            assert!(refused.contains("spec.devices.requests[1].adminAccess: Forbidden: admin access"), "{refused}");
            create(plural, "admins", admin).await.unwrap();
        }
    }
}
