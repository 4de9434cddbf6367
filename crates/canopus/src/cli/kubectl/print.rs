//! How objects are shown: the server's tables, YAML, JSON, names, JSONPath.

use super::columns::Columns;
use super::discovery::Resource;
use crate::cli::output;
use anyhow::{Result, bail};
use canopus_api::jsonpath::Template;
use canopus_api::{Value, json, value, yaml};
use std::str::FromStr;

/// `-o`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Format {
    #[default]
    Table,
    Wide,
    Yaml,
    Json,
    Name,
    JsonPath(Template),
    Columns(Columns),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        match text.split_once('=').unwrap_or((text, "")) {
            ("wide", "") => Ok(Format::Wide),
            ("yaml", "") => Ok(Format::Yaml),
            ("json", "") => Ok(Format::Json),
            ("name", "") => Ok(Format::Name),
            ("jsonpath", "") => Err("template format specified but no template given".into()),
            ("custom-columns", spec) => Ok(Format::Columns(Columns::parse(spec)?)),
            ("jsonpath", template) => Ok(Format::JsonPath(template.parse()?)),
            _ => Err(format!(
                "unable to match a printer suitable for the output format {text:?}, allowed formats are: \
                              custom-columns,json,jsonpath,name,wide,yaml"
            )),
        }
    }
}

impl Format {
    pub fn is_table(&self) -> bool {
        matches!(self, Format::Table | Format::Wide)
    }
}

/// How tables are printed.
#[derive(Clone, Copy, Debug, Default)]
pub struct TableOptions {
    pub wide: bool,
    pub namespaces: bool,
    pub labels: bool,
    pub headers: bool,
    /// Names carry their type: `pod/hello`.
    pub kinds: bool,
}

/// A `meta.k8s.io/v1 Table` as text.
pub fn table(table: &Value, resource: &Resource, options: TableOptions) -> String {
    output::columns(&rows(table, resource, options))
}

/// The lines of a table, the header among them if it is wanted.
pub fn rows(table: &Value, resource: &Resource, options: TableOptions) -> Vec<Vec<String>> {
    let shown: Vec<usize> = (0..table["columnDefinitions"].items().len())
        .filter(|i| options.wide || table["columnDefinitions"].items()[*i]["priority"].int() == 0)
        .collect();
    let mut lines = Vec::new();
    if options.headers {
        let mut header: Vec<String> = if options.namespaces { vec!["NAMESPACE".into()] } else { Vec::new() };
        header.extend(shown.iter().map(|i| table["columnDefinitions"].items()[*i]["name"].str().to_uppercase()));
        header.extend(options.labels.then(|| "LABELS".to_string()));
        lines.push(header);
    }
    for row in table["rows"].items() {
        let metadata = &row["object"]["metadata"];
        let mut line: Vec<String> =
            if options.namespaces { vec![metadata["namespace"].str().into()] } else { Vec::new() };
        for i in &shown {
            let is_name = table["columnDefinitions"].items()[*i]["format"].str() == "name";
            let text = cell(row["cells"].items().get(*i));
            line.push(if options.kinds && is_name { format!("{}/{text}", resource.title()) } else { text });
        }
        line.extend(options.labels.then(|| labels(&metadata["labels"])));
        lines.push(line);
    }
    lines
}

/// A cell is one line, whatever is in it.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "<none>".into(),
        Some(Value::Str(text)) => {
            let end = text.find(['\n', '\r', '\u{c}']).unwrap_or(text.len());
            let more = if end < text.len() { "..." } else { "" };
            text[..end].chars().filter(|c| !c.is_control()).collect::<String>() + more
        }
        Some(value) => json::to_string(value),
    }
}

fn labels(labels: &Value) -> String {
    let all: Vec<String> = labels.entries().map(|(k, v)| format!("{k}={}", v.str())).collect();
    if all.is_empty() { "<none>".into() } else { all.join(",") }
}

/// `pod/hello`, a line for each object.
pub fn names<'a>(objects: impl IntoIterator<Item = (&'a Resource, &'a Value)>) -> String {
    objects.into_iter().map(|(r, o)| format!("{}/{}\n", r.title(), o["metadata"]["name"].str())).collect()
}

/// One object stands for itself; several become a List.
pub fn document(mut objects: Vec<Value>, single: bool) -> Value {
    match (single, objects.pop()) {
        (true, Some(object)) if objects.is_empty() => object,
        (_, last) => {
            objects.extend(last);
            value!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects})
        }
    }
}

/// `document` in a structured format.
pub fn structured(format: &Format, document: &Value) -> Result<String> {
    match format {
        Format::Yaml => Ok(yaml::to_yaml(document)),
        Format::Json => Ok(pretty(document) + "\n"),
        Format::JsonPath(template) => Ok(template.render(document).map_err(anyhow::Error::msg)?),
        Format::Columns(columns) => Ok(columns.text(std::slice::from_ref(document), true)),
        Format::Table | Format::Wide | Format::Name => bail!("tables and names are not documents"),
    }
}

/// JSON indented by four, as kubectl prints it.
pub fn pretty(value: &Value) -> String {
    json::pretty(value, "    ")
}

#[cfg(test)]
mod tests {
    use super::super::discovery::testing::sample;
    use super::*;

    fn shown(options: TableOptions) -> String {
        let t = value!({
            "columnDefinitions": [
                {"name": "Name", "format": "name", "priority": 0}, {"name": "Ready", "priority": 0},
                {"name": "Restarts", "priority": 0}, {"name": "Node", "priority": 1},
            ],
            "rows": [
                {"cells": ["a", "1/1", 0, "n1"], "object": {"metadata": {"namespace": "x", "labels": {"l": "1", "m": ""}}}},
                {"cells": ["bbbb", "0/1\nmore", 3, null], "object": {"metadata": {"namespace": "default"}}},
            ],
        });
        let discovery = sample();
        let resource = discovery.named("deploy").unwrap()[0].clone();
        table(&t, &resource, options)
    }

    #[test]
    fn tables() {
        let options = TableOptions { headers: true, ..TableOptions::default() };
        let plain = "NAME   READY    RESTARTS\na      1/1      0\nbbbb   0/1...   3\n";
        assert_eq!(shown(options), plain);
        let everything = TableOptions { wide: true, namespaces: true, labels: true, headers: true, kinds: true };
        assert_eq!(
            shown(everything),
            "NAMESPACE   NAME                   READY    RESTARTS   NODE     LABELS\n\
             x           deployment.apps/a      1/1      0          n1       l=1,m=\n\
             default     deployment.apps/bbbb   0/1...   3          <none>   <none>\n"
        );
        assert_eq!(shown(TableOptions::default()), "a      1/1      0\nbbbb   0/1...   3\n");
    }

    #[test]
    fn json_is_indented_by_four() {
        let v = value!({"a": [1, {"b": "x"}], "c": {}, "d": []});
        let text = "{\n    \"a\": [\n        1,\n        {\n            \"b\": \"x\"\n        }\n    ],\n    \"c\": {},\n    \"d\": []\n}";
        assert_eq!(pretty(&v), text);
    }

    #[test]
    fn several_objects_become_a_list() {
        let one = value!({"kind": "Pod"});
        assert_eq!(document(vec![one.clone()], true), one);
        assert_eq!(document(vec![one.clone()], false)["items"].items().len(), 1);
        assert_eq!(document(vec![one.clone(), one.clone()], false)["items"].items().len(), 2);
        assert_eq!(document(Vec::new(), false)["kind"].str(), "List");
    }

    #[test]
    fn formats() {
        assert_eq!("wide".parse(), Ok(Format::Wide));
        assert!("jsonpath=".parse::<Format>().is_err());
        assert!("jsonpath={.a".parse::<Format>().is_err());
        assert!("xml".parse::<Format>().unwrap_err().contains("unable to match a printer"));
    }
}
