//! `kubectl delete`.

use super::session::{JSON, Session};
use super::until::{self, Ended};
use super::{discovery::Resource, error, files, select};
use crate::cli::output;
use anyhow::{Result, anyhow, bail};
use canopus_api::{Api, FieldSelector, LabelSelector, ListOptions, Status, Target, Value, value};
use clap::Args;
use http::Method;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How long to wait for objects to be gone when nothing is said.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Delete objects and wait until they are gone
#[derive(Args)]
#[command(after_help = "\
Examples:
  canopus kubectl delete pod hello
  canopus kubectl delete deployment/hello service/hello
  canopus kubectl delete pods -l app=hello --now
  canopus kubectl delete -f app.yaml --ignore-not-found")]
pub struct DeleteArgs {
    /// TYPE/NAME…, TYPE NAME…, or TYPE with --all or --selector
    #[arg(value_name = "TYPE[/NAME]")]
    what: Vec<String>,
    /// Files that name the objects
    #[arg(short, long, value_name = "FILE", conflicts_with = "what")]
    filename: Vec<PathBuf>,
    /// Directories with all below them
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Only objects whose labels match
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    selector: String,
    /// Only objects whose fields match
    #[arg(long, default_value = "", hide_default_value = true)]
    field_selector: String,
    /// All objects of the type
    #[arg(long)]
    all: bool,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Seconds pods have to finish; negative: what they say themselves
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_hyphen_values = true)]
    grace_period: i64,
    /// The same as --grace-period=1
    #[arg(long, conflicts_with = "grace_period")]
    now: bool,
    /// With --grace-period=0 (which it implies): do not wait for the node to confirm
    #[arg(long, conflicts_with = "now")]
    force: bool,
    /// What becomes of dependents
    #[arg(long, default_value = "background", value_parser = ["background", "foreground", "orphan"])]
    cascade: String,
    /// Whether to wait until they are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    wait: bool,
    /// How long to wait; 0: as long as it takes
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    timeout: String,
    /// What is not there is no error
    #[arg(long)]
    ignore_not_found: bool,
    /// `name`: print TYPE/NAME only
    #[arg(short, long, value_parser = ["name"])]
    output: Option<String>,
}

impl DeleteArgs {
    fn grace(&self) -> Option<i64> {
        match (self.now, self.force && self.grace_period < 0) {
            (true, _) => Some(1),
            (_, true) => Some(0),
            _ => (self.grace_period >= 0).then_some(self.grace_period),
        }
    }

    fn body(&self) -> Value {
        let policy = match self.cascade.as_str() {
            "foreground" => "Foreground",
            "orphan" => "Orphan",
            _ => "Background",
        };
        let mut body = value!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
        if let Some(grace) = self.grace() {
            body.set("gracePeriodSeconds", grace);
        }
        body
    }
}

pub async fn run(session: &Session, args: &DeleteArgs) -> Result<ExitCode> {
    if args.grace_period == 0 && !args.force {
        bail!("--grace-period=0 needs --force, or say --now for the shortest orderly end");
    }
    if args.force {
        eprintln!(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. \
             The resource may continue to run on the cluster indefinitely."
        );
    }
    let patience = until::duration(&args.timeout)?.filter(|d| !d.is_zero()).unwrap_or(PATIENCE);
    let mut code = ExitCode::SUCCESS;
    let mut going = Vec::new();
    let targets = targets(session, args).await?;
    if targets.is_empty() && args.output.is_none() {
        output::print("No resources found\n")?;
    }
    for (resource, target) in targets {
        match one(session, args, &target).await {
            Ok(uid) => {
                output::print(&said(args, resource, &target))?;
                going.push((target, uid));
            }
            Err(error) => {
                let missing = error.downcast_ref::<Status>().is_some_and(Status::is_not_found);
                if !(missing && args.ignore_not_found) {
                    error::report(&error);
                    code = ExitCode::FAILURE;
                }
            }
        }
    }
    for (target, uid) in going.iter().filter(|_| args.wait && !args.force) {
        let gone = |object: Option<&Value>| Ok(object.is_none_or(|o| o["metadata"]["uid"].str() != uid));
        if until::until(session, target, patience, gone).await? == Ended::TimedOut {
            let what = format!("{}/{}", target.gvr.resource, target.name);
            error::report(&anyhow!("timed out waiting for the condition on {what}"));
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

async fn targets<'a>(session: &'a Session, args: &DeleteArgs) -> Result<Vec<(&'a Resource, Target)>> {
    let discovery = session.discovery().await?;
    let mut targets = Vec::new();
    if !args.filename.is_empty() {
        for manifest in files::read(&args.filename, args.recursive)? {
            let resource = discovery.of_kind(&manifest.kind())?;
            let namespace = manifest.namespace(&session.namespace, session.namespace_given)?;
            let namespace = if resource.namespaced { namespace } else { String::new() };
            targets.push((resource, Target::new(&resource.gvr, &namespace, manifest.name())));
        }
        return Ok(targets);
    }
    let selective = !(args.selector.is_empty() && args.field_selector.is_empty());
    for selected in select::parse(discovery, &args.what)? {
        if !selected.name.is_empty() {
            if selective || args.all {
                bail!("name cannot be provided when a selector is specified");
            }
            targets.push((selected.resource, selected.target(session, false)));
            continue;
        }
        if !args.all && !selective {
            bail!("resource(s) were provided, but no name was specified");
        }
        let options = ListOptions {
            labels: LabelSelector::parse(&args.selector).map_err(anyhow::Error::msg)?,
            fields: FieldSelector::parse(&args.field_selector).map_err(anyhow::Error::msg)?,
            ..ListOptions::default()
        };
        let list = session.api.list(&selected.target(session, args.all_namespaces), &options).await?;
        let resource = selected.resource;
        targets.extend(list.items.iter().map(|o| (resource, Target::new(&resource.gvr, o.namespace(), o.name()))));
    }
    Ok(targets)
}

/// Deletes the object and says which it was: its uid.
async fn one(session: &Session, args: &DeleteArgs, target: &Target) -> Result<String> {
    let answer = session.call(Method::DELETE, &target.url_path(), JSON, Some((JSON, &args.body()))).await?;
    // The object as it now is, or a Status about an object that is gone.
    let uid = match answer["kind"].str() {
        "Status" => answer["details"]["uid"].str(),
        _ => answer["metadata"]["uid"].str(),
    };
    Ok(uid.into())
}

fn said(args: &DeleteArgs, resource: &Resource, target: &Target) -> String {
    let title = resource.title();
    if args.output.is_some() {
        return format!("{title}/{}\n", target.name);
    }
    let force = if args.grace() == Some(0) { "force " } else { "" };
    let place = if resource.namespaced { format!(" from {} namespace", target.namespace) } else { String::new() };
    format!("{title} \"{}\" {force}deleted{place}\n", target.name)
}

#[cfg(test)]
mod tests {
    use super::super::discovery::testing::sample;
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: DeleteArgs,
    }

    fn args(line: &str) -> DeleteArgs {
        Line::try_parse_from(std::iter::once("delete").chain(line.split_whitespace())).unwrap().args
    }

    #[test]
    fn options_become_a_body() {
        for (line, grace, policy) in [
            ("pod x", None, "Background"),
            ("pod x --now", Some(1), "Background"),
            ("pod x --force", Some(0), "Background"),
            ("pod x --grace-period=5 --cascade=orphan", Some(5), "Orphan"),
            ("pod x --grace-period -1 --cascade=foreground", None, "Foreground"),
        ] {
            let body = args(line).body();
            assert_eq!(body["gracePeriodSeconds"].as_i64(), grace, "{line}");
            assert_eq!(body["propagationPolicy"].str(), policy, "{line}");
        }
        assert!(args("pod x").wait && !args("pod x --wait=false").wait && args("--wait pod x").wait);
    }

    #[test]
    fn what_is_said() {
        let discovery = sample();
        for (line, word, said_) in [
            ("x", "deploy", "deployment.apps \"a\" deleted from ns namespace\n"),
            ("x --force", "po", "pod \"a\" force deleted from ns namespace\n"),
            ("x", "no", "node \"a\" deleted\n"),
            ("x -o name", "po", "pod/a\n"),
        ] {
            let resource = discovery.named(word).unwrap()[0];
            let target = Target::new(&resource.gvr, "ns", "a");
            assert_eq!(said(&args(line), resource, &target), said_);
        }
    }
}
