//! Custom resources: one strategy for all of them, made from a version of a CustomResourceDefinition.

mod embedded;
pub mod fieldpath;
mod formats;
mod lists;
mod names;
mod openapi;
pub mod rules;
pub mod scale;
pub mod validator;

use crate::resource::{ColumnOf, Context, InfoOf, Resource};
use crate::{semantic, strategy};
use canopus_api::field::{Error, Kind};
use canopus_api::jsonpath::{self, Template};
use canopus_api::schema::{self, Schema, Structural};
use canopus_api::{Errors, Facts, Field, Object, Time, Value};
use compact_str::CompactString;
use names::Names;
use rules::Rules;
use scale::Paths;
use std::sync::{Arc, OnceLock};
use validator::Validator;

/// One served version of a custom resource.
pub struct CustomResource {
    names: Names,
    api_version: CompactString,
    /// The CustomResourceDefinition.
    definition: Arc<Object>,
    /// Where among its versions this is.
    version: usize,
    /// The selectable fields of all versions: what is known of an object that is stored.
    stored_fields: Vec<String>,
    columns: Vec<Option<Template>>,
    scale: Option<Paths>,
    /// What is made of the schema when it is first needed.
    structural: OnceLock<Structural>,
    validator: OnceLock<Validator>,
    rules: OnceLock<Option<Rules>>,
}

impl CustomResource {
    /// Of the version at `version` in `spec.versions`.
    pub fn new(definition: Arc<Object>, version: usize) -> CustomResource {
        let value = definition.value();
        let spec = &value["spec"]["versions"][version];
        let own = spec["additionalPrinterColumns"].items();
        let template = |column: &Value| format!("{{{}}}", column["jsonPath"].str()).parse().ok();
        let mut columns: Vec<Option<Template>> = own.iter().map(template).collect();
        if own.is_empty() {
            columns.push("{.metadata.creationTimestamp}".parse().ok());
        }
        let mut stored_fields: Vec<String> = value["spec"]["versions"]
            .items()
            .iter()
            .flat_map(|version| version["selectableFields"].items())
            .map(|field| field["jsonPath"].str().trim_start_matches('.').to_string())
            .collect();
        stored_fields.sort();
        stored_fields.dedup();
        let names = Names::new(&value, version);
        CustomResource {
            api_version: names.info().gvk().api_version(),
            names,
            stored_fields,
            scale: Paths::of(&spec["subresources"]["scale"]),
            columns,
            version,
            structural: OnceLock::new(),
            validator: OnceLock::new(),
            rules: OnceLock::new(),
            definition,
        }
    }

    pub fn stored_fields(&self) -> &[String] {
        &self.stored_fields
    }

    /// Of the objects of this version.
    pub fn api_version(&self) -> &str {
        &self.api_version
    }

    /// Removes what the schema does not know from an object that was not sent by a client.
    pub fn prune(&self, object: &mut Value) {
        // What was stored once is not refused now.
        let _ = schema::decode(Schema::Custom(self.structural_schema()), object);
    }

    fn schema_of(definition: &Value, version: usize) -> &Value {
        &definition["spec"]["versions"][version]["schema"]["openAPIV3Schema"]
    }

    fn structural_schema(&self) -> &Structural {
        self.structural.get_or_init(|| {
            let definition = self.definition.value();
            let mut root = Structural::root(CustomResource::schema_of(&definition, self.version));
            root.preserve |= definition["spec"]["preserveUnknownFields"].bool();
            root
        })
    }

    fn validator(&self) -> &Validator {
        self.validator.get_or_init(|| Validator::new(CustomResource::schema_of(&self.definition.value(), self.version)))
    }

    /// The rules are compiled when an object is first written.
    fn check_rules(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let compile = || Rules::new(CustomResource::schema_of(&self.definition.value(), self.version));
        let Some(rules) = self.rules.get_or_init(compile) else { return };
        // An expression need not cope with what is not of its type.
        let blocking = [Kind::NotSupported, Kind::Required, Kind::TooLong, Kind::TooMany, Kind::TypeInvalid];
        if errors.iter().any(|error| blocking.contains(&error.kind)) {
            let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            return errors.add(Error {
                kind: Kind::Invalid,
                field: "<nil>".into(),
                value: "null".into(),
                detail: detail.into(),
            });
        }
        rules.validate(object, old, errors);
    }

    fn check(&self, object: &Field, old: Option<&Value>, errors: &mut Errors) {
        let value = object.value;
        // The schema does not speak of metadata but for names, which have been checked.
        self.validator().validate(value, old, "", errors);
        if let Some(scale) = &self.scale {
            scale.check_spec(value, errors);
            scale.check_status(value, errors);
        }
        embedded::validate(value, self.structural_schema(), errors);
    }
}

impl Resource for CustomResource {
    fn info(&self) -> &InfoOf<'_> {
        self.names.info()
    }

    fn structural(&self) -> Option<&Structural> {
        Some(self.structural_schema())
    }

    fn definitions(&self) -> Vec<(String, Value)> {
        openapi::definitions(&self.definition.value(), self.version, self.info())
    }

    fn default(&self, object: &mut Value) {
        schema::apply_structural_defaults(self.structural_schema(), object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource == "status" {
            let (status, managed) = (new.get("status").cloned(), new["metadata"].get("managedFields").cloned());
            *new = old.clone();
            match status {
                Some(status) => new.set("status", status),
                None => drop(new.remove("status")),
            }
            match managed {
                Some(managed) => new.set_path(&["metadata", "managedFields"], managed),
                None => drop(new.remove_path(&["metadata", "managedFields"])),
            }
        } else if self.info().has_status() {
            strategy::keep(new, old, "status");
        }
    }

    fn raises_generation(&self, new: &Value, old: &Value) -> bool {
        let differs = |field: &str| field != "metadata" && !semantic::equal(new.at(field), old.at(field));
        new.entries().chain(old.entries()).any(|(field, _)| differs(field))
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        self.check(object, None, errors);
        lists::validate(object.value, self.structural_schema(), errors);
        self.check_rules(object.value, None, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            if let (Some(status), Some(validator)) = (new.value.get("status"), self.validator().property("status")) {
                validator.validate(status, old.get("status"), "status", errors);
            }
            if let Some(scale) = &self.scale {
                scale.check_status(new.value, errors);
            }
        } else {
            self.check(new, Some(old), errors);
        }
        let mut before = Errors::new();
        lists::validate(old, self.structural_schema(), &mut before);
        if before.is_empty() {
            lists::validate(new.value, self.structural_schema(), errors);
        }
        self.check_rules(new.value, Some(old), errors);
    }

    fn facts(&self, object: &Value) -> Facts {
        let fields: Vec<&str> = self.stored_fields.iter().map(String::as_str).collect();
        Facts::extract(object, &fields)
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let known = |name: &Value| old.is_some_and(|old| old["metadata"]["finalizers"].items().contains(name));
        let added = object["metadata"]["finalizers"].items().iter().filter(|name| !known(name)).map(Value::str);
        added.flat_map(finalizer_warnings).collect()
    }

    fn columns(&self) -> &[ColumnOf<'_>] {
        self.names.columns()
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let mut cells = vec![object["metadata"]["name"].clone()];
        for (column, path) in self.names.columns().iter().skip(1).zip(&self.columns) {
            let found = path.as_ref().and_then(|path| path.find(object).ok()?.first().copied());
            cells.push(found.map_or(Value::Null, |value| cell(column.kind, value, now)));
        }
        cells
    }

    fn scale(&self, object: &Value) -> Value {
        self.scale.as_ref().map_or(Value::Null, |paths| paths.to_scale(object))
    }

    fn scale_path(&self) -> Vec<String> {
        let steps = self.scale.as_ref().map(|paths| paths.spec_steps());
        steps.unwrap_or_default().into_iter().map(String::from).collect()
    }

    fn apply_scale(&self, object: &mut Value, scale: &Value) {
        if let Some(paths) = &self.scale {
            paths.apply(object, scale);
        }
    }
}

fn cell(kind: &str, value: &Value, now: Time) -> Value {
    match (kind, value) {
        ("string", Value::Null) => Value::Null,
        ("string", value) => jsonpath::text(value).into(),
        ("integer", Value::Int(_)) | ("number", Value::Int(_) | Value::Float(_)) | ("boolean", Value::Bool(_)) => {
            value.clone()
        }
        ("integer", Value::Float(f)) => Value::Int(*f as i64),
        ("date", Value::Str(text)) => match Time::parse(text) {
            Some(then) => canopus_api::time::human_duration(now.since(then)).into(),
            None => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}

/// Upstream warns of finalizers that built-in kinds would refuse.
fn finalizer_warnings(name: &str) -> Vec<String> {
    let at = "metadata.finalizers";
    let mut out: Vec<String> =
        canopus_api::names::qualified_name(name).into_iter().map(|why| format!("{at}: {name:?}: {why}")).collect();
    if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
        let path = if name.contains('.') { " including a path (/)" } else { "" };
        out.push(format!(
            "{at}: {name:?}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
        ));
    }
    out
}
