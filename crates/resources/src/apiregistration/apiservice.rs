//! APIService: who serves a group version, the server itself or an extension server behind a Service.

use crate::checks;
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name};
use crate::strategy;
use canopus_api::{Errors, Field, Time, Value, names, value};

pub struct APIService;

static INFO: Info = Info {
    singular: "apiservice",
    categories: &["api-extensions"],
    namespaced: false,
    unconditional_update: false,
    name: names::path_segment,
    subresources: &[Subresource::status("apiregistration.k8s.io", "v1", "APIService")],
    ..Info::stored("apiregistration.k8s.io", "v1", "APIService", "apiservices")
};

impl Resource for APIService {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        if let Some(service) = object.get_mut("spec").and_then(|s| s.get_mut("service")).filter(|s| !s.is_null()) {
            service.set_default("port", 443);
        }
    }

    fn prepare_create(&self, object: &mut Value, cx: &Context) {
        object.remove("status");
        if object["spec"]["service"].is_null() {
            object.set("status", value!({"conditions": [local(cx.now)]}));
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource == "status" {
            return strategy::only_status(new, old, strategy::STATUS_METADATA);
        }
        strategy::keep(new, old, "status");
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let (meta, spec) = (object.at("metadata"), object.at("spec"));
        let (name, group, version) = (meta.at("name"), spec.at("group"), spec.at("version"));
        let required = format!("{}.{}", version.str(), group.str());
        if names::path_segment(name.str()).is_empty() && name.str() != required {
            errors.invalid(&name, format!("must be `spec.version+\".\"+spec.group`: {required:?}"));
        }
        if group.str().is_empty() && version.str() != "v1" {
            errors.required(&group, "only v1 may have an empty group and it better be legacy kube");
        }
        if !group.str().is_empty() {
            checks::check(&group, names::dns1123_subdomain, errors);
        }
        checks::check(&version.with(&version.str().into()), names::dns1035_label, errors);
        for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
            let field = spec.at(field);
            if !(1..=most).contains(&field.int()) {
                errors.invalid(&field.with(&field.int().into()), format!("must be positive and less than {most}"));
            }
        }
        validate_service(&spec, errors);
    }

    fn validate_update(&self, new: &Field, _old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            for condition in new.at("status").at("conditions").items() {
                checks::one_of(&condition.at("status"), &["True", "False", "Unknown"], errors);
            }
            return;
        }
        self.validate(new, errors);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Service", "string", "The reference to the service that hosts this API endpoint."),
                Column::new("Available", "string", "Whether this service is available."),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let service = &object["spec"]["service"];
        let served_by = match service.is_null() {
            true => "Local".to_string(),
            false => format!("{}/{}", service["namespace"].str(), service["name"].str()),
        };
        let condition = object["status"]["conditions"].items().iter().find(|c| c["type"].str() == "Available");
        let available = condition.map_or("Unknown".to_string(), |c| match (c["status"].str(), c["reason"].str()) {
            ("True", _) => "True".into(),
            (status, "") => status.into(),
            (status, reason) => format!("{status} ({reason})"),
        });
        vec![name(object), served_by.into(), available.into(), age(object, now)]
    }
}

/// What an APIService says that the server itself serves.
pub fn local(now: Time) -> Value {
    value!({
        "type": "Available", "status": "True", "lastTransitionTime": now, "reason": "Local",
        "message": "Local APIServices are always available",
    })
}

fn validate_service(spec: &Field, errors: &mut Errors) {
    let (service, bundle, insecure) = (spec.at("service"), spec.at("caBundle"), spec.at("insecureSkipTLSVerify"));
    if service.is_unset() {
        if !bundle.value.is_empty() {
            let size = format!("{} bytes", bundle.str().len() / 4 * 3);
            errors.invalid(&bundle.with(&size.into()), "local APIServices may not have a caBundle");
        }
        if insecure.bool() {
            errors.invalid(&insecure, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    checks::required(&service.at("namespace"), errors);
    checks::required(&service.at("name"), errors);
    let port = service.at("port");
    if !(1..=65535).contains(&port.int()) {
        errors.invalid(&port.with(&port.int().into()), "port is not valid: must be between 1 and 65535, inclusive");
    }
    if insecure.bool() && !bundle.value.is_empty() {
        errors.invalid(&insecure, "may not be true if caBundle is present");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, context, create};

    fn service(change: impl Fn(&mut Value)) -> Value {
        let mut object = value!({
            "metadata": {"name": "v1.example.com"},
            "spec": {
                "group": "example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
                "service": {"namespace": "n", "name": "s"},
            },
        });
        change(&mut object);
        object
    }

    #[test]
    fn what_an_apiservice_may_say() {
        assert_eq!(create(&APIService, service(|_| {})), Vec::<String>::new());
        let cases: &[(&[&str], Value, &str)] = &[
            (
                &["metadata", "name"],
                "x".into(),
                "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.example.com\"",
            ),
            (
                &["spec", "groupPriorityMinimum"],
                Value::Null,
                "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
            ),
            (
                &["spec", "versionPriority"],
                1001.into(),
                "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
            ),
            (&["spec", "service", "name"], Value::Null, "spec.service.name: Required value"),
            (
                &["spec", "service", "port"],
                70000.into(),
                "spec.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive",
            ),
        ];
        for (path, given, expected) in cases {
            assert_eq!(create(&APIService, service(|o| o.set_path(path, given))), [*expected], "{path:?}");
        }
        let local = service(|o| {
            o.set_path(&["spec", "service"], Value::Null);
            o.set_path(&["spec", "insecureSkipTLSVerify"], true);
        });
        assert_eq!(
            create(&APIService, local),
            ["spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify"]
        );
    }

    #[test]
    fn local_ones_are_available_at_once() {
        let mut object = service(|o| o.set_path(&["spec", "service"], Value::Null));
        APIService.prepare_create(&mut object, &context(""));
        assert_eq!(cells(&APIService, &object)[1..3], ["Local", "True"]);
        let mut object = service(|o| o.set("status", value!({"conditions": [local(Time(0))]})));
        APIService.prepare_create(&mut object, &context(""));
        assert_eq!(cells(&APIService, &object)[1..3], ["n/s", "Unknown"]);
    }
}
