//! What can be asked of resources: paths and operations, as both versions of OpenAPI tell them.

use super::parameters::{self, Parameter};
use canopus_resources::{InfoOf, SubresourceOf, Verb};

pub struct PathItem<'a> {
    pub path: String,
    pub parameters: Vec<&'static Parameter>,
    /// Whose name `{name}` is.
    pub named: &'a str,
    pub operations: Vec<Operation<'a>>,
}

/// Group, version and kind.
pub type Kind<'a> = (&'a str, &'a str, &'a str);

pub struct Operation<'a> {
    pub method: &'static str,
    pub action: &'static str,
    pub id: String,
    pub description: String,
    pub parameters: Vec<&'static Parameter>,
    /// What is sent: its definition, and whether it has to be there.
    pub body: Option<(String, bool)>,
    /// What is answered, by code: a definition, or None for text.
    pub answers: Vec<(u16, &'static str)>,
    pub answer: Option<String>,
    /// Whether it can be a stream.
    pub streams: bool,
    pub kind: Kind<'a>,
}

/// The definition of a kind: upstream's name for it, or for a custom resource its group backwards.
pub fn definition((group, version, kind): Kind) -> String {
    match canopus_schema::kind(group, version, kind) {
        Some(ty) => ty.get().name.to_string(),
        None => {
            let mut parts: Vec<&str> = group.split('.').rev().collect();
            parts.extend([version, kind]);
            parts.join(".")
        }
    }
}

pub fn meta(name: &str) -> String {
    format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}")
}

/// `RbacAuthorization` of `rbac.authorization.k8s.io`; `Core` of the core group.
fn group_words(group: &str) -> Vec<String> {
    let group = if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) };
    group.split(['.', '-']).map(capital).collect()
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

/// `rbacAuthorization_v1`, under which generated clients file operations.
pub fn tag(group: &str, version: &str) -> String {
    let words = group_words(group);
    let mut tag = words.concat();
    if let Some(first) = tag.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    format!("{tag}_{version}")
}

/// Which operations a deletion answers with the object.
type Returns<'a> = &'a dyn Fn(&InfoOf) -> bool;

/// All paths of a resource.
pub fn of<'a>(info: &'a InfoOf<'a>, returns_deleted: Returns) -> Vec<PathItem<'a>> {
    let base = match info.group {
        "" => format!("/api/{}", info.version),
        group => format!("/apis/{group}/{}", info.version),
    };
    let scope = if info.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{base}{scope}/{}", info.plural);
    let one = format!("{collection}/{{name}}");
    let maker = Maker { info, returns_deleted };
    let mut items = vec![
        maker.item(&collection, &[], &[Verb::DeleteCollection, Verb::List, Verb::Create], None),
        maker.item(&one, &["name"], &[Verb::Delete, Verb::Get, Verb::Patch, Verb::Update], None),
    ];
    items.extend(info.subresources.iter().map(|sub| {
        let verbs = [Verb::Get, Verb::Create, Verb::Patch, Verb::Update];
        maker.item(&format!("{one}/{}", sub.name), &["name"], &verbs, Some(sub))
    }));
    if info.verbs.contains(&Verb::List) && info.namespaced {
        items.push(maker.everywhere(format!("{base}/{}", info.plural), "list"));
    }
    if info.verbs.contains(&Verb::Watch) {
        if info.namespaced {
            items.push(maker.everywhere(format!("{base}/watch/{}", info.plural), "watchlist"));
        }
        let collection = format!("{base}/watch{scope}/{}", info.plural);
        items.push(maker.watch(format!("{collection}/{{name}}"), "watch"));
        items.push(maker.watch(collection, "watchlist"));
    }
    items.retain(|item| !item.operations.is_empty());
    items
}

/// Subresources through which clients talk to something else.
const CONNECTIONS: &[(&str, &str, &str)] = &[
    ("pods", "attach", "PodAttachOptions"),
    ("pods", "exec", "PodExecOptions"),
    ("pods", "portforward", "PodPortForwardOptions"),
    ("pods", "proxy", "PodProxyOptions"),
    ("services", "proxy", "ServiceProxyOptions"),
    ("nodes", "proxy", "NodeProxyOptions"),
];

struct Maker<'a, 'r> {
    info: &'a InfoOf<'a>,
    returns_deleted: Returns<'r>,
}

impl<'a> Maker<'a, '_> {
    fn item(&self, path: &str, own: &[&str], verbs: &[Verb], sub: Option<&'a SubresourceOf<'a>>) -> PathItem<'a> {
        let served = sub.map_or(self.info.verbs, |sub| sub.verbs);
        let connection = sub.and_then(|sub| {
            let found = CONNECTIONS.iter().find(|(plural, name, _)| (*plural, *name) == (self.info.plural, sub.name));
            found.filter(|_| self.info.group.is_empty()).map(|(_, _, kind)| (sub, *kind))
        });
        let operations = match connection {
            Some((sub, kind)) => {
                let methods: &[&str] = match sub.name {
                    "proxy" => &["delete", "get", "head", "options", "patch", "post", "put"],
                    _ => &["get", "post"],
                };
                methods.iter().map(|method| self.connect(method, sub.name, kind)).collect()
            }
            None => verbs.iter().filter(|verb| served.contains(verb)).map(|verb| self.operation(*verb, sub)).collect(),
        };
        PathItem {
            path: path.to_string(),
            parameters: self.path_parameters(own, connection.is_none()),
            named: connection.map_or(self.info.kind, |(_, kind)| kind),
            operations,
        }
    }

    fn path_parameters(&self, own: &[&str], pretty: bool) -> Vec<&'static Parameter> {
        let mut names = own.to_vec();
        if self.info.namespaced {
            names.push("namespace");
        }
        if pretty {
            names.push("pretty");
        }
        parameters::named(&names)
    }

    /// A list or watch in all namespaces.
    fn everywhere(&self, path: String, action: &'static str) -> PathItem<'a> {
        let mut operation = match action {
            "list" => self.operation(Verb::List, None),
            _ => self.watch_operation(action),
        };
        operation.id = operation.id.replace("Namespaced", "") + "ForAllNamespaces";
        let mut parameters = std::mem::take(&mut operation.parameters);
        parameters.extend(parameters::named(&["pretty"]));
        parameters.sort_by_key(|parameter| parameter.name);
        PathItem { path, parameters, named: self.info.kind, operations: vec![operation] }
    }

    fn watch(&self, path: String, action: &'static str) -> PathItem<'a> {
        let mut operation = self.watch_operation(action);
        let mut parameters = std::mem::take(&mut operation.parameters);
        parameters.extend(self.path_parameters(if action == "watch" { &["name"] } else { &[] }, true));
        parameters.sort_by_key(|parameter| parameter.name);
        PathItem { path, parameters, named: self.info.kind, operations: vec![operation] }
    }

    /// `readAppsV1NamespacedDeploymentScale`
    fn id(&self, verb: &str, sub: &str) -> String {
        let InfoOf { group, version, kind, namespaced, .. } = self.info;
        let scope = if *namespaced { "Namespaced" } else { "" };
        let sub: String = sub.split('/').map(capital).collect();
        format!("{verb}{}{}{scope}{kind}{sub}", group_words(group).concat(), capital(version))
    }

    fn watch_operation(&self, action: &'static str) -> Operation<'a> {
        let info = self.info;
        let (what, id) = match action {
            "watch" => ("changes to an object", self.id("watch", "")),
            _ => ("individual changes to a list", self.id("watch", "") + "List"),
        };
        Operation {
            method: "get",
            action,
            id,
            description: format!(
                "watch {what} of {}. deprecated: use the 'watch' parameter with a list operation instead.",
                info.kind
            ),
            parameters: parameters::named(parameters::WATCH),
            body: None,
            answers: vec![(200, "OK")],
            answer: Some(meta("WatchEvent")),
            streams: true,
            kind: (info.group, info.version, info.kind),
        }
    }

    fn connect(&self, method: &&'static str, sub: &str, kind: &'static str) -> Operation<'a> {
        let verb = method.to_ascii_uppercase();
        let id = self.id("connect", sub);
        // The method comes behind the version: connectCoreV1GetNamespacedPodExec.
        let prefix = format!("connect{}{}", group_words(self.info.group).concat(), capital(self.info.version));
        let id = format!("{prefix}{}{}", capital(method), id.strip_prefix(&prefix).unwrap_or_default());
        Operation {
            method,
            action: "connect",
            id,
            description: format!("connect {verb} requests to {sub} of {}", self.info.kind),
            parameters: Vec::new(),
            body: None,
            answers: vec![(200, "OK")],
            answer: None,
            streams: false,
            kind: ("", "v1", kind),
        }
    }

    fn operation(&self, verb: Verb, sub: Option<&'a SubresourceOf<'a>>) -> Operation<'a> {
        let info = self.info;
        let kind = sub.map_or((info.group, info.version, info.kind), |sub| sub.kind);
        let name = sub.map_or("", |sub| sub.name);
        let of = match name {
            "" => format!("the specified {}", info.kind),
            name => format!("{name} of the specified {}", info.kind),
        };
        let text = name == "log";
        let object = || (!text).then(|| definition(kind));
        const OK: (u16, &str) = (200, "OK");
        const CREATED: (u16, &str) = (201, "Created");
        const ACCEPTED: (u16, &str) = (202, "Accepted");
        let (method, action, id, description, parameters, body, answers, answer): (_, _, _, _, &[&str], _, _, _) =
            match verb {
                Verb::Create => {
                    let of =
                        if name.is_empty() { format!("a {}", info.kind) } else { format!("{name} of a {}", info.kind) };
                    let body = Some((definition(kind), true));
                    let answers = vec![OK, CREATED, ACCEPTED];
                    (
                        "post",
                        "post",
                        self.id("create", name),
                        format!("create {of}"),
                        parameters::WRITE,
                        body,
                        answers,
                        object(),
                    )
                }
                Verb::Get => {
                    let parameters = if text { parameters::LOG } else { &[] };
                    ("get", "get", self.id("read", name), format!("read {of}"), parameters, None, vec![OK], object())
                }
                Verb::Update => {
                    let body = Some((definition(kind), true));
                    let description = format!("replace {of}");
                    let answers = vec![OK, CREATED];
                    ("put", "put", self.id("replace", name), description, parameters::WRITE, body, answers, object())
                }
                Verb::Patch => {
                    let body = Some((meta("Patch"), true));
                    let description = format!("partially update {of}");
                    let answers = vec![OK, CREATED];
                    ("patch", "patch", self.id("patch", name), description, parameters::PATCH, body, answers, object())
                }
                Verb::Delete => {
                    let body = Some((meta("DeleteOptions"), false));
                    let answer = if (self.returns_deleted)(info) { object() } else { Some(meta("Status")) };
                    let description = format!("delete a {}", info.kind);
                    let answers = vec![OK, ACCEPTED];
                    ("delete", "delete", self.id("delete", ""), description, parameters::DELETE, body, answers, answer)
                }
                Verb::DeleteCollection => {
                    let body = Some((meta("DeleteOptions"), false));
                    let id = match self.id("delete", "") {
                        id if info.namespaced => id.replacen("Namespaced", "CollectionNamespaced", 1),
                        id => id.strip_suffix(info.kind).unwrap_or_default().to_string() + "Collection" + info.kind,
                    };
                    let description = format!("delete collection of {}", info.kind);
                    let status = Some(meta("Status"));
                    ("delete", "deletecollection", id, description, parameters::DELETE_MANY, body, vec![OK], status)
                }
                Verb::List | Verb::Watch => {
                    let list = format!("{}List", info.kind);
                    let answer = Some(definition((info.group, info.version, &list)));
                    let description = format!("list or watch objects of kind {}", info.kind);
                    ("get", "list", self.id("list", ""), description, parameters::LIST, None, vec![OK], answer)
                }
            };
        let parameters = parameters::named(parameters);
        // Logs are read as of their pod.
        let kind = if text { (info.group, info.version, info.kind) } else { kind };
        let streams = action == "list";
        Operation { method, action, id, description, parameters, body, answers, answer, streams, kind }
    }
}
