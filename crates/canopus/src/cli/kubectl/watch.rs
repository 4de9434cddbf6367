//! `kubectl get --watch`: what there is, and then every change as it comes.

use super::discovery::Resource;
use super::get::{GetArgs, TABLE};
use super::print::{self, Format, TableOptions};
use super::session::{JSON, Session, with_query};
use crate::cli::output;
use anyhow::{Context, Result, bail};
use canopus_api::jsonpath::text;
use canopus_api::{Status, Target, Value, json};
use canopus_client::remote;
use http::Method;
use http_body_util::BodyExt;
use std::process::ExitCode;

/// What one event may be.
const MAX_EVENT: usize = 16 << 20;

pub async fn run(session: &Session, args: &GetArgs, resource: &Resource, target: &Target) -> Result<ExitCode> {
    let format = args.output.clone().unwrap_or_default();
    let accept = if format.is_table() { TABLE } else { JSON };
    let collection = Target { name: "".into(), ..target.clone() };
    let fields =
        if target.name.is_empty() { args.field_selector.clone() } else { format!("metadata.name={}", target.name) };
    let mut printer =
        Printer { args, resource, format, columns: Value::Null, headers: !args.no_headers, widths: Vec::new() };
    let query = [("labelSelector", args.selector.as_str()), ("fieldSelector", fields.as_str())];
    let list = session.call(Method::GET, &with_query(&collection.url_path(), &query), accept, None).await?;
    let found = if printer.format.is_table() { &list["rows"] } else { &list["items"] };
    if !target.name.is_empty() && found.items().is_empty() {
        return Err(Status::not_found(&target.gvr, &target.name).into());
    }
    let revision = list["metadata"]["resourceVersion"].str().to_string();
    if printer.format.is_table() {
        printer.columns = list["columnDefinitions"].clone();
    }
    if !args.watch_only {
        printer.list(list)?;
    }
    let query = [query[0], query[1], ("resourceVersion", &revision), ("watch", "true")];
    let response =
        session.api.raw(Method::GET, &with_query(&collection.url_path(), &query), accept, "", Vec::new()).await?;
    if !response.status().is_success() {
        let status = remote::answer(response).await.err();
        return Err(status.unwrap_or_else(|| Status::internal("the server answered no watch")).into());
    }
    let mut body = response.into_body();
    let mut lines = Lines::default();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.context("the connection broke")?.into_data() else { continue };
        for line in lines.push(&data)? {
            printer.event(&json::parse(&line).context("the server's event is not JSON")?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes a stream apart at its newlines.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, data: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut whole = Vec::new();
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            self.0.extend_from_slice(piece);
            if self.0.len() > MAX_EVENT {
                bail!("the server sent an event of more than {MAX_EVENT} bytes");
            }
            if piece.ends_with(b"\n") {
                whole.push(std::mem::take(&mut self.0));
            }
        }
        Ok(whole)
    }
}

struct Printer<'a> {
    args: &'a GetArgs,
    resource: &'a Resource,
    format: Format,
    /// The table's, which the server says only once.
    columns: Value,
    headers: bool,
    /// How wide what was printed is.
    widths: Vec<usize>,
}

impl Printer<'_> {
    fn list(&mut self, mut list: Value) -> Result<()> {
        if self.format.is_table() {
            return if list["rows"].items().is_empty() { Ok(()) } else { self.table(&list) };
        }
        let (kind, version) = (list["kind"].str().trim_end_matches("List").to_string(), list["apiVersion"].clone());
        for mut object in list.remove("items").unwrap_or_default().items().iter().cloned() {
            object.set_default("apiVersion", &version);
            object.set_default("kind", &kind);
            self.object(object)?;
        }
        Ok(())
    }

    fn event(&mut self, event: &Value) -> Result<()> {
        let object = &event["object"];
        match event["type"].str() {
            "ERROR" => Err(Status::from_value(object).unwrap_or_else(|| Status::internal(text(object))).into()),
            "BOOKMARK" => Ok(()),
            _ if self.format.is_table() => self.table(object),
            _ => self.object(object.clone()),
        }
    }

    fn table(&mut self, table: &Value) -> Result<()> {
        let mut table = table.clone();
        if table["columnDefinitions"].items().is_empty() {
            table.set("columnDefinitions", &self.columns);
        }
        let options = TableOptions {
            wide: self.format == Format::Wide,
            namespaces: self.args.all_namespaces && self.resource.namespaced,
            labels: self.args.show_labels,
            headers: std::mem::take(&mut self.headers),
            kinds: false,
        };
        let rows = print::rows(&table, self.resource, options);
        output::print(&output::columns_below(&rows, &mut self.widths))
    }

    fn object(&mut self, mut object: Value) -> Result<()> {
        if !self.args.show_managed_fields {
            object.remove_path(&["metadata", "managedFields"]);
        }
        match &self.format {
            Format::Name => output::print(&print::names([(self.resource, &object)])),
            Format::Columns(columns) => output::print(&columns.text(&[object], std::mem::take(&mut self.headers))),
            // Documents of one stream are kept apart, as kubectl does.
            Format::Yaml => output::print(&format!("---\n{}", print::structured(&self.format, &object)?)),
            format => output::print(&print::structured(format, &object)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_taken_apart() {
        let mut lines = Lines::default();
        assert!(lines.push(b"{\"a\"").unwrap().is_empty());
        assert_eq!(lines.push(b":1}\n{}\n{").unwrap(), [b"{\"a\":1}\n".to_vec(), b"{}\n".to_vec()]);
        assert!(lines.push(&vec![b' '; MAX_EVENT + 1]).is_err());
    }
}
