//! `kubectl get`.

use super::print::{self, Format, TableOptions};
use super::select::{self, Selected};
use super::session::{JSON, Session, with_query};
use super::{error, files, watch};
use crate::cli::output;
use anyhow::{Result, bail};
use canopus_api::{Status, Target, Value};
use clap::Args;
use http::Method;
use std::path::PathBuf;
use std::process::ExitCode;

/// How many objects are asked for at once.
const PAGE: &str = "500";
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Show objects
#[derive(Args, Default)]
#[command(after_help = "\
Examples:
  canopus kubectl get pods
  canopus kubectl get nodes,pods,svc -A -o wide
  canopus kubectl get deployment hello -o yaml
  canopus kubectl get pods --watch
  canopus kubectl get pods -o custom-columns=NAME:.metadata.name,IP:.status.podIP
  canopus kubectl get pods -l app=hello -o jsonpath='{.items[*].status.podIP}'")]
pub struct GetArgs {
    /// TYPE[,TYPE] [NAME…] or TYPE/NAME…
    #[arg(value_name = "TYPE[/NAME]")]
    what: Vec<String>,
    /// Files that name the objects
    #[arg(short, long, value_name = "FILE", conflicts_with = "what")]
    filename: Vec<PathBuf>,
    /// wide, yaml, json, name, jsonpath=TEMPLATE or custom-columns=HEADER:PATH,…
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only objects whose labels match
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Only objects whose fields match, like status.phase=Running
    #[arg(long, default_value = "", hide_default_value = true)]
    pub field_selector: String,
    /// No header lines
    #[arg(long)]
    pub no_headers: bool,
    /// A column with the labels
    #[arg(long)]
    pub show_labels: bool,
    /// Keep managedFields in YAML and JSON
    #[arg(long)]
    pub show_managed_fields: bool,
    /// What is not there is no error
    #[arg(long)]
    ignore_not_found: bool,
    /// After the objects, their changes as they come
    #[arg(short, long)]
    pub watch: bool,
    /// Changes only, without the objects first
    #[arg(long)]
    pub watch_only: bool,
}

pub async fn run(session: &Session, args: &GetArgs) -> Result<ExitCode> {
    let discovery = session.discovery().await?;
    let mut places: Vec<(Selected<'_>, Target)> = Vec::new();
    if args.filename.is_empty() {
        for selected in select::parse(discovery, &args.what)? {
            let target = selected.target(session, args.all_namespaces);
            places.push((selected, target));
        }
    }
    for manifest in if args.filename.is_empty() { Vec::new() } else { files::read(&args.filename, false)? } {
        let resource = discovery.of_kind(&manifest.kind())?;
        let namespace = manifest.namespace(&session.namespace, session.namespace_given)?;
        let namespace = if resource.namespaced { namespace } else { String::new() };
        let target = Target::new(&resource.gvr, &namespace, manifest.name());
        places.push((Selected { resource, name: manifest.name().into() }, target));
    }
    let named = places.iter().any(|(selected, _)| !selected.name.is_empty());
    if named && args.all_namespaces {
        bail!("a resource cannot be retrieved by name across all namespaces");
    }
    if named && !(args.selector.is_empty() && args.field_selector.is_empty()) {
        bail!("name cannot be provided when a selector is specified");
    }
    if args.watch || args.watch_only {
        return match places.as_slice() {
            [(selected, target)] => watch::run(session, args, selected.resource, target).await,
            _ => bail!("you may only specify a single resource type"),
        };
    }
    match args.output.clone().unwrap_or_default() {
        format if format.is_table() => tables(session, args, &places, format == Format::Wide).await,
        format => documents(session, args, &places, &format).await,
    }
}

/// What the server has at a target, pages joined: an object, a list or a table.
async fn fetch(session: &Session, args: &GetArgs, target: &Target, accept: &str) -> Result<Value> {
    let path = target.url_path();
    if !target.name.is_empty() {
        return session.call(Method::GET, &path, accept, None).await;
    }
    let mut whole: Option<Value> = None;
    let mut more = String::new();
    loop {
        let query = [
            ("labelSelector", args.selector.as_str()),
            ("fieldSelector", args.field_selector.as_str()),
            ("limit", PAGE),
            ("continue", more.as_str()),
        ];
        let mut page = session.call(Method::GET, &with_query(&path, &query), accept, None).await?;
        more = page["metadata"]["continue"].str().into();
        match &mut whole {
            None => whole = Some(page),
            Some(whole) => {
                for field in ["rows", "items"] {
                    if let (Some(all), Some(Value::Array(new))) =
                        (whole.get_mut(field).and_then(Value::as_array_mut), page.remove(field))
                    {
                        all.extend(new);
                    }
                }
            }
        }
        if more.is_empty() {
            return Ok(whole.unwrap_or_default());
        }
    }
}

/// Reports a failure and says whether it is one: what is not there may be fine.
fn failed(args: &GetArgs, error: &anyhow::Error) -> bool {
    let missing = error.downcast_ref::<Status>().is_some_and(Status::is_not_found);
    if missing && args.ignore_not_found {
        return false;
    }
    error::report(error);
    true
}

async fn tables(session: &Session, args: &GetArgs, places: &[(Selected<'_>, Target)], wide: bool) -> Result<ExitCode> {
    let several = places.iter().any(|(s, _)| s.resource != places[0].0.resource);
    let mut code = ExitCode::SUCCESS;
    let mut blocks: Vec<(&Selected<'_>, Value)> = Vec::new();
    for (selected, target) in places {
        match fetch(session, args, target, TABLE).await {
            Err(error) => {
                if failed(args, &error) {
                    code = ExitCode::FAILURE;
                }
            }
            Ok(table) if table["kind"].str() != "Table" => bail!("the server answered no table"),
            Ok(table) => match blocks.last_mut() {
                // Objects named one by one share a table.
                Some((last, block)) if last.resource == selected.resource => {
                    let rows = table["rows"].items().to_vec();
                    if let Some(all) = block.get_mut("rows").and_then(Value::as_array_mut) {
                        all.extend(rows);
                    }
                }
                _ => blocks.push((selected, table)),
            },
        }
    }
    blocks.retain(|(_, table)| !table["rows"].items().is_empty());
    if blocks.is_empty() && code == ExitCode::SUCCESS && !args.ignore_not_found {
        eprintln!("{}", nothing(session, args, places));
    }
    let mut text = String::new();
    for (i, (selected, table)) in blocks.iter().enumerate() {
        let options = TableOptions {
            wide,
            namespaces: args.all_namespaces && selected.resource.namespaced,
            labels: args.show_labels,
            headers: !args.no_headers,
            kinds: several,
        };
        if i > 0 && !args.no_headers {
            text.push('\n');
        }
        text += &print::table(table, selected.resource, options);
    }
    output::print(&text)?;
    Ok(code)
}

fn nothing(session: &Session, args: &GetArgs, places: &[(Selected<'_>, Target)]) -> String {
    if args.all_namespaces || !places.iter().any(|(s, _)| s.resource.namespaced) {
        return "No resources found".into();
    }
    format!("No resources found in {} namespace.", session.namespace)
}

async fn documents(
    session: &Session,
    args: &GetArgs,
    places: &[(Selected<'_>, Target)],
    format: &Format,
) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let mut objects = Vec::new();
    for (selected, target) in places {
        match fetch(session, args, target, JSON).await {
            Ok(answer) if target.name.is_empty() => {
                objects.extend(items(answer).into_iter().map(|object| (selected.resource, object)));
            }
            Ok(object) => objects.push((selected.resource, object)),
            Err(error) => {
                if failed(args, &error) {
                    code = ExitCode::FAILURE;
                }
            }
        }
    }
    if let Format::Columns(columns) = format {
        let objects: Vec<Value> = objects.into_iter().map(|(_, object)| object).collect();
        output::print(&columns.text(&objects, !args.no_headers))?;
        return Ok(code);
    }
    let single = places.len() == 1 && !places[0].1.name.is_empty();
    if *format == Format::Name {
        output::print(&print::names(objects.iter().map(|(r, o)| (*r, o))))?;
        return Ok(code);
    }
    if single && objects.is_empty() {
        return Ok(code);
    }
    let mut plain: Vec<Value> = objects.into_iter().map(|(_, object)| object).collect();
    if !args.show_managed_fields {
        for object in &mut plain {
            object.remove_path(&["metadata", "managedFields"]);
        }
    }
    output::print(&print::structured(format, &print::document(plain, single))?)?;
    Ok(code)
}

/// The objects of a list, each saying what it is.
fn items(mut list: Value) -> Vec<Value> {
    let api_version = list["apiVersion"].clone();
    let kind = list["kind"].str().strip_suffix("List").unwrap_or_default().to_string();
    let Some(Value::Array(mut items)) = list.remove("items") else { return Vec::new() };
    for item in &mut items {
        item.set_default("apiVersion", &api_version);
        item.set_default("kind", &kind);
    }
    items
}
