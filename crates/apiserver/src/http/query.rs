//! Query strings and the options they carry.

use canopus_api::api::{FieldValidation, Propagation, ResourceVersionMatch};
use canopus_api::{DeleteOptions, FieldSelector, LabelSelector, ListOptions, Result, Status, WriteOptions};

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

    fn flag(&self, key: &str) -> bool {
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
        let bad = || {
            Status::bad_request(format!(
                "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))
        };
        text.parse().map(Some).map_err(|_| bad())
    }

    /// For a get: None or "not older than".
    pub fn get_options(&self) -> Result<Option<u64>> {
        self.resource_version()
    }

    pub fn label_selector(&self) -> Result<LabelSelector> {
        LabelSelector::parse(&self.get("labelSelector"))
            .map_err(|why| Status::bad_request(format!("unable to parse requirement: {why}")))
    }

    pub fn field_selector(&self) -> Result<FieldSelector> {
        FieldSelector::parse(&self.get("fieldSelector")).map_err(Status::bad_request)
    }

    pub fn list_options(&self) -> Result<ListOptions> {
        let (labels, fields) = (self.label_selector()?, self.field_selector()?);
        let resource_version_match = match self.get("resourceVersionMatch").as_str() {
            "" => None,
            "Exact" => Some(ResourceVersionMatch::Exact),
            "NotOlderThan" => Some(ResourceVersionMatch::NotOlderThan),
            other => {
                return Err(Status::bad_request(format!(
                    "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
                )));
            }
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

    /// `user_agent` names the field manager when the request does not.
    pub fn write_options(&self, user_agent: &str) -> Result<WriteOptions> {
        let mut manager = self.get("fieldManager");
        if manager.len() > 128 {
            return Err(Status::bad_request("fieldManager: Too long: may not be more than 128 bytes"));
        }
        if manager.is_empty() {
            manager = user_agent.split('/').next().unwrap_or("").chars().take(128).collect();
        }
        let field_validation = match self.get("fieldValidation").as_str() {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                return Err(Status::bad_request(format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                )));
            }
        };
        Ok(WriteOptions {
            field_manager: manager.into(),
            dry_run: self.dry_run()?,
            field_validation,
            force: self.flag("force"),
        })
    }

    fn dry_run(&self) -> Result<bool> {
        match self.get("dryRun").as_str() {
            "" => Ok(false),
            "All" => Ok(true),
            other => {
                Err(Status::bad_request(format!("dryRun: Unsupported value: {other:?}: supported values: \"All\"")))
            }
        }
    }

    /// The query's part of DeleteOptions; a body adds to it.
    pub fn delete_options(&self, body: &canopus_api::Value) -> Result<DeleteOptions> {
        let text = |key: &str| Some(body["preconditions"][key].str()).filter(|s| !s.is_empty()).map(Into::into);
        let policy = match (body["propagationPolicy"].str(), self.get("propagationPolicy").as_str()) {
            ("Orphan", _) | ("", "Orphan") => Some(Propagation::Orphan),
            ("Background", _) | ("", "Background") => Some(Propagation::Background),
            ("Foreground", _) | ("", "Foreground") => Some(Propagation::Foreground),
            ("", "") => match body["orphanDependents"].as_bool() {
                Some(true) => Some(Propagation::Orphan),
                Some(false) => Some(Propagation::Background),
                None => None,
            },
            (other, _) => {
                return Err(Status::bad_request(format!(
                    "propagationPolicy: Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
                )));
            }
        };
        let grace = match body["gracePeriodSeconds"].as_i64() {
            Some(grace) => Some(grace),
            None => self.number("gracePeriodSeconds")?,
        };
        let dry_run = body["dryRun"].items().iter().any(|d| d.str() == "All") || self.dry_run()?;
        Ok(DeleteOptions {
            grace_period_seconds: grace,
            propagation_policy: policy,
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            dry_run,
        })
    }
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
        for bad in ["labelSelector=%3D", "limit=x", "resourceVersion=x", "resourceVersionMatch=y", "timeoutSeconds=-1"]
        {
            assert_eq!(Query::parse(bad).list_options().unwrap_err().code, 400, "{bad}");
        }
        for bad in ["dryRun=x", "fieldValidation=x"] {
            assert_eq!(Query::parse(bad).write_options("").unwrap_err().code, 400, "{bad}");
        }
        assert_eq!(Query::parse("").write_options("kubectl/v1.36 (x)").unwrap().field_manager, "kubectl");
    }
}
