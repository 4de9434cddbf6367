//! ResourcePoolStatusRequest: a question about a driver's pools of devices, answered once (KEP-5677).

use super::rules;
use crate::checks;
use crate::policy::poddisruptionbudget::conditions;
use crate::resource::{Column, Context, Info, Resource, Subresource, name, since};
use crate::strategy;
use canopus_api::{Errors, Field, Time, Value, names};

pub struct ResourcePoolStatusRequest;

static INFO: Info = Info {
    singular: "resourcepoolstatusrequest",
    namespaced: false,
    unconditional_update: false,
    gate: "DRAResourcePoolStatus",
    subresources: &[Subresource::status("resource.k8s.io", "v1alpha3", "ResourcePoolStatusRequest")],
    ..Info::stored("resource.k8s.io", "v1alpha3", "ResourcePoolStatusRequest", "resourcepoolstatusrequests")
};

const MAX_POOLS: i64 = 1000;
const DEFAULT_LIMIT: i64 = 100;
const MAX_CONDITIONS: usize = 10;
const MAX_ERROR: usize = 256;

impl Resource for ResourcePoolStatusRequest {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        object.ensure_object().entry("spec", Value::object).set_default("limit", DEFAULT_LIMIT);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        match cx.subresource {
            "status" => strategy::only_status(new, old, strategy::STATUS_METADATA),
            _ => strategy::keep(new, old, "status"),
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let spec = object.at("spec");
        driver(&spec.at("driver"), errors);
        if spec.at("poolName").is_set() {
            pool(&spec.at("poolName"), errors);
        }
        let limit = spec.at("limit");
        there(&limit, errors);
        if limit.int() > MAX_POOLS {
            errors.invalid(&limit, format!("must be less than or equal to {MAX_POOLS}"));
        }
        at_least(&limit, 1, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource != "status" {
            return checks::immutable(&new.at("spec"), &old["spec"], errors);
        }
        let status = new.at("status");
        if !old["status"].is_null() {
            checks::immutable(&status, &old["status"], errors);
        } else if status.is_set() {
            answer(&status, errors);
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Driver", "string", "The driver to query pools for."),
                Column::new("Total", "string", "Total number of devices across all pools."),
                Column::new("Available", "string", "Number of available devices across all pools."),
                Column::new("Allocated", "string", "Number of allocated devices across all pools."),
                Column::new("Unavailable", "string", "Number of unavailable devices across all pools."),
                Column::new("Errors", "string", "Number of pools with validation errors."),
                Column::new("Pools", "integer", "Total number of matching pools."),
                Column::new("Status", "string", "Processing status."),
                Column::new("Completed", "string", "Time since the observation completed."),
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let status = &object["status"];
        let ended = |c: &&Value| matches!(c["type"].str(), "Complete" | "Failed") && c["status"].str() == "True";
        let end = status["conditions"].items().iter().find(ended);
        let (pools, count) = (status["pools"].items(), status["poolCount"].int());
        let complete = end.filter(|c| c["type"].str() == "Complete");
        let state = match end.map_or("Pending", |c| c["type"].str()) {
            "Complete" if count > i64::try_from(pools.len()).unwrap_or(i64::MAX) => {
                format!("Complete ({}/{count} pools)", pools.len())
            }
            other => other.to_string(),
        };
        let unknown = status.is_null() || state == "Failed";
        let sum = |field: &str| -> Value {
            let sum = pools.iter().fold(0_i64, |sum, pool| sum.saturating_add(pool[field].int()));
            if unknown { "-".into() } else { sum.to_string().into() }
        };
        let wrong = pools.iter().filter(|pool| !pool["validationError"].is_null()).count();
        vec![
            name(object),
            object["spec"]["driver"].str().into(),
            sum("totalDevices"),
            sum("availableDevices"),
            sum("allocatedDevices"),
            sum("unavailableDevices"),
            if unknown { "-".into() } else { wrong.to_string().into() },
            count.into(),
            state.into(),
            complete.map_or("<none>".into(), |c| since(c["lastTransitionTime"].str(), now)),
        ]
    }
}

fn there(field: &Field, errors: &mut Errors) {
    if field.is_unset() {
        errors.required(field, "");
    }
}

fn at_least(field: &Field, least: i64, errors: &mut Errors) {
    if field.is_set() && field.int() < least {
        errors.invalid(field, format!("must be greater than or equal to {least}"));
    }
}

fn driver(field: &Field, errors: &mut Errors) {
    if checks::required(field, errors) {
        let lower = field.str().to_lowercase();
        names::dns1123_subdomain(&lower).into_iter().for_each(|why| errors.invalid(field, why));
    }
}

fn pool(field: &Field, errors: &mut Errors) {
    const MAX: usize = 253;
    if field.str().len() > MAX {
        errors.too_long(field, MAX);
    }
    for (i, part) in field.str().split('/').enumerate() {
        if part.is_empty() {
            errors.invalid(field, format!("segment {i}: must not be empty"));
            continue;
        }
        let wrong = names::dns1123_subdomain(part);
        wrong.into_iter().for_each(|why| errors.invalid(&field.with(&part.into()), format!("segment {i}: {why}")));
    }
}

/// The first and only status.
fn answer(status: &Field, errors: &mut Errors) {
    let (list, pools) = (status.at("conditions"), status.at("pools"));
    conditions(&list, errors);
    rules::fits(&list, MAX_CONDITIONS, errors);
    there(&status.at("poolCount"), errors);
    at_least(&status.at("poolCount"), 0, errors);
    if !rules::fits(&pools, 1000, errors) {
        return;
    }
    for item in pools.items() {
        driver(&item.at("driver"), errors);
        if checks::required(&item.at("poolName"), errors) {
            pool(&item.at("poolName"), errors);
        }
        // As upstream, zero is none.
        checks::required(&item.at("generation"), errors);
        at_least(&item.at("generation"), 0, errors);
        at_least(&item.at("resourceSliceCount"), 1, errors);
        for field in ["totalDevices", "allocatedDevices", "availableDevices", "unavailableDevices"] {
            at_least(&item.at(field), 0, errors);
        }
        if item.at("nodeName").is_set() {
            checks::check(&item.at("nodeName"), names::dns1123_subdomain, errors);
        }
        if item.at("validationError").str().len() > MAX_ERROR {
            errors.too_long(&item.at("validationError"), MAX_ERROR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    fn asked(spec: Value) -> Value {
        value!({"metadata": {"name": "r"}, "spec": spec})
    }

    #[test]
    fn questions() {
        let told = |spec: Value| create(&ResourcePoolStatusRequest, asked(spec));
        assert_eq!(told(value!({"driver": "A.example"})), [""; 0]);
        assert_eq!(told(value!({})), ["spec.driver: Required value"]);
        let wrong = told(value!({"driver": "a", "poolName": "a//B", "limit": 1001}));
        assert_eq!(wrong[0], "spec.poolName: Invalid value: \"a//B\": segment 1: must not be empty");
        assert!(
            wrong[1].starts_with("spec.poolName: Invalid value: \"B\": segment 2: a lowercase RFC 1123"),
            "{wrong:?}"
        );
        assert_eq!(wrong[2], "spec.limit: Invalid value: 1001: must be less than or equal to 1000");
        let least = "spec.limit: Invalid value: 0: must be greater than or equal to 1";
        assert_eq!(told(value!({"driver": "a", "limit": 0})), [least]);
        let changed =
            update(&ResourcePoolStatusRequest, "", asked(value!({"driver": "a"})), asked(value!({"driver": "b"})));
        assert!(changed[0].starts_with("spec: Invalid value") && changed[0].ends_with("field is immutable"));
    }

    #[test]
    fn answers() {
        let old = asked(value!({"driver": "a"}));
        let with = |status: Value| {
            let mut new = old.clone();
            new.set("status", status);
            new
        };
        assert_eq!(
            cells(&ResourcePoolStatusRequest, &old),
            ["r", "a", "-", "-", "-", "-", "-", "0", "Pending", "<none>"]
        );
        let pool = value!({"driver": "a", "poolName": "p", "generation": 1, "totalDevices": 4, "allocatedDevices": 1});
        let done = value!([{"type": "Complete", "status": "True", "reason": "Ok", "lastTransitionTime": "2025-12-31T23:00:00Z"}]);
        let new = with(value!({"poolCount": 2, "pools": [(&pool)], "conditions": done}));
        assert_eq!(update(&ResourcePoolStatusRequest, "status", old.clone(), new.clone()), [""; 0]);
        let shown = ["r", "a", "4", "0", "1", "0", "0", "2", "Complete (1/2 pools)", "60m"];
        assert_eq!(cells(&ResourcePoolStatusRequest, &new), shown);
        let again = update(&ResourcePoolStatusRequest, "status", new, with(value!({"poolCount": 3})));
        assert!(again[0].ends_with("field is immutable"), "{again:?}");
        let bad = with(value!({"pools": [{"driver": "a", "poolName": "p", "resourceSliceCount": 0}]}));
        assert_eq!(
            update(&ResourcePoolStatusRequest, "status", old, bad),
            [
                "status.poolCount: Required value",
                "status.pools[0].generation: Required value",
                "status.pools[0].resourceSliceCount: Invalid value: 0: must be greater than or equal to 1"
            ]
        );
    }
}
