//! What a custom resource is called, owned for as long as it is served.

use crate::resource::{ColumnOf, InfoOf, SubresourceOf, Verb};
use canopus_api::Value;
use self_cell::self_cell;

struct Texts {
    group: String,
    version: String,
    kind: String,
    plural: String,
    singular: String,
    short_names: Vec<String>,
    categories: Vec<String>,
    selectable: Vec<String>,
    columns: Vec<ColumnTexts>,
    deprecated: String,
    storage_version: String,
    namespaced: bool,
    status: bool,
    scale: bool,
}

struct ColumnTexts {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i32,
}

#[derive(Default)]
struct Lists<'a> {
    short_names: Vec<&'a str>,
    categories: Vec<&'a str>,
    selectable: Vec<&'a str>,
    subresources: Vec<SubresourceOf<'a>>,
    columns: Vec<ColumnOf<'a>>,
}

self_cell!(
    struct Listed {
        owner: Texts,
        #[covariant]
        dependent: Lists,
    }
);

self_cell!(
    struct Cell {
        owner: Listed,
        #[covariant]
        dependent: InfoOf,
    }
);

/// An [`InfoOf`] with what it borrows from.
pub struct Names(Cell);

impl Names {
    /// Of the version at `at` of a definition.
    pub fn new(definition: &Value, at: usize) -> Names {
        Names(Cell::new(Listed::new(texts(definition, at), lists), info))
    }

    pub fn info(&self) -> &InfoOf<'_> {
        self.0.borrow_dependent()
    }

    pub fn columns(&self) -> &[ColumnOf<'_>] {
        &self.0.borrow_owner().borrow_dependent().columns
    }
}

fn texts(definition: &Value, at: usize) -> Texts {
    let spec = &definition["spec"];
    let version = &spec["versions"][at];
    // What is served is called as it was accepted.
    let names = match &definition["status"]["acceptedNames"] {
        accepted if !accepted["plural"].is_empty() => accepted,
        _ => &spec["names"],
    };
    let list = |list: &Value| list.items().iter().map(|v| v.str().to_string()).collect::<Vec<_>>();
    let (group, name) = (spec["group"].str(), version["name"].str());
    let kind = names["kind"].str();
    let deprecated = match (version["deprecated"].bool(), version["deprecationWarning"].as_str()) {
        (false, _) => String::new(),
        (true, Some(warning)) => warning.to_string(),
        (true, None) => default_warning(spec, group, name, kind),
    };
    let storage = spec["versions"].items().iter().find(|v| v["storage"].bool());
    Texts {
        group: group.into(),
        version: name.into(),
        kind: kind.into(),
        plural: spec["names"]["plural"].str().into(),
        singular: names["singular"].str().into(),
        short_names: list(&names["shortNames"]),
        categories: list(&names["categories"]),
        selectable: version["selectableFields"]
            .items()
            .iter()
            .map(|f| f["jsonPath"].str().trim_start_matches('.').to_string())
            .collect(),
        columns: columns(version),
        deprecated,
        storage_version: storage.map_or("", |v| v["name"].str()).into(),
        namespaced: spec["scope"].str() != "Cluster",
        status: version["subresources"].get("status").is_some_and(|v| !v.is_null()),
        scale: version["subresources"].get("scale").is_some_and(|v| !v.is_null()),
    }
}

/// Upstream's warning about a deprecated version: what to use instead is the newest that isn't deprecated.
fn default_warning(spec: &Value, group: &str, version: &str, kind: &str) -> String {
    let served = spec["versions"].items().iter().filter(|v| v["served"].bool() && !v["deprecated"].bool());
    let newer = served
        .map(|v| v["name"].str())
        .filter(|name| canopus_api::names::compare_versions(name, version).is_gt())
        .max_by(|a, b| canopus_api::names::compare_versions(a, b));
    let warning = format!("{group}/{version} {kind} is deprecated");
    match newer {
        Some(newer) => format!("{warning}; use {group}/{newer} {kind}"),
        None => warning,
    }
}

fn columns(version: &Value) -> Vec<ColumnTexts> {
    let name = ColumnTexts {
        name: "Name".into(),
        kind: "string".into(),
        format: "name".into(),
        description: ColumnOf::NAME.description.into(),
        priority: 0,
    };
    let own = version["additionalPrinterColumns"].items();
    let age = ColumnTexts {
        name: "Age".into(),
        kind: "date".into(),
        format: String::new(),
        description: "Custom resource definition column (in JSONPath format): .metadata.creationTimestamp".into(),
        priority: 0,
    };
    let column = |column: &Value| ColumnTexts {
        name: column["name"].str().into(),
        kind: column["type"].str().into(),
        format: column["format"].str().into(),
        description: match column["description"].str() {
            "" => format!("Custom resource definition column (in JSONPath format): {}", column["jsonPath"].str()),
            said => said.into(),
        },
        priority: i32::try_from(column["priority"].int()).unwrap_or(0),
    };
    let rest: Vec<ColumnTexts> = if own.is_empty() { vec![age] } else { own.iter().map(column).collect() };
    std::iter::once(name).chain(rest).collect()
}

fn lists(texts: &Texts) -> Lists<'_> {
    let mut subresources = Vec::new();
    if texts.scale {
        subresources.push(SubresourceOf::SCALE);
    }
    if texts.status {
        subresources.push(SubresourceOf::status(&texts.group, &texts.version, &texts.kind));
    }
    Lists {
        short_names: texts.short_names.iter().map(String::as_str).collect(),
        categories: texts.categories.iter().map(String::as_str).collect(),
        selectable: texts.selectable.iter().map(String::as_str).collect(),
        subresources,
        columns: texts
            .columns
            .iter()
            .map(|c| ColumnOf {
                name: &c.name,
                kind: &c.kind,
                format: &c.format,
                description: &c.description,
                priority: c.priority,
            })
            .collect(),
    }
}

fn info(listed: &Listed) -> InfoOf<'_> {
    let (texts, lists) = (listed.borrow_owner(), listed.borrow_dependent());
    InfoOf {
        singular: &texts.singular,
        short_names: &lists.short_names,
        categories: &lists.categories,
        namespaced: texts.namespaced,
        verbs: Verb::ALL,
        subresources: &lists.subresources,
        selectable_fields: &lists.selectable,
        generation: true,
        unconditional_update: false,
        storage: (texts.storage_version != texts.version).then_some((
            &texts.group,
            &texts.storage_version,
            &texts.plural,
        )),
        deprecated: &texts.deprecated,
        gate: "",
        ..InfoOf::stored(&texts.group, &texts.version, &texts.kind, &texts.plural)
    }
}
