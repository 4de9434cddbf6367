//! `pods/eviction`: a deletion that asks the pod's PodDisruptionBudget first (upstream `registry/core/pod/storage/eviction.go`).

use super::Written;
use super::decode::{decode_as, place_namespace};
use super::write::Ownership;
use crate::admission::{Operation, Options, Request};
use crate::http::query::delete_options_of;
use crate::served::Served;
use crate::server::Server;
use crate::user::{MASTERS, User};
use canopus_api::{
    DeleteOptions, Gvk, Gvr, LabelSelector, Object, Result, Status, Target, Time, Value, View, WriteOptions, value,
};
use std::sync::Arc;

const RETRIES: usize = 20;
/// More evictions that the disruption controller has not confirmed are too many.
const MAX_DISRUPTED: usize = 2000;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const CAUSE: &str = "DisruptionBudget";

impl Server {
    pub(super) async fn evict(
        &self,
        user: &User,
        served: &Arc<Served>,
        target: &Target,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<Written> {
        let (gvk, name) = (Gvk::new("policy", "v1", "Eviction"), target.name.as_str());
        if body["apiVersion"].str() == "policy/v1beta1" && body["kind"].str() == "Eviction" {
            body.set("apiVersion", "policy/v1");
        }
        let schema = canopus_schema::kind("policy", "v1", "Eviction").ok_or_else(Status::no_such_resource)?;
        let warnings = decode_as(&gvk, schema.get().into(), &mut body, options)?;
        place_namespace(&target.namespace, &mut body)?;
        if body["metadata"]["name"].str() != name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let mut request = Request {
            operation: Operation::Create,
            resource: served.info(),
            subresource: &target.subresource,
            namespace: &target.namespace,
            name,
            object: body,
            old: &Value::Null,
            user,
            dry_run: options.dry_run,
            options: Options::Write(options),
            reinvocation: Default::default(),
        };
        let gates = self.gates.get()?;
        gates.admission.admit(&mut request).await?;
        gates.admission.validate(&request).await?;
        let sent = &request.object["deleteOptions"];
        let mut deletion = if sent.is_null() { DeleteOptions::default() } else { delete_options_of(sent)? };
        deletion.dry_run |= options.dry_run;
        self.evict_admitted(served, target, &deletion).await?;
        let status = value!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Ok(Written { object: Arc::new(Object::from_value(status, &[], 0)), created: true, warnings })
    }

    async fn evict_admitted(&self, served: &Arc<Served>, target: &Target, options: &DeleteOptions) -> Result<()> {
        let pod = loop {
            let pod = self.current(served, &target.namespace, &target.name).await?;
            let pod = pod.ok_or_else(|| Status::not_found(&target.gvr, &target.name))?;
            let phase = pod.value()["status"]["phase"].str().to_string();
            let over = pod.facts.deleting || matches!(phase.as_str(), "Succeeded" | "Failed");
            if !over && phase != "Pending" {
                break pod;
            }
            // Nothing is disrupted. A pod that may be about to run must still be as it was looked at.
            let unless_changed = if over { None } else { Some(&pod) };
            match self.delete_disrupted(served, target, options, unless_changed).await {
                Err(raced) if raced.is_conflict() && options.resource_version.is_none() => {}
                done => return done,
            }
        };
        let Some(budget) = self.budget_of(&pod)? else {
            return self.delete_disrupted(served, target, options, None).await;
        };
        let (spec, status) = (&budget.value()["spec"], &budget.value()["status"]);
        if pod.facts.ready.is_none() {
            let healthy = status["currentHealthy"].int() >= status["desiredHealthy"].int();
            let always = spec["unhealthyPodEvictionPolicy"].str() == "AlwaysAllow";
            // It does not count as healthy, so that nobody misses it, unless it becomes ready meanwhile.
            if always || healthy && status["desiredHealthy"].int() > 0 {
                return match self.delete_disrupted(served, target, options, Some(&pod)).await {
                    Err(raced) if raced.is_conflict() && options.resource_version.is_none() => {
                        Err(processing(budget.name()))
                    }
                    done => done,
                };
            }
        }
        self.spend(budget.namespace(), budget.name(), pod.name(), options.dry_run).await?;
        self.delete_disrupted(served, target, options, None).await
    }

    /// The one budget that is about this pod.
    fn budget_of(&self, pod: &Object) -> Result<Option<Arc<Object>>> {
        let mut budgets = View::list(&*self.cache("policy", "v1", "poddisruptionbudgets")?, pod.namespace());
        budgets.retain(|budget| {
            LabelSelector::from_value(&budget.value()["spec"]["selector"]).is_ok_and(|s| s.matches(&pod.facts))
        });
        if budgets.len() > 1 {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::new(500, "", why));
        }
        Ok(budgets.pop())
    }

    /// Takes one disruption out of a budget, or says why there is none.
    async fn spend(&self, namespace: &str, name: &str, pod: &str, dry_run: bool) -> Result<()> {
        let gvr = Gvr::new("policy", "v1", "poddisruptionbudgets");
        let served = self.served(&gvr)?.clone();
        let target = Target::new(&gvr, namespace, name).subresource("status");
        let own = User::new("system:apiserver", &[MASTERS]);
        let options = WriteOptions { field_manager: "kube-apiserver".into(), ..WriteOptions::default() };
        for _ in 0..RETRIES {
            let Some(budget) = self.current(&served, namespace, name).await? else {
                return Err(Status::not_found(&gvr, name));
            };
            let mut body = (*budget.value()).clone();
            take_one(&mut body, pod, self.surroundings.now())?;
            if dry_run {
                return Ok(());
            }
            match self.replace(&own, &served, &target, &budget, body, &options, Ownership::Update).await {
                Err(raced) if raced.is_conflict() => {}
                done => return done.map(|_| ()),
            }
        }
        let why = format!("couldn't update PodDisruptionBudget {name:?} due to conflicts");
        Err(Status::timeout(&why).with_retry_after(10))
    }

    /// Deletes the pod, which says before that it was evicted; with `unless_changed` only if it is still this.
    async fn delete_disrupted(
        &self,
        served: &Arc<Served>,
        target: &Target,
        options: &DeleteOptions,
        unless_changed: Option<&Arc<Object>>,
    ) -> Result<()> {
        let mut options = options.clone();
        if let Some(pod) = unless_changed.filter(|_| options.resource_version.is_none()) {
            options.resource_version = Some(pod.revision.to_string().into());
        }
        for attempt in 0.. {
            let pod = self.current(served, &target.namespace, &target.name).await?;
            let mut pod = pod.ok_or_else(|| Status::not_found(&target.gvr, &target.name))?;
            super::delete::check_preconditions(served, &pod, &options)?;
            let marked = if options.dry_run { None } else { evicted(&pod.value(), self.surroundings.now()) };
            let done = async {
                let mut options = options.clone();
                if let Some(marked) = marked {
                    pod = self.put_changed(served, &pod, marked, false).await?;
                    options.resource_version = options.resource_version.map(|_| pod.revision.to_string().into());
                }
                self.delete_admitted(served, &pod, &options).await
            };
            match done.await {
                Err(raced) if raced.is_conflict() && options.resource_version.is_none() && attempt < RETRIES => {}
                done => return done.map(|_| ()),
            }
        }
        unreachable!("the loop only ends by returning")
    }
}

/// The pod with the condition that says what became of it; None when it has it.
fn evicted(pod: &Value, now: Time) -> Option<Value> {
    const KIND: &str = "DisruptionTarget";
    const SAYS: [(&str, &str); 3] =
        [("status", "True"), ("reason", "EvictionByEvictionAPI"), ("message", "Eviction API: evicting")];
    let conditions = pod["status"]["conditions"].items();
    let before = conditions.iter().find(|c| c["type"].str() == KIND);
    if before.is_some_and(|c| SAYS.iter().all(|(field, text)| c[*field].str() == *text)) {
        return None;
    }
    let since = before.filter(|c| c["status"].str() == "True").map(|c| c["lastTransitionTime"].clone());
    let mut condition = value!({"type": KIND, "lastTransitionTime": (since.unwrap_or_else(|| now.into()))});
    SAYS.iter().for_each(|(field, text)| condition.set(field, *text));
    let mut pod = pod.clone();
    let list = pod.ensure_object().entry("status", Value::object).ensure_object().entry("conditions", || Value::Null);
    let list = list.ensure_array();
    list.retain(|c| c["type"].str() != KIND);
    list.push(condition);
    Some(pod)
}

fn processing(budget: &str) -> Status {
    let why = format!("The disruption budget {budget} is still being processed by the server.");
    Status::too_many_requests(REFUSED, 10).with_cause(CAUSE, why, "")
}

/// Changes a budget's status to that after one more eviction (upstream `checkAndDecrement`).
fn take_one(budget: &mut Value, pod: &str, now: Time) -> Result<()> {
    let gvr = Gvr::new("policy", "v1", "poddisruptionbudget");
    let name = budget["metadata"]["name"].str().to_string();
    let status = &budget["status"];
    if status["observedGeneration"].int() < budget["metadata"]["generation"].int() {
        return Err(processing(&name));
    }
    let allowed = status["disruptionsAllowed"].int();
    if allowed < 0 {
        return Err(Status::forbidden(&gvr, &name, "pdb disruptions allowed is negative"));
    }
    if status["disruptedPods"].entries().count() > MAX_DISRUPTED {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(&gvr, &name, why));
    }
    if allowed == 0 {
        return Err(Status::too_many_requests(REFUSED, 0).with_cause(CAUSE, why_none(&name, status), ""));
    }
    budget.set_path(&["status", "disruptionsAllowed"], allowed - 1);
    budget.set_path(&["status", "disruptedPods", pod], now);
    if allowed == 1 {
        let generation = budget["status"]["observedGeneration"].clone();
        let conditions = budget.get_mut("status").and_then(|status| status.get_mut("conditions"));
        for condition in conditions.and_then(Value::as_array_mut).into_iter().flatten() {
            if condition["type"].str() == "DisruptionAllowed" {
                if condition["status"].str() != "False" {
                    condition.set("lastTransitionTime", now);
                }
                condition.set("status", "False");
                condition.set("reason", "InsufficientPods");
                condition.set("message", "");
                condition.set("observedGeneration", generation.clone());
            }
        }
    }
    Ok(())
}

fn why_none(name: &str, status: &Value) -> String {
    let conditions = status["conditions"].items();
    let refusal = conditions.iter().find(|c| {
        c["type"].str() == "DisruptionAllowed" && c["status"].str() == "False" && !c["message"].str().is_empty()
    });
    let (desired, current) = (status["desiredHealthy"].int(), status["currentHealthy"].int());
    match refusal {
        Some(c) if c["reason"].str() == "SyncFailed" => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            c["message"].str()
        ),
        _ if current <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
        }
        Some(c) => format!(
            "The disruption budget {name} does not allow evicting pods currently ({}): {}",
            c["reason"].str(),
            c["message"].str()
        ),
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

#[cfg(test)]
#[path = "eviction_tests.rs"]
mod tests;
