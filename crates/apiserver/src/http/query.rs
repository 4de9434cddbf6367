//! Query strings and the options they carry.

use canopus_api::api::{FieldValidation, Propagation, ResourceVersionMatch};
use canopus_api::{
    DeleteOptions, Errors, Field, FieldSelector, Gvk, LabelSelector, ListOptions, Result, Status, Value, WriteOptions,
    value,
};

/// How long the name of a field manager may be.
const MAX_MANAGER: usize = 128;

/// Decoded key-value pairs, in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

/// Undoes percent-encoding; `plus` says whether '+' is a space. Bad escapes stay as they are.
pub fn decode(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| (*b as char).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (b'+', ..) if plus => {
                out.push(b' ');
                at += 1;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Query {
    pub fn parse(raw: &str) -> Query {
        let pairs = raw.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key, true), decode(value, true))
        });
        Query(pairs.collect())
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    /// The first value of `key`, "" when there is none.
    pub fn get(&self, key: &str) -> String {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone()).unwrap_or_default()
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.has(key) && !["false", "0"].contains(&self.get(key).as_str())
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>> {
        let text = self.get(key);
        if text.is_empty() {
            return Ok(None);
        }
        let bad = || Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
        text.parse().map(Some).map_err(|_| bad())
    }

    fn resource_version(&self) -> Result<Option<u64>> {
        let text = self.get("resourceVersion");
        if text.is_empty() {
            return Ok(None);
        }
        let too_large = text.bytes().all(|b| b.is_ascii_digit());
        let why = if too_large { "value out of range" } else { "invalid syntax" };
        let bad = || {
            Status::bad_request(format!(
                "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: {why}"
            ))
        };
        text.parse().map(Some).map_err(|_| bad())
    }

    /// For a get: None or "not older than". Here upstream takes what is wrong for its own fault.
    pub fn get_options(&self) -> Result<Option<u64>> {
        self.resource_version().map_err(|bad| {
            let why = bad.message.strip_prefix("invalid resource version: ").unwrap_or(&bad.message);
            Status::new(500, "", why)
        })
    }

    pub fn label_selector(&self) -> Result<LabelSelector> {
        LabelSelector::parse(&self.get("labelSelector")).map_err(Status::bad_request)
    }

    pub fn field_selector(&self) -> Result<FieldSelector> {
        FieldSelector::parse(&self.get("fieldSelector")).map_err(Status::bad_request)
    }

    /// What goes together in a list or watch (upstream `ValidateListOptions`).
    fn check_list_options(&self) -> Result<()> {
        let tree = value!({
            "resourceVersionMatch": (self.get("resourceVersionMatch")), "sendInitialEvents": (self.flag("sendInitialEvents")),
        });
        let root = Field::root(&tree);
        let (matching, initial) = (root.at("resourceVersionMatch"), root.at("sendInitialEvents"));
        let given = self.has("sendInitialEvents");
        let mut errors = Errors::new();
        let continued = !self.get("continue").is_empty();
        if self.flag("watch") {
            if given && matching.str() != "NotOlderThan" {
                errors.forbidden(&matching, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
            }
            if !matching.str().is_empty() {
                if !given {
                    let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                    errors.forbidden(&matching, why);
                }
                if matching.str() != "NotOlderThan" {
                    errors.not_supported(&matching, &["NotOlderThan"]);
                }
                if continued {
                    errors.forbidden(&matching, "resourceVersionMatch is forbidden when continue is provided");
                }
            }
            return refuse("ListOptions", errors);
        }
        let version = self.get("resourceVersion");
        if !matching.str().is_empty() {
            if version.is_empty() {
                errors.forbidden(&matching, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if continued {
                errors.forbidden(&matching, "resourceVersionMatch is forbidden when continue is provided");
            }
            if !["Exact", "NotOlderThan"].contains(&matching.str()) {
                errors.not_supported(&matching, &["Exact", "NotOlderThan", ""]);
            }
            if matching.str() == "Exact" && version == "0" {
                errors.forbidden(&matching, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
        }
        if given {
            errors.forbidden(&initial, "sendInitialEvents is forbidden for list");
        }
        refuse("ListOptions", errors)
    }

    pub fn list_options(&self) -> Result<ListOptions> {
        self.check_list_options()?;
        let (labels, fields) = (self.label_selector()?, self.field_selector()?);
        let resource_version_match = match self.get("resourceVersionMatch").as_str() {
            "Exact" => Some(ResourceVersionMatch::Exact),
            "NotOlderThan" => Some(ResourceVersionMatch::NotOlderThan),
            _ => None,
        };
        Ok(ListOptions {
            labels,
            fields,
            resource_version: self.resource_version()?,
            resource_version_match,
            limit: self.number::<i64>("limit")?.and_then(|l| usize::try_from(l).ok()).unwrap_or(0),
            continue_token: self.get("continue").into(),
            timeout_seconds: self.number("timeoutSeconds")?,
            bookmarks: self.flag("allowWatchBookmarks"),
            send_initial_events: self.has("sendInitialEvents").then(|| self.flag("sendInitialEvents")),
        })
    }

    /// `user_agent` names the field manager when the request does not. `kind`: CreateOptions, UpdateOptions or
    /// PatchOptions; `apply` says that the patch is one.
    pub fn write_options(&self, user_agent: &str, kind: &str, apply: bool) -> Result<WriteOptions> {
        let tree = value!({
            "fieldManager": (self.get("fieldManager")), "fieldValidation": (self.get("fieldValidation")),
            "dryRun": (self.all("dryRun")), "force": (self.flag("force")),
        });
        let root = Field::root(&tree);
        let mut errors = Errors::new();
        let manager = root.at("fieldManager");
        if apply && manager.str().is_empty() {
            errors.required(&manager, "is required for apply patch");
        } else if kind == "PatchOptions" && !apply && self.has("force") {
            errors.forbidden(&root.at("force"), "may not be specified for non-apply patch");
        }
        if manager.str().len() > MAX_MANAGER {
            errors.too_long(&manager, MAX_MANAGER);
        }
        if let Some((at, c)) = manager.str().char_indices().find(|(_, c)| c.is_control()) {
            errors.invalid(&manager, format!("invalid character U+{:04X} (at position {at})", c as u32));
        }
        let dry_run = dry_run(&root, &mut errors);
        let validation = root.at("fieldValidation");
        let field_validation = match validation.str() {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            _ => {
                errors.not_supported(&validation, &["", "Ignore", "Strict", "Warn"]);
                FieldValidation::Warn
            }
        };
        refuse(kind, errors)?;
        let mut field_manager = manager.str().to_string();
        if field_manager.is_empty() {
            let agent = user_agent.split('/').next().unwrap_or("").chars().filter(|c| !c.is_control());
            field_manager = agent.take(MAX_MANAGER).collect();
        }
        Ok(WriteOptions { field_manager: field_manager.into(), dry_run, field_validation, force: self.flag("force") })
    }

    /// DeleteOptions as upstream takes them: from the body if there is one (not Null), else from the query.
    pub fn delete_options(&self, body: &Value) -> Result<DeleteOptions> {
        let kind = body["kind"].str();
        if !["", "DeleteOptions"].contains(&kind) {
            return Err(Status::bad_request("decoded object cannot be converted to DeleteOptions"));
        }
        let query;
        let sent = if body.is_null() {
            query = self.delete_options_tree()?;
            &query
        } else {
            body
        };
        delete_options_of(sent)
    }

    fn delete_options_tree(&self) -> Result<Value> {
        let mut tree = value!({"dryRun": (self.all("dryRun"))});
        if let Some(grace) = self.number::<i64>("gracePeriodSeconds")? {
            tree.set("gracePeriodSeconds", grace);
        }
        if self.has("propagationPolicy") {
            tree.set("propagationPolicy", self.get("propagationPolicy"));
        }
        if self.has("orphanDependents") {
            tree.set("orphanDependents", self.flag("orphanDependents"));
        }
        Ok(tree)
    }

    /// All values of `key`.
    pub(super) fn all(&self, key: &str) -> Value {
        self.0.iter().filter(|(k, v)| k == key && !v.is_empty()).map(|(_, v)| v.clone()).collect()
    }
}

/// Whether `options.dryRun` says so; anything but All is wrong.
fn dry_run(options: &Field, errors: &mut Errors) -> bool {
    let field = options.at("dryRun");
    if field.value.items().iter().any(|v| v.str() != "All") {
        errors.not_supported(&field, &["All"]);
    }
    !field.value.is_empty()
}

/// Options that do not validate are refused as an object would be.
fn refuse(kind: &str, errors: Errors) -> Result<()> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&Gvk::new("meta.k8s.io", "v1", kind), "", errors)) }
}

/// The options of a deletion, as an object says them.
pub(crate) fn delete_options_of(sent: &Value) -> Result<DeleteOptions> {
    if !sent["gracePeriodSeconds"].is_null() && sent["gracePeriodSeconds"].as_i64().is_none() {
        return Err(Status::bad_request(
            "json: cannot unmarshal into Go struct field DeleteOptions.gracePeriodSeconds of type int64",
        ));
    }
    let root = Field::root(sent);
    let mut errors = Errors::new();
    let (policy, orphan) = (root.at("propagationPolicy"), sent["orphanDependents"].as_bool());
    if policy.is_set() && orphan.is_some() {
        errors.invalid(&policy, "orphanDependents and deletionPropagation cannot be both set");
    }
    let propagation_policy = match (policy.str(), orphan) {
        ("Orphan", _) | ("", Some(true)) => Some(Propagation::Orphan),
        ("Background", _) | ("", Some(false)) => Some(Propagation::Background),
        ("Foreground", _) => Some(Propagation::Foreground),
        ("", None) => None,
        _ => {
            errors.not_supported(&policy, &["Foreground", "Background", "Orphan", "nil"]);
            None
        }
    };
    let dry_run = dry_run(&root, &mut errors);
    refuse("DeleteOptions", errors)?;
    let text = |key: &str| Some(sent["preconditions"][key].str()).filter(|s| !s.is_empty()).map(Into::into);
    Ok(DeleteOptions {
        grace_period_seconds: sent["gracePeriodSeconds"].as_i64(),
        propagation_policy,
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        dry_run,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding() {
        assert_eq!(decode("a%20b+c%2", true), "a b c%2");
        assert_eq!(decode("a+b", false), "a+b");
        let query = Query::parse("labelSelector=a%3Db%2Cc&limit=5&watch=true&x");
        let options = query.list_options().unwrap();
        assert_eq!((options.labels.to_string().as_str(), options.limit), ("a=b,c", 5));
        assert!(query.has("x"));
    }

    #[test]
    fn bad_options() {
        let bad = |query: &str| Query::parse(query).list_options().unwrap_err().code;
        for query in ["labelSelector=%3D", "limit=x", "resourceVersion=x", "timeoutSeconds=-1"] {
            assert_eq!(bad(query), 400, "{query}");
        }
        for query in [
            "resourceVersionMatch=y&resourceVersion=1",
            "resourceVersionMatch=Exact",
            "resourceVersionMatch=Exact&resourceVersion=0",
            "sendInitialEvents=true",
            "watch=1&sendInitialEvents=true",
            "watch=1&resourceVersionMatch=NotOlderThan",
        ] {
            assert_eq!(bad(query), 422, "{query}");
        }
        let patch = |query: &str| Query::parse(query).write_options("", "PatchOptions", false);
        let refused = patch("dryRun=x&fieldValidation=y&force=true").unwrap_err();
        let fields: Vec<_> = refused.details.unwrap().causes.into_iter().map(|c| c.field).collect();
        assert_eq!(fields, ["force", "dryRun", "fieldValidation"]);
        assert!(refused.message.starts_with("PatchOptions.meta.k8s.io \"\" is invalid: ["), "{}", refused.message);
        assert!(patch("fieldManager=%07").is_err() && patch("dryRun=All").unwrap().dry_run);
        let apply = Query::parse("").write_options("kubectl", "PatchOptions", true).unwrap_err();
        let why =
            r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#;
        assert_eq!(apply.message, why);
        let created = Query::parse("").write_options("kubectl/v1.36 (x)", "CreateOptions", false).unwrap();
        assert_eq!(created.field_manager, "kubectl");
    }

    #[test]
    fn deletions_are_described_in_body_or_query() {
        let query = Query::parse("gracePeriodSeconds=5&propagationPolicy=Orphan&dryRun=All");
        let options = query.delete_options(&Value::Null).unwrap();
        let (grace, policy) = (options.grace_period_seconds, options.propagation_policy);
        assert_eq!((grace, policy, options.dry_run), (Some(5), Some(Propagation::Orphan), true));
        let options = query.delete_options(&value!({"orphanDependents": false})).unwrap();
        let (grace, policy) = (options.grace_period_seconds, options.propagation_policy);
        assert_eq!((grace, policy, options.dry_run), (None, Some(Propagation::Background), false));
        for (body, code) in [
            (value!({"propagationPolicy": "x"}), 422),
            (value!({"propagationPolicy": "Orphan", "orphanDependents": true}), 422),
            (value!({"dryRun": ["x"]}), 422),
            (value!({"kind": "Pod"}), 400),
            (value!({"gracePeriodSeconds": "x"}), 400),
        ] {
            assert_eq!(query.delete_options(&body).unwrap_err().code, code, "{body:?}");
        }
    }
}
