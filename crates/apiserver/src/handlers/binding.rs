//! `pods/binding` and `bindings`: the scheduler's decision. Like upstream it changes what an update may not, and owns no fields.

use super::Written;
use super::decode::{decode_as, place_namespace};
use crate::admission::{Operation, Options, Request};
use crate::served::Served;
use crate::server::Server;
use crate::user::User;
use canopus_api::{Errors, Field, Gvk, Gvr, Object, Result, Status, Target, Value, WriteOptions, value};
use canopus_resources::core::pod::bind;
use std::sync::Arc;

const RETRIES: usize = 5;

impl Server {
    pub(super) async fn bind(
        &self,
        user: &User,
        served: &Arc<Served>,
        target: &Target,
        mut binding: Value,
        options: &WriteOptions,
    ) -> Result<Written> {
        let gvk = Gvk::new("", "v1", "Binding");
        let warnings = decode_as(&gvk, self.served(&Gvr::new("", "v1", "bindings"))?.schema(), &mut binding, options)?;
        place_namespace(&target.namespace, &mut binding)?;
        // `bindings` has the pod's name only in the body.
        let name = if target.subresource.is_empty() { binding["metadata"]["name"].str() } else { &target.name };
        let name = name.to_string();
        let mut request = Request {
            operation: Operation::Create,
            resource: served.info(),
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &name,
            object: binding,
            old: &Value::Null,
            user,
            dry_run: options.dry_run,
            options: Options::Write(options),
            reinvocation: Default::default(),
        };
        let gates = self.gates.get()?;
        gates.admission.admit(&mut request).await?;
        if request.object["metadata"]["name"].str() != name {
            return Err(Status::bad_request("name in URL does not match name in Binding object"));
        }
        let mut errors = Errors::new();
        bind::validate(&Field::root(&request.object), &mut errors);
        if !errors.is_empty() {
            return Err(Status::invalid(&gvk, &name, errors));
        }
        gates.admission.validate(&request).await?;
        self.assign(&target.namespace, &name, &request.object, options.dry_run).await?;
        let status = value!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Ok(Written { object: Arc::new(Object::from_value(status, &[], 0)), created: true, warnings })
    }

    async fn assign(&self, namespace: &str, name: &str, binding: &Value, dry_run: bool) -> Result<()> {
        let pods = Gvr::new("", "v1", "pods");
        let served = self.served(&pods)?;
        for _ in 0..RETRIES {
            let old = self.current(&served, namespace, name).await?.ok_or_else(|| Status::not_found(&pods, name))?;
            check_preconditions(&pods, &old, &binding["metadata"])?;
            // Held until it is written: whoever asks for the tree again must not parse it again.
            let before = old.value();
            let mut pod = (*before).clone();
            bind::bind(&mut pod, binding, self.surroundings.now())?;
            match self.put_changed(&served, &old, pod, dry_run).await {
                Err(raced) if raced.is_conflict() => {}
                done => return done.map(|_| ()),
            }
        }
        Err(Status::modified(&pods, name))
    }
}

/// The binding's uid and resourceVersion are the pod's, when given.
fn check_preconditions(pods: &Gvr, pod: &Object, meta: &Value) -> Result<()> {
    let (uid, revision) = (meta["uid"].str(), meta["resourceVersion"].str());
    if !uid.is_empty() && uid != pod.facts.uid {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", pod.facts.uid);
        return Err(Status::conflict(pods, pod.name(), &why));
    }
    if !revision.is_empty() && revision != pod.revision.to_string() {
        let actual = pod.revision;
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {revision}, ResourceVersion in object meta: {actual}"
        );
        return Err(Status::conflict(pods, pod.name(), &why));
    }
    Ok(())
}
