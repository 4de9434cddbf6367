//! `kubectl apply`: server-side apply (KEP-555).

use super::files::{self, Manifest};
use super::print::{self, Format};
use super::session::{JSON, Session, with_query};
use super::{discovery::Resource, error};
use crate::cli::output;
use anyhow::{Result, anyhow, bail};
use canopus_api::{Status, Target, Value};
use clap::Args;
use http::Method;
use std::path::PathBuf;
use std::process::ExitCode;

const MANAGER: &str = "canopus";

/// Make objects as files say, by server-side apply
#[derive(Args)]
#[command(after_help = "\
Examples:
  canopus kubectl apply -f app.yaml
  canopus kubectl apply -f manifests/ --recursive
  sed s/v1/v2/ app.yaml | canopus kubectl apply -f -")]
pub struct ApplyArgs {
    /// Files or directories of YAML or JSON; `-` is standard input
    #[arg(short, long, value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// Directories with all below them
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Server-side apply, which is the only one there is
    #[arg(long, hide = true)]
    server_side: bool,
    /// Take fields from other managers
    #[arg(long)]
    force_conflicts: bool,
    /// Who owns the fields
    #[arg(long, default_value = MANAGER)]
    field_manager: String,
    /// What unknown fields do: refuse, warn or nothing
    #[arg(long, value_name = "WHAT", default_value = "strict", value_parser = ["strict", "true", "warn", "ignore", "false"])]
    validate: String,
    /// `server`: change nothing
    #[arg(long, value_name = "WHERE", default_value = "none", value_parser = ["none", "server"])]
    dry_run: String,
    /// yaml, json, name or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

pub async fn run(session: &Session, args: &ApplyArgs) -> Result<ExitCode> {
    if args.output.as_ref().is_some_and(Format::is_table) {
        bail!("apply prints no tables");
    }
    let manifests = files::read(&args.filename, args.recursive)?;
    let discovery = session.discovery().await?;
    let mut code = ExitCode::SUCCESS;
    let mut applied = Vec::new();
    for manifest in &manifests {
        let done = match discovery.of_kind(&manifest.kind()) {
            Ok(resource) => one(session, args, manifest, resource).await.map(|object| (resource, object)),
            Err(error) => Err(error.context(format!("unable to recognize {:?}", manifest.source))),
        };
        match done {
            Ok((resource, object)) => {
                if args.output.is_none() {
                    output::print(&said(args, resource, &object))?;
                }
                applied.push((resource, object));
            }
            Err(error) => {
                error::report(&explain(error, &manifest.source));
                code = ExitCode::FAILURE;
            }
        }
    }
    match &args.output {
        None => {}
        Some(Format::Name) => output::print(&print::names(applied.iter().map(|(r, o)| (*r, o))))?,
        Some(format) => {
            let objects: Vec<Value> = applied.into_iter().map(|(_, object)| object).collect();
            output::print(&print::structured(format, &print::document(objects, manifests.len() == 1))?)?;
        }
    }
    Ok(code)
}

async fn one(session: &Session, args: &ApplyArgs, manifest: &Manifest, resource: &Resource) -> Result<Value> {
    let mut body = manifest.object.clone();
    let mut namespace = String::new();
    if resource.namespaced {
        namespace = manifest.namespace(&session.namespace, session.namespace_given)?;
        body.set_path(&["metadata", "namespace"], &namespace);
    }
    // What the server owns and a file that was got from it still has.
    body.remove_path(&["metadata", "managedFields"]);
    let target = Target::new(&resource.gvr, &namespace, manifest.name());
    let validation = match args.validate.as_str() {
        "warn" => "Warn",
        "ignore" | "false" => "Ignore",
        _ => "Strict",
    };
    let query = [
        ("fieldManager", args.field_manager.as_str()),
        ("fieldValidation", validation),
        ("force", if args.force_conflicts { "true" } else { "false" }),
        ("dryRun", if args.dry_run == "server" { "All" } else { "" }),
    ];
    let content = Some(("application/apply-patch+yaml", &body));
    session.call(Method::PATCH, &with_query(&target.url_path(), &query), JSON, content).await
}

fn said(args: &ApplyArgs, resource: &Resource, object: &Value) -> String {
    let dry = if args.dry_run == "server" { " (server dry run)" } else { "" };
    format!("{}/{} serverside-applied{dry}\n", resource.title(), object["metadata"]["name"].str())
}

fn explain(error: anyhow::Error, source: &str) -> anyhow::Error {
    match error.downcast_ref::<Status>() {
        Some(status) if status.is_conflict() => anyhow!(
            "{}\nThese fields have other managers. Leave them out of the file, or take them with --force-conflicts",
            status.message
        ),
        Some(_) => error::while_doing(error, &format!("error when applying {source:?}")),
        None => error,
    }
}
