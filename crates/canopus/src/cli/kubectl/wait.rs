//! `kubectl wait`.

use super::session::Session;
use super::until::{self, Ended};
use super::{discovery::Resource, error, files, select};
use crate::cli::output;
use anyhow::{Context, Result, anyhow, bail};
use canopus_api::jsonpath::{Template, text};
use canopus_api::{Api, LabelSelector, ListOptions, Status, Target, Value};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What a negative time-out means to kubectl.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// Wait until something holds of objects
#[derive(Args)]
#[command(after_help = "\
Examples:
  canopus kubectl wait --for=condition=Ready pod/hello
  canopus kubectl wait --for=condition=Available=false deployment/hello --timeout=60s
  canopus kubectl wait --for=jsonpath='{.status.phase}'=Running pod -l app=hello
  canopus kubectl wait --for=delete pod/hello")]
pub struct WaitArgs {
    /// TYPE/NAME…, TYPE NAME…, or TYPE with --all or --selector
    #[arg(value_name = "TYPE[/NAME]")]
    what: Vec<String>,
    /// condition=NAME[=STATUS], jsonpath=PATH[=VALUE], create or delete
    #[arg(long = "for", value_name = "WHAT")]
    condition: String,
    /// How long for each object: 0 looks once, negative means a week
    #[arg(long, value_name = "DURATION", default_value = "30s", allow_hyphen_values = true)]
    timeout: String,
    /// Files that name the objects
    #[arg(short, long, value_name = "FILE", conflicts_with = "what")]
    filename: Vec<PathBuf>,
    /// Only objects whose labels match
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    selector: String,
    /// All objects of the type
    #[arg(long)]
    all: bool,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

#[derive(Debug, PartialEq)]
enum Condition {
    Create,
    Delete,
    Status { name: String, status: String },
    JsonPath { path: Template, value: Option<String> },
}

pub async fn run(session: &Session, args: &WaitArgs) -> Result<ExitCode> {
    let condition = parse(&args.condition)?;
    let patience = until::duration(&args.timeout)?.unwrap_or(WEEK);
    let mut code = ExitCode::SUCCESS;
    for (resource, target) in targets(session, args, &condition).await? {
        match one(session, resource, &target, &condition, patience).await {
            Ok(line) => output::print(&line)?,
            Err(error) => {
                error::report(&error);
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// What follows `--for=`.
fn parse(text: &str) -> Result<Condition> {
    let lower = text.to_lowercase();
    if lower == "delete" || lower == "create" {
        return Ok(if lower == "delete" { Condition::Delete } else { Condition::Create });
    }
    if let Some(rest) = text.strip_prefix("condition=") {
        let (name, status) = rest.split_once('=').unwrap_or((rest, "true"));
        return Ok(Condition::Status { name: name.into(), status: status.into() });
    }
    if let Some(rest) = text.strip_prefix("jsonpath=") {
        // The path may hold `=` of its own, within its braces.
        let split = match rest.rfind('}') {
            Some(end) if rest.starts_with('{') => rest.split_at(end + 1),
            _ => rest.split_at(rest.find('=').unwrap_or(rest.len())),
        };
        let value = match split.1 {
            "" => None,
            given => Some(
                given
                    .strip_prefix('=')
                    .context("jsonpath wait format must be --for=jsonpath='{.status.readyReplicas}'=3")?,
            ),
        };
        if value.is_some_and(str::is_empty) {
            bail!(
                "jsonpath wait has to have a value after equal sign, like --for=jsonpath='{{.status.readyReplicas}}'=3"
            );
        }
        let path = Template::relaxed(split.0).map_err(anyhow::Error::msg)?;
        return Ok(Condition::JsonPath { path, value: value.map(|v| v.trim_matches(['"', '\'']).to_string()) });
    }
    bail!("unrecognized condition: {text:?}")
}

async fn targets<'a>(
    session: &'a Session,
    args: &WaitArgs,
    condition: &Condition,
) -> Result<Vec<(&'a Resource, Target)>> {
    let discovery = session.discovery().await?;
    let mut targets = Vec::new();
    if !args.filename.is_empty() {
        for manifest in files::read(&args.filename, false)? {
            let resource = discovery.of_kind(&manifest.kind())?;
            let namespace = manifest.namespace(&session.namespace, session.namespace_given)?;
            let namespace = if resource.namespaced { namespace } else { String::new() };
            targets.push((resource, Target::new(&resource.gvr, &namespace, manifest.name())));
        }
        return Ok(targets);
    }
    for selected in select::parse(discovery, &args.what)? {
        if !selected.name.is_empty() {
            targets.push((selected.resource, selected.target(session, false)));
            continue;
        }
        if !args.all && args.selector.is_empty() {
            bail!("resource(s) were provided, but no name was specified");
        }
        let options = ListOptions {
            labels: LabelSelector::parse(&args.selector).map_err(anyhow::Error::msg)?,
            ..ListOptions::default()
        };
        let list = session.api.list(&selected.target(session, args.all_namespaces), &options).await?;
        let resource = selected.resource;
        targets.extend(list.items.iter().map(|o| (resource, Target::new(&resource.gvr, o.namespace(), o.name()))));
    }
    if targets.is_empty() && *condition != Condition::Delete {
        bail!("no matching resources found");
    }
    Ok(targets)
}

async fn one(
    session: &Session,
    resource: &Resource,
    target: &Target,
    condition: &Condition,
    patience: Duration,
) -> Result<String> {
    let title = format!("{}/{}", resource.title(), target.name);
    let missing = || anyhow::Error::from(Status::not_found(&target.gvr, &target.name));
    let mut first: Option<String> = None;
    let ended = until::until(session, target, patience, |object| match (condition, object) {
        (Condition::Create, object) => Ok(object.is_some()),
        (Condition::Delete, None) => Ok(true),
        // Another object of the same name is not the one that was to go.
        (Condition::Delete, Some(object)) => {
            let uid = object["metadata"]["uid"].str();
            Ok(first.get_or_insert_with(|| uid.to_string()) != uid)
        }
        (_, None) => Err(missing()),
        (Condition::Status { name, status }, Some(object)) => Ok(has_condition(object, name, status)),
        (Condition::JsonPath { path, value }, Some(object)) => has_value(object, path, value.as_deref()),
    });
    match ended.await? {
        Ended::Met => Ok(format!("{title} condition met\n")),
        Ended::TimedOut if patience.is_zero() => Err(anyhow!("condition not met for {title}")),
        Ended::TimedOut => {
            Err(anyhow!("timed out waiting for the condition on {}/{}", target.gvr.resource, target.name))
        }
    }
}

/// A condition counts only when its controller has seen the object's newest generation.
fn has_condition(object: &Value, name: &str, status: &str) -> bool {
    let conditions = object["status"]["conditions"].items();
    let Some(condition) = conditions.iter().find(|c| c["type"].str().eq_ignore_ascii_case(name)) else { return false };
    let observed = condition["observedGeneration"].as_i64().or(object["status"]["observedGeneration"].as_i64());
    if let (Some(generation), Some(observed)) = (object["metadata"]["generation"].as_i64(), observed)
        && observed < generation
    {
        return false;
    }
    condition["status"].str().eq_ignore_ascii_case(status)
}

fn has_value(object: &Value, path: &Template, wanted: Option<&str>) -> Result<bool> {
    match path.find(object).map_err(anyhow::Error::msg)?[..] {
        [] => Ok(false),
        [_] if wanted.is_none() => Ok(true),
        [Value::Array(_) | Value::Object(_)] => {
            bail!("jsonpath leads to a nested object or list which is not supported")
        }
        [found] => Ok(wanted.is_some_and(|wanted| text(found).trim() == wanted.trim())),
        _ => bail!("given jsonpath expression matches more than one value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn conditions_parse() {
        let status = |name: &str, status: &str| Condition::Status { name: name.into(), status: status.into() };
        assert_eq!(parse("delete").unwrap(), Condition::Delete);
        assert_eq!(parse("create").unwrap(), Condition::Create);
        assert_eq!(parse("condition=Ready").unwrap(), status("Ready", "true"));
        assert_eq!(parse("condition=Ready=Unknown").unwrap(), status("Ready", "Unknown"));
        let path = Template::relaxed("{.a[?(@.x==\"y\")].z}").unwrap();
        let wanted = Condition::JsonPath { path, value: Some("3".into()) };
        assert_eq!(parse("jsonpath={.a[?(@.x==\"y\")].z}=3").unwrap(), wanted);
        assert!(matches!(parse("jsonpath={.a}").unwrap(), Condition::JsonPath { value: None, .. }));
        for bad in ["", "ready", "jsonpath={.a}=", "jsonpath={.a}x", "jsonpath="] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn conditions_hold() {
        let object = |generation: i64| {
            value!({
                "metadata": {"generation": generation},
                "status": {"observedGeneration": 1, "n": 3, "l": [1], "conditions": [{"type": "Available", "status": "True"}]},
            })
        };
        assert!(has_condition(&object(1), "available", "true"));
        assert!(!has_condition(&object(2), "Available", "True"));
        assert!(!has_condition(&object(1), "Available", "False"));
        assert!(!has_condition(&object(1), "Other", "True"));
        let value = |path: &str, wanted| has_value(&object(1), &Template::relaxed(path).unwrap(), wanted);
        assert!(value(".status.n", Some("3")).unwrap());
        assert!(value(".status.n", None).unwrap());
        assert!(!value(".status.m", None).unwrap());
        assert!(value(".status.l", Some("1")).is_err());
    }
}
