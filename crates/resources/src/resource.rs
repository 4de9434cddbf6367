//! The trait every API resource implements: upstream's registry strategy, as data plus a few pure functions.

use canopus_api::schema::Structural;
use canopus_api::{Errors, Facts, Field, Gvk, Gvr, Quantity, Time, Value};
use compact_str::CompactString;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    /// Everything a stored resource can do, in discovery's order.
    pub const ALL: &'static [Verb] = &[
        Verb::Create,
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ];
    pub const STATUS: &'static [Verb] = &[Verb::Get, Verb::Patch, Verb::Update];
    pub const CREATE: &'static [Verb] = &[Verb::Create];

    pub fn name(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        }
    }
}

/// What a resource is called and what it can do: the source of routes, discovery and OpenAPI.
///
/// Those of built-in resources are statics ([`Info`]); a custom resource owns its names.
pub struct InfoOf<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    pub plural: &'a str,
    pub singular: &'a str,
    pub short_names: &'a [&'a str],
    pub categories: &'a [&'a str],
    pub namespaced: bool,
    /// False for requests in the form of objects (SubjectAccessReview), which are answered and forgotten.
    pub stored: bool,
    pub verbs: &'a [Verb],
    pub subresources: &'a [SubresourceOf<'a>],
    /// Field selectors besides metadata.name and metadata.namespace: dotted paths into the object.
    pub selectable_fields: &'a [&'a str],
    /// Why a name is bad; nothing when it is good.
    pub name: fn(&str) -> Vec<String>,
    /// Whether changes of anything but metadata and status raise metadata.generation.
    pub generation: bool,
    /// An unconditional update (without resourceVersion) is allowed.
    pub unconditional_update: bool,
    /// PUT creates the object when it does not exist.
    pub create_on_update: bool,
    /// (group, version, plural) of the resource under which and in whose form the objects are stored; None: its own.
    pub storage: Option<(&'a str, &'a str, &'a str)>,
    /// The warning that every request for a deprecated resource gets; "" for one that isn't.
    pub deprecated: &'a str,
    /// The feature without which it is not served; "" for none.
    pub gate: &'a str,
}

/// The facts of a built-in resource.
pub type Info = InfoOf<'static>;

impl<'a> InfoOf<'a> {
    /// A stored, namespaced resource named like a DNS subdomain, with all verbs and no subresources.
    pub const fn stored(group: &'a str, version: &'a str, kind: &'a str, plural: &'a str) -> InfoOf<'a> {
        InfoOf {
            group,
            version,
            kind,
            plural,
            singular: "",
            short_names: &[],
            categories: &[],
            namespaced: true,
            stored: true,
            verbs: Verb::ALL,
            subresources: &[],
            selectable_fields: &[],
            name: canopus_api::names::dns1123_subdomain,
            generation: false,
            unconditional_update: true,
            create_on_update: false,
            storage: None,
            deprecated: "",
            gate: "",
        }
    }

    pub fn gvr(&self) -> Gvr {
        Gvr::new(self.group, self.version, self.plural)
    }
    pub fn gvk(&self) -> Gvk {
        Gvk::new(self.group, self.version, self.kind)
    }
    pub fn subresource(&self, name: &str) -> Option<&SubresourceOf<'a>> {
        self.subresources.iter().find(|s| s.name == name)
    }
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }
}

/// `pods/log`, `deployments/scale`.
pub struct SubresourceOf<'a> {
    pub name: &'a str,
    /// (group, version, kind) of what it takes and gives.
    pub kind: (&'a str, &'a str, &'a str),
    pub verbs: &'a [Verb],
}

/// A subresource of a built-in resource.
pub type Subresource = SubresourceOf<'static>;

impl<'a> SubresourceOf<'a> {
    /// The status subresource of a kind.
    pub const fn status(group: &'a str, version: &'a str, kind: &'a str) -> SubresourceOf<'a> {
        SubresourceOf { name: "status", kind: (group, version, kind), verbs: Verb::STATUS }
    }
    /// `autoscaling/v1 Scale`.
    pub const SCALE: Subresource =
        SubresourceOf { name: "scale", kind: ("autoscaling", "v1", "Scale"), verbs: Verb::STATUS };
}

/// What a strategy may know besides the object.
pub struct Context<'a> {
    pub now: Time,
    /// "" for the object itself, else "status", "ephemeralcontainers", …
    pub subresource: &'a str,
    pub user: &'a str,
    pub requester: Requester<'a>,
}

/// What is known of the user besides the name (upstream `user.Info`).
#[derive(Clone, Copy, Default)]
pub struct Requester<'a> {
    pub uid: &'a str,
    pub groups: &'a [CompactString],
    pub extra: &'a [(CompactString, Vec<CompactString>)],
}

/// A column of the Table that `kubectl get` prints. Columns with priority 1 show with `-o wide`.
pub struct ColumnOf<'a> {
    pub name: &'a str,
    /// "string", "integer", "date", "boolean".
    pub kind: &'a str,
    /// "name" for the name column, else "".
    pub format: &'a str,
    pub description: &'a str,
    pub priority: i32,
}

/// A column of a built-in resource.
pub type Column = ColumnOf<'static>;

impl<'a> ColumnOf<'a> {
    pub const NAME: Column = Column {
        name: "Name",
        kind: "string",
        format: "name",
        description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
        priority: 0,
    };
    pub const AGE: Column = Column {
        name: "Age",
        kind: "string",
        format: "",
        description: "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
        priority: 0,
    };

    pub const fn new(name: &'a str, kind: &'a str, description: &'a str) -> ColumnOf<'a> {
        ColumnOf { name, kind, format: "", description, priority: 0 }
    }
    pub const fn wide(name: &'a str, kind: &'a str, description: &'a str) -> ColumnOf<'a> {
        ColumnOf { name, kind, format: "", description, priority: 1 }
    }
}

/// One API resource. The defaults suit a plain object without status.
pub trait Resource: Sync + Send {
    fn info(&self) -> &InfoOf<'_>;

    /// The structural schema of a custom resource.
    fn structural(&self) -> Option<&Structural> {
        None
    }

    /// What OpenAPI says about a custom resource: definitions by name.
    fn definitions(&self) -> Vec<(String, Value)> {
        Vec::new()
    }

    /// Fills in upstream's defaults. Runs on everything a client sends and must be idempotent.
    fn default(&self, _object: &mut Value) {}

    /// Whether [`Self::default`] neither looks at nor changes anything but the spec, so that it can be spared when the
    /// spec is as it was. Of importance for what is written often.
    fn defaults_spec_only(&self) -> bool {
        false
    }

    /// Before validation of a new object: drops what clients may not set (status), fills what the server sets.
    /// metadata (uid, creationTimestamp, generation 1) is the caller's work.
    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        if self.info().has_status() {
            object.remove("status");
        }
    }

    /// Before validation of an update: puts back what this (sub)resource may not change. The usual: the object itself keeps
    /// its old status; `status` keeps everything of old but status and metadata.
    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if !self.info().has_status() {
            return;
        }
        if cx.subresource == "status" {
            crate::strategy::only_status(new, old, &[]);
        } else {
            crate::strategy::keep(new, old, "status");
        }
    }

    /// Whether changing `old` to `new` raises metadata.generation, for kinds with [`Info::generation`].
    /// The usual: anything but metadata and status has changed.
    fn raises_generation(&self, new: &Value, old: &Value) -> bool {
        let counts = |field: &str| !matches!(field, "metadata" | "status" | "apiVersion" | "kind");
        let differs = |field: &str| !crate::semantic::equal(new.at(field), old.at(field));
        new.entries().chain(old.entries()).any(|(field, _)| counts(field) && differs(field))
    }

    /// All that is wrong with a new object, beyond what the schema and metadata rules say.
    fn validate(&self, _object: &Field, _errors: &mut Errors) {}

    /// All that is wrong with changing `old` to `new` through `cx.subresource`. Includes what [`Self::validate`] finds.
    fn validate_update(&self, new: &Field, _old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource.is_empty() {
            self.validate(new, errors);
        }
    }

    /// Turns an object as it is stored, in [`Info::storage`]'s version, into this resource's. Everything else here is about
    /// the latter. Nothing to do for a resource that is stored as itself.
    fn convert_from_storage(&self, _object: &mut Value) {}

    /// The way back. A round trip keeps everything.
    fn convert_to_storage(&self, _object: &mut Value) {}

    /// The name by which the stored resource knows a selectable field of this one.
    fn field_in_storage<'a>(&self, name: &'a str) -> &'a str {
        name
    }

    /// The facts of a stored object. Overridden where a selectable field isn't what its path says.
    fn facts(&self, object: &Value) -> Facts {
        Facts::extract(object, self.info().selectable_fields)
    }

    /// Warning headers for a write.
    fn warnings(&self, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    fn columns(&self) -> &[ColumnOf<'_>] {
        const {
            &[
                Column::NAME,
                Column {
                    name: "Created At",
                    kind: "date",
                    format: "",
                    description: Column::AGE.description,
                    priority: 0,
                },
            ]
        }
    }

    /// One cell for each of [`Self::columns`].
    fn row(&self, object: &Value, _now: Time) -> Vec<Value> {
        vec![object["metadata"]["name"].clone(), object["metadata"]["creationTimestamp"].clone()]
    }

    /// The object's Scale, for kinds with that subresource.
    fn scale(&self, object: &Value) -> Value {
        crate::apps::workload::to_scale(object)
    }

    /// The steps to the wanted count of replicas.
    fn scale_path(&self) -> Vec<String> {
        vec!["spec".into(), "replicas".into()]
    }

    /// Sets the wanted count of replicas.
    fn apply_scale(&self, object: &mut Value, scale: &Value) {
        crate::apps::workload::apply_scale(object, scale);
    }

    /// What is done to an object when its deletion begins, besides what is done to all.
    fn before_delete(&self, _object: &mut Value, _now: Time) {}

    /// For kinds that die gracefully (Pods): the seconds of grace a deletion gets. None: gone at once.
    fn grace_seconds(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether a deletion that says nothing about dependents leaves them behind, as in the oldest API versions.
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// What to say to those who delete without saying what is to become of dependents.
    fn deletion_warning(&self) -> &'static str {
        ""
    }

    /// The finalizer-like gate of Namespaces: whether a deletion only marks the object until its controller is done.
    fn finalizing(&self, _object: &Value) -> bool {
        false
    }
}

/// The facts of a kind that can be selected by `name` as well as by `metadata.name`: a slip of upstream's that stays.
pub fn facts_with_name(object: &Value, fields: &[&'static str]) -> Facts {
    let mut facts = Facts::extract(object, fields);
    if let Some((_, value)) = facts.fields.iter_mut().find(|(field, _)| *field == "name") {
        *value = facts.name.clone();
    }
    facts
}

/// An `AGE` cell: how long ago, in kubectl's short form.
pub fn age(object: &Value, now: Time) -> Value {
    since(object["metadata"]["creationTimestamp"].str(), now)
}

/// How long before `now` the time `text` was; `<unknown>` when it is no time.
pub fn since(text: &str, now: Time) -> Value {
    match Time::parse(text) {
        Some(then) => canopus_api::time::human_duration(now.since(then)).into(),
        None => "<unknown>".into(),
    }
}

/// The canonical text of a quantity; `0` when there is none.
pub fn quantity_text(value: &Value) -> String {
    Quantity::from_value(value).unwrap_or_default().to_string()
}

/// A map of labels as a cell, or `<none>`.
pub fn labels_cell(labels: &Value) -> Value {
    let pairs: Vec<String> = labels.entries().map(|(key, value)| format!("{key}={}", value.str())).collect();
    joined(pairs.iter().map(String::as_str))
}

/// The object's name as a cell.
pub fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

/// Strings joined for a cell; `<none>` for none.
pub fn joined<'a>(items: impl IntoIterator<Item = &'a str>) -> Value {
    let text = items.into_iter().collect::<Vec<_>>().join(",");
    if text.is_empty() { "<none>".into() } else { CompactString::from(text).into() }
}
