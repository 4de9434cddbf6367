//! What a CustomResourceDefinition may say (upstream `apiextensions/validation/validation.go`).

use super::conditions::{self, APPROVED, approval, protected};
use super::schema;
use crate::admissionregistration::webhook::client_config;
use crate::certificates::pkcs::check_roots;
use crate::custom::validator::known_format;
use base64::Engine;
use canopus_api::field::{Error, Kind};
use canopus_api::{Errors, Field, Value, names as valid};

const MAX_SELECTABLE: usize = 8;
const COLUMN_TYPES: &str = "boolean,date,integer,number,string";
const COLUMN_FORMATS: &str = "byte,date,date-time,double,float,int32,int64,password";

/// All that is wrong with a definition, or with changing `old` into it.
pub fn validate(object: &Field, old: Option<&Value>, errors: &mut Errors) {
    let spec = object.at("spec");
    name(object, errors);
    self::spec(
        &spec,
        old.map(|old| &old["spec"]),
        old.is_some_and(|old| conditions::is_true(old, "Established")),
        errors,
    );
    names(&object.at("status").at("acceptedNames"), errors);
    stored_versions(object, errors);
    api_approval(object, old, errors);
    let preserve = spec.at("preserveUnknownFields");
    if preserve.value.bool() && !old.is_some_and(|old| old["spec"]["preserveUnknownFields"].bool()) {
        errors.invalid(
            &preserve,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        );
    }
}

fn name(object: &Field, errors: &mut Errors) {
    let meta = object.at("metadata");
    let name = meta.at("name");
    let spec = &object.value["spec"];
    if name.str() != format!("{}.{}", spec["names"]["plural"].str(), spec["group"].str()) {
        errors.invalid(&name, "must be spec.names.plural+\".\"+spec.group");
    }
}

fn joined(field: &Field, why: Vec<String>, prefix: &str, errors: &mut Errors) {
    if !field.str().is_empty() && !why.is_empty() {
        errors.invalid(field, format!("{prefix}{}", why.join(",")));
    }
}

fn one_of(field: &Field, supported: &[&str], errors: &mut Errors) {
    match field.str() {
        "" => errors.required(field, ""),
        text if supported.contains(&text) => {}
        _ => errors.not_supported(field, supported),
    }
}

fn spec(spec: &Field, old: Option<&Value>, established: bool, errors: &mut Errors) {
    let group = spec.at("group");
    if group.str().is_empty() {
        errors.required(&group, "");
    } else if !valid::dns1123_subdomain(group.str()).is_empty() {
        joined(&group, valid::dns1123_subdomain(group.str()), "", errors);
    } else if !group.str().contains('.') {
        errors.invalid(&group, "should be a domain with at least one dot");
    }
    one_of(&spec.at("scope"), &["Cluster", "Namespaced"], errors);
    versions(spec, old, errors);
    let names_field = spec.at("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        let name = names_field.at(field);
        if name.str().is_empty() {
            errors.required(&name, "");
        }
    }
    names(&names_field, errors);
    conversion(&spec.at("conversion"), old, established, errors);
    let Some(old) = old else { return };
    let immutable = |field: &Field, old: &Value, errors: &mut Errors| crate::checks::immutable(field, old, errors);
    if established {
        immutable(&spec.at("scope"), &old["scope"], errors);
        immutable(&names_field.at("kind"), &old["names"]["kind"], errors);
    }
    immutable(&group, &old["group"], errors);
    immutable(&names_field.at("plural"), &old["names"]["plural"], errors);
}

fn versions(spec: &Field, old: Option<&Value>, errors: &mut Errors) {
    let versions = spec.at("versions");
    for version in versions.items() {
        let schema = version.at("schema");
        let schema = schema.at("openAPIV3Schema");
        if schema.value.is_null() {
            errors.required(&schema, "");
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    let (mut storages, mut unique) = (0, true);
    for item in versions.items() {
        let name = item.at("name");
        storages += usize::from(item.value["storage"].bool());
        unique &= seen.insert(name.str().to_string());
        let why = valid::dns1035_label(name.str());
        if !why.is_empty() {
            errors.invalid(&name, why.join(","));
        }
        let before = old.and_then(|old| old["versions"].items().iter().find(|v| v["name"].str() == name.str()));
        version(&item, before, errors);
    }
    if !unique {
        errors.invalid(&versions, "must contain unique version names");
    }
    if storages != 1 {
        errors.invalid(&versions, "must have exactly one version marked as storage version");
    }
}

fn version(version: &Field, old: Option<&Value>, errors: &mut Errors) {
    deprecation(version, errors);
    let holder = version.at("schema");
    let schema_field = holder.at("openAPIV3Schema");
    let status = !version.value["subresources"]["status"].is_null();
    let unchanged = old.is_some_and(|old| old["schema"]["openAPIV3Schema"] == *schema_field.value);
    // What was accepted before stays acceptable.
    if !schema_field.value.is_null() && !unchanged {
        schema::validate(&schema_field, status, errors);
    }
    scale(&version.at("subresources").at("scale"), errors);
    version.at("additionalPrinterColumns").items().for_each(|column| self::column(&column, errors));
    selectable(version, old, errors);
}

fn deprecation(version: &Field, errors: &mut Errors) {
    let warning = version.at("deprecationWarning");
    let Some(text) = warning.value.as_str() else { return };
    if !version.value["deprecated"].bool() {
        return errors.invalid(&warning, "can only be set for deprecated versions");
    }
    if text.len() > 256 {
        errors.invalid(&warning, "must be <= 256 characters long");
    }
    if text.is_empty() {
        errors.invalid(&warning, "must not be an empty string");
    }
    if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
        let why = "must only contain printable UTF-8 characters; non-printable character found at index";
        errors.invalid(&warning, format!("{why} {at}"));
    }
}

fn simple_path(field: &Field, errors: &mut Errors) -> bool {
    let good = field.str().starts_with('.');
    if !good {
        errors.invalid(field, "must be a simple json path starting with .");
    }
    good
}

fn scale(scale: &Field, errors: &mut Errors) {
    if scale.value.is_null() {
        return;
    }
    for (name, under) in [("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")] {
        let path = scale.at(name);
        if path.str().is_empty() {
            errors.required(&path, "");
        } else if simple_path(&path, errors) && !path.str().starts_with(&format!("{under}.")) {
            errors.invalid(&path, format!("should be a json path under {under}"));
        }
    }
    let selector = scale.at("labelSelectorPath");
    let under = |root: &str| selector.str().starts_with(root);
    if !selector.str().is_empty() && simple_path(&selector, errors) && !under(".spec.") && !under(".status.") {
        errors.invalid(&selector, "should be a json path under either .spec or .status");
    }
}

fn column(column: &Field, errors: &mut Errors) {
    if column.value["name"].str().is_empty() {
        errors.required(&column.at("name"), "");
    }
    let kind = column.at("type");
    match kind.str() {
        "" => errors.required(&kind, format!("must be one of {COLUMN_TYPES}")),
        text if COLUMN_TYPES.split(',').any(|t| t == text) => {}
        _ => errors.invalid(&kind, format!("must be one of {COLUMN_TYPES}")),
    }
    let format = column.at("format");
    if !format.str().is_empty() && !COLUMN_FORMATS.split(',').any(|f| f == format.str()) {
        errors.invalid(&format, format!("must be one of {COLUMN_FORMATS}"));
    }
    // Upstream spells the field so.
    let path = column.at("JSONPath").with(&column.value["jsonPath"]).path();
    let text = column.value["jsonPath"].str();
    let (kind, detail) = match text {
        "" => (Kind::Required, ""),
        text if !text.starts_with('.') => (Kind::Invalid, "must be a simple json path starting with ."),
        _ => return,
    };
    errors.add(Error { kind, field: path, value: format!("{text:?}"), detail: detail.into() });
}

fn selectable(version: &Field, old: Option<&Value>, errors: &mut Errors) {
    let fields = version.at("selectableFields");
    let schema = &version.value["schema"]["openAPIV3Schema"];
    let mut seen = std::collections::BTreeSet::new();
    for item in fields.items() {
        let path = item.at("jsonPath");
        let text = path.str();
        if text.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let steps: Vec<&str> = text.trim_start_matches('.').split('.').collect();
        let found = steps.iter().try_fold(schema, |schema, step| schema["properties"].get(step));
        let Some(found) = found.filter(|_| text.starts_with('.') && !text.contains('[')) else {
            errors.invalid(&path, format!("is an invalid path: {}", path_problem(text, schema)));
            continue;
        };
        if steps[0] == "metadata" {
            errors.invalid(&path, "must not point to fields in metadata");
        }
        if !matches!(found["type"].str(), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.invalid(&path, why);
        }
        if !seen.insert(text.to_string()) {
            errors.duplicate(&path);
        }
    }
    let unchanged = old.is_some_and(|old| old["selectableFields"] == *fields.value);
    if seen.len() > MAX_SELECTABLE && !unchanged {
        errors.too_many(&fields, seen.len(), MAX_SELECTABLE);
    }
}

fn path_problem(text: &str, schema: &Value) -> String {
    if !text.starts_with('.') {
        return "expected [ or . but got: ".to_string() + text.get(..1).unwrap_or("");
    }
    let mut at = schema;
    for step in text.trim_start_matches('.').split('.') {
        match at["properties"].get(step) {
            Some(below) => at = below,
            None => return format!("does not refer to a valid field: {step}"),
        }
    }
    "does not refer to a valid field".into()
}

/// Names in `spec.names` and `status.acceptedNames`.
pub fn names(names: &Field, errors: &mut Errors) {
    let lower = "may have mixed case, but should otherwise match: ";
    for field in ["plural", "singular"] {
        let name = names.at(field);
        joined(&name, valid::dns1035_label(name.str()), "", errors);
    }
    for field in ["kind", "listKind"] {
        let name = names.at(field);
        joined(&name, valid::dns1035_label(&name.str().to_lowercase()), lower, errors);
    }
    for field in ["shortNames", "categories"] {
        for name in names.at(field).items() {
            let why = valid::dns1035_label(name.str());
            if !why.is_empty() {
                errors.invalid(&name, why.join(","));
            }
        }
    }
    let list = names.at("listKind");
    if !list.str().is_empty() && list.str() == names.value["kind"].str() {
        errors.invalid(&list, "kind and listKind may not be the same");
    }
}

fn conversion(conversion: &Field, old: Option<&Value>, established: bool, errors: &mut Errors) {
    if conversion.value.is_null() {
        return;
    }
    one_of(&conversion.at("strategy"), &["None", "Webhook"], errors);
    // Upstream's paths are those of its internal type.
    let (client, reviews) = (conversion.at("webhookClientConfig"), conversion.at("conversionReviewVersions"));
    let webhook = &conversion.value["webhook"];
    let config = client.with(&webhook["clientConfig"]);
    let versions = reviews.with(&webhook["conversionReviewVersions"]);
    if conversion.value["strategy"].str() != "Webhook" {
        if !config.value.is_null() {
            errors.forbidden(&client, "should not be set when strategy is not set to Webhook");
        }
        if !versions.value.items().is_empty() {
            errors.forbidden(&reviews, "should not be set when strategy is not set to Webhook");
        }
        return;
    }
    let before = old.map(|old| &old["conversion"]["webhook"]);
    if config.value.is_null() {
        errors.required(&client, "required when strategy is set to Webhook");
    } else {
        client_config(&config, errors);
        // It may still be filled in before the definition is established.
        let bundle = config.at("caBundle");
        let wrong_before = before.is_some_and(|old| authorities(old["clientConfig"]["caBundle"].str()).is_err());
        if established
            && !wrong_before
            && let Err(why) = authorities(bundle.str())
        {
            errors.invalid(&bundle, format!("unable to load root certificates: {why}"));
        }
    }
    let before = before.map(|old| old["conversionReviewVersions"].items()).unwrap_or_default();
    review_versions(&versions, before.is_empty() || known_review(before), errors);
}

fn known_review(versions: &[Value]) -> bool {
    versions.iter().any(|version| matches!(version.str(), "v1" | "v1beta1"))
}

fn review_versions(versions: &Field, must_be_known: bool, errors: &mut Errors) {
    if versions.value.items().is_empty() {
        return errors.required(versions, "");
    }
    let mut seen = std::collections::BTreeSet::new();
    for version in versions.items() {
        if seen.insert(version.str()) {
            crate::checks::check(&version, valid::dns1035_label, errors);
        } else {
            errors.invalid(&version, "duplicate version");
        }
    }
    if must_be_known && !known_review(versions.value.items()) {
        errors.invalid(versions, "must include at least one of v1, v1beta1");
    }
}

/// Whether these may be asked who a webhook is.
fn authorities(bundle: &str) -> Result<(), String> {
    let pem = base64::engine::general_purpose::STANDARD.decode(bundle).map_err(|error| error.to_string())?;
    if pem.is_empty() { Ok(()) } else { check_roots(&pem) }
}

fn stored_versions(object: &Field, errors: &mut Errors) {
    let status = object.at("status");
    let stored = status.at("storedVersions");
    let names: Vec<&str> = stored.value.items().iter().map(Value::str).collect();
    if names.is_empty() {
        return errors.invalid(&stored, "must have at least one stored version");
    }
    let versions = object.value["spec"]["versions"].items();
    for version in versions.iter().filter(|v| v["storage"].bool() && !names.contains(&v["name"].str())) {
        errors.invalid(&stored, format!("must have the storage version {}", version["name"].str()));
    }
    for item in stored.items().filter(|item| !versions.iter().any(|v| v["name"].str() == item.str())) {
        let v = item.str();
        errors.invalid(&item, format!("missing from spec.versions; {v} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {v} and removes {v} from status.storedVersions"));
    }
}

fn api_approval(object: &Field, old: Option<&Value>, errors: &mut Errors) {
    if !protected(object.value["spec"]["group"].str()) {
        return;
    }
    let (_, state, message) = approval(object.value);
    if old.is_some_and(|old| approval(old).1 == state) {
        return;
    }
    let meta = object.at("metadata");
    let annotations = meta.at("annotations");
    let path = format!("{}[{APPROVED}]", annotations.path());
    let value = format!("{:?}", annotations.value[APPROVED].str());
    let kind = match state {
        "MissingAnnotation" => Kind::Required,
        "InvalidAnnotation" => Kind::Invalid,
        _ => return,
    };
    errors.add(Error { kind, field: path, value, detail: message });
}

/// The formats in a definition's schemas that nobody checks.
pub fn unrecognized_formats(object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for version in object["spec"]["versions"].items() {
        schema::each(&version["schema"]["openAPIV3Schema"], &mut |schema| {
            let (kind, format) = (schema["type"].str(), schema["format"].str());
            let known = match kind {
                "" | "string" => known_format(format),
                "integer" => matches!(format, "int32" | "int64"),
                "number" => matches!(format, "float" | "double"),
                _ => true,
            };
            if !format.is_empty() && !known && !found.iter().any(|f| f == format) {
                found.push(format.to_string());
            }
        });
    }
    found
}
