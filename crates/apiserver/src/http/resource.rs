//! Requests about resources: from verb and subresource to the handler.

use super::encode::{COALESCE, View, include_object};
use super::negotiate::{self, Accept, Encoding, Offer, Shape};
use super::stream::{As, Socket};
use super::{Body, Call, body, connect};
use crate::handlers::Written;
use crate::handlers::decode::{NO_KIND, strictness, unrecognized};
use crate::handlers::write::custom_patches;
use crate::metrics::Events;
use crate::metrics::requests::Key;
use crate::served::Served;
use crate::server::Server;
use canopus_api::api::FieldValidation;
use canopus_api::{FieldSelector, Gvk, ListOptions, Patch, Result, Status, Target, Value, value};
use canopus_resources::Verb;
use canopus_resources::table::IncludeObject;
use futures::StreamExt;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Instant;

pub async fn answer(server: &Arc<Server>, call: Call, mut request: Request<Incoming>) -> Result<Response<Body>> {
    let target = unpinned(&call);
    let served = server.served(&target.gvr)?.clone();
    let _part = super::trace::handler(&call);
    if let Some(connect) = connect::of(&call, &target) {
        return connect::answer(server, &call, &target, connect, request).await;
    }
    allowed(&served, &call, &target, request.method().as_str())?;
    proper_name(&served, &target.name)?;
    if !served.info().deprecated.is_empty() {
        crate::notes::warn(served.info().deprecated);
    }
    let offer = Offer {
        // Custom resources have no messages of their own.
        protobuf: served.schema().table().is_some_and(|ty| !ty.wire.is_empty()),
        cbor: server.cbor,
        // Where requests themselves are the objects (SubjectAccessReview), there are no tables.
        tables: served.info().verbs.contains(&Verb::Get),
        metadata: true,
        watch: call.info.verb == "watch",
    };
    let mut accept = negotiate::accept(&call.headers, &call.query.get("pretty"), offer)?;
    accept.gzip &= server.settings.features.enabled("APIResponseCompression");
    let include = match accept.shape {
        Shape::Table => include_object(&call.query.get("includeObject"))?,
        _ => IncludeObject::default(),
    };
    let view = View { served: &served, accept, include, now: server.surroundings.now() };
    match call.info.verb.as_str() {
        "get" if of_itself(&served, &target.subresource) => {
            Ok(view.object(StatusCode::OK, &*server.get(&target, call.query.get_options()?).await?))
        }
        "get" => Ok(view.object(StatusCode::OK, &*server.get_subresource(&target).await?)),
        "list" => Ok(view.list(server.list(&target, &list_options(&call)?).await?).await),
        "watch" => {
            let mut options = list_options(&call)?;
            if options.timeout_seconds.unwrap_or(0) == 0 {
                options.timeout_seconds = Some(watch_timeout(server));
            }
            let socket = Socket::take_any(&mut request)?;
            let watch = server.watch(&target, &options).await?;
            let watch = watch.take_until(server.closing.clone().cancelled_owned()).boxed();
            let key = super::metric_key(&call.info, false, &call.headers);
            let running = Running::new(server.clone(), key);
            match socket {
                None => Ok(view.watch(watch, COALESCE, server.surroundings.clone(), running)),
                Some(socket) => {
                    let body = view.watch(watch, 1, server.surroundings.clone(), running).into_body();
                    let pieces = match view.accept.encoding {
                        Encoding::Protobuf => As::Unframed,
                        Encoding::Cbor => As::Binary,
                        Encoding::Json | Encoding::Yaml => As::Text,
                    };
                    socket.copy(body, pieces)
                }
            }
        }
        "delete" | "deletecollection" => delete(server, &call, &target, &view, request).await,
        _ => write(server, &call, &target, &view, request).await,
    }
}

/// Whether this is the object itself or a part of it that is read as the whole object (`status`, `approval`).
fn of_itself(served: &Served, subresource: &str) -> bool {
    let info = served.info();
    subresource.is_empty()
        || info.subresource(subresource).is_some_and(|s| s.kind == (info.group, info.version, info.kind))
}

/// A long-running request, counted while it runs and when it ends, however it does.
pub struct Running {
    server: Arc<Server>,
    key: Key,
    since: Instant,
}

impl Running {
    fn new(server: Arc<Server>, key: Key) -> Running {
        server.metrics.requests.running(key.clone(), 1);
        Running { server, key, since: Instant::now() }
    }

    /// Where it counts what it sends.
    pub fn events(&self) -> Arc<Events> {
        let Key { group, version, resource, .. } = &self.key;
        self.server.metrics.events(&canopus_api::Gvr::new(group, version, resource))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let requests = &self.server.metrics.requests;
        requests.running(self.key.clone(), -1);
        requests.done(self.key.clone(), 200, self.since.elapsed(), None);
    }
}

/// The options of a list or watch. The deprecated path of a watch may name one object.
fn list_options(call: &Call) -> Result<ListOptions> {
    let mut options = call.query.list_options()?;
    let name = call.info.target.name.as_str();
    if call.info.watch_path && !name.is_empty() {
        if options.fields.is_everything() {
            options.fields = FieldSelector::equal("metadata.name", name);
        } else if options.fields.required("metadata.name") != Some(name) {
            return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
        }
    }
    Ok(options)
}

/// When a watch ends that does not say when: spread out, so that not all clients come back at once.
fn watch_timeout(server: &Server) -> u32 {
    let least = server.settings.min_request_timeout.as_secs().max(1);
    let spread = server.surroundings.random() % u128::from(least);
    u32::try_from(u128::from(least) + spread).unwrap_or(u32::MAX)
}

/// The target as the path has it: authorization may have put the name of a field selector into it.
fn unpinned(call: &Call) -> Target {
    let mut target = call.info.target.clone();
    if matches!(call.info.verb.as_str(), "list" | "watch" | "deletecollection") {
        target.name = "".into();
    }
    // `/namespaces/x` is a cluster-scoped object, though authorization sees it in its namespace.
    if target.gvr.group.is_empty() && target.gvr.resource == "namespaces" {
        target.namespace = "".into();
    }
    target
}

/// Refuses names that cannot be those of anything stored.
fn proper_name(served: &Served, name: &str) -> Result<()> {
    let why = canopus_api::names::path_segment(name);
    if why.is_empty() || name.is_empty() || !served.info().stored {
        return Ok(());
    }
    Err(Status::bad_request(format!("Name parameter invalid: {name:?}: {}", why.join(";"))))
}

/// Whether there is such a path, and whether it takes the method.
fn allowed(served: &Served, call: &Call, target: &Target, method: &str) -> Result<()> {
    let info = served.info();
    let verb = call.info.verb.as_str();
    if !info.namespaced && !target.namespace.is_empty() {
        return Err(Status::no_such_resource());
    }
    let refused = || match served.schema().table() {
        Some(_) => Status::method_not_allowed(),
        // Custom resources have no routes of their own.
        None => Status::method_not_supported(&target.gvr, verb),
    };
    if call.info.watch_path && !["GET", "HEAD"].contains(&method) {
        return Err(refused());
    }
    let has = |verb: Verb| info.verbs.contains(&verb);
    // Objects of all namespaces can be looked at, and no more.
    if info.namespaced && target.namespace.is_empty() && !matches!(verb, "list" | "watch") {
        let listed = call.info.target.name.is_empty() && has(Verb::List);
        return Err(if listed { refused() } else { Status::no_such_resource() });
    }
    let verbs = match target.subresource.as_str() {
        "" => info.verbs,
        name => info.subresource(name).ok_or_else(Status::no_such_resource)?.verbs,
    };
    let named = matches!(verb, "get" | "update" | "patch" | "delete");
    if !target.name.is_empty() && target.subresource.is_empty() && !has(Verb::Get) {
        return Err(Status::no_such_resource());
    }
    let placed = named != target.name.is_empty() || verb == "create" && !target.subresource.is_empty();
    match placed && verbs.iter().any(|v: &Verb| v.name() == verb) {
        true => Ok(()),
        false => Err(refused()),
    }
}

/// How objects are patched.
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    negotiate::APPLY_YAML,
];

async fn write(
    server: &Arc<Server>,
    call: &Call,
    target: &Target,
    view: &View<'_>,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    let agent = call.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let kind = negotiate::content_type(&call.headers);
    let options_kind = match call.info.verb.as_str() {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        _ => "PatchOptions",
    };
    let options = call.query.write_options(agent, options_kind, negotiate::is_apply(&kind))?;
    let patches = PATCHES.contains(&kind.as_str()) || server.cbor && kind == negotiate::APPLY_CBOR;
    if options_kind == "PatchOptions" && !patches {
        return Err(match view.served.schema().table() {
            Some(_) => Status::unknown_media_type(),
            None => Status::unsupported_media_type(custom_patches(server.cbor)),
        });
    }
    let bytes = body::read(request.into_body(), server.settings.request_timeout).await?;
    let gvk = match target.subresource.as_str() {
        "" => view.served.info().gvk(),
        name => {
            view.served.info().subresource(name).map(|s| Gvk::new(s.kind.0, s.kind.1, s.kind.2)).unwrap_or_default()
        }
    };
    let decoded = negotiate::decode(&bytes, &kind, server.cbor);
    // What a patch is for is looked up before anybody reads the patch.
    let merges = options_kind == "PatchOptions" && !negotiate::is_apply(&kind);
    let decoded = match decoded {
        Err(error) if merges => return Err(missing_or(server, target, error).await),
        decoded => decoded,
    };
    let (tree, mut problems) = decoded.map_err(|error| match (error.code, options_kind) {
        (400, "CreateOptions" | "UpdateOptions") if kind == negotiate::CBOR => {
            unrecognized(&gvk.kind, &error.message, &bytes)
        }
        (400, "CreateOptions" | "UpdateOptions") => {
            // Go doesn't say where it ended.
            let why = error.message.split(" at offset 0").next().unwrap_or_default();
            unrecognized(&gvk.kind, &format!("{NO_KIND}{why}"), &bytes)
        }
        _ => error,
    })?;
    if !problems.is_empty() && options_kind != "PatchOptions" && target.subresource.is_empty() {
        problems = with_unknown(view.served, &tree, problems, options.field_validation);
    }
    crate::audit::request(&tree);
    let mut warnings = match strictness(&gvk, &problems, options.field_validation) {
        Err(error) if merges => return Err(missing_or(server, target, error).await),
        warnings => warnings?,
    };
    let user = &call.user;
    let mut done: Written = match call.info.verb.as_str() {
        "create" => server.post(user, target, tree, &options).await?,
        "update" => server.put_target(user, target, tree, &options).await?,
        "patch" => {
            let patch = match kind.as_str() {
                "application/json-patch+json" => Patch::Json(tree),
                "application/merge-patch+json" => Patch::Merge(tree),
                "application/strategic-merge-patch+json" => Patch::Strategic(tree),
                negotiate::APPLY_YAML | negotiate::APPLY_CBOR => Patch::Apply(tree),
                kind => return Err(Status::unsupported_media_type(kind)),
            };
            server.patch_target(user, target, patch, &options).await?
        }
        verb => return Err(Status::method_not_supported(&target.gvr, verb)),
    };
    warnings.append(&mut done.warnings);
    let code = if done.created { StatusCode::CREATED } else { StatusCode::OK };
    // Scales, tokens and reviews have no table of their own.
    let plain = !target.subresource.is_empty() && target.subresource != "status";
    let accept = if plain { Accept { shape: Shape::Plain, ..view.accept } } else { view.accept };
    let view = View { served: view.served, accept, include: view.include, now: view.now };
    let mut response = view.object(code, &done.object);
    warn(&mut response, &warnings);
    Ok(response)
}

/// That there is no such object, if there is none; else `error`.
async fn missing_or(server: &Arc<Server>, target: &Target, error: Status) -> Status {
    match server.get(&Target::new(&target.gvr, &target.namespace, &target.name), None).await {
        Err(missing) if missing.is_not_found() => missing,
        _ => error,
    }
}

/// What a strict reader refuses is told all at once: what the parser found together with the unknown fields.
fn with_unknown(served: &Served, tree: &Value, problems: Vec<String>, validation: FieldValidation) -> Vec<String> {
    if validation != FieldValidation::Strict {
        return problems;
    }
    let mut unknown = canopus_api::schema::decode(served.schema(), &mut tree.clone()).unwrap_or_default();
    unknown.extend(problems);
    unknown
}

/// `Warning: 299 - "text"` (RFC 7234).
pub(super) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for text in warnings.iter().take(100) {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// Resources whose deletion answers what was deleted, as upstream; others answer only that it was.
pub(crate) const RETURNED: &[(&str, &str)] = &[
    ("", "namespaces"),
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "devicetaintrules"),
    ("resource.k8s.io", "resourceclaims"),
    ("resource.k8s.io", "resourceclaimtemplates"),
    ("resource.k8s.io", "resourceslices"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "volumeattributesclasses"),
];

async fn delete(
    server: &Arc<Server>,
    call: &Call,
    target: &Target,
    view: &View<'_>,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    let kind = negotiate::content_type(&call.headers);
    let bytes = body::read(request.into_body(), server.settings.request_timeout).await?;
    let sent = if bytes.is_empty() { Value::Null } else { negotiate::decode(&bytes, &kind, server.cbor)?.0 };
    let options = call.query.delete_options(&sent)?;
    let warning = view.served.resource.deletion_warning();
    if options.propagation_policy.is_none() && !warning.is_empty() {
        crate::notes::warn(warning);
    }
    if call.info.verb == "deletecollection" {
        let list = server.delete_collection(&call.user, target, &call.query.list_options()?, &options).await?;
        let accept = Accept { shape: Shape::Plain, ..view.accept };
        let view = View { served: view.served, accept, include: view.include, now: view.now };
        let revision = server.store.revision();
        return Ok(view.list(canopus_api::List { revision, items: list, ..Default::default() }).await);
    }
    let done = server.delete(&call.user, target, &options).await?;
    let by_old_option = sent["orphanDependents"].as_bool() == Some(false);
    let code = if !done.gone && by_old_option { StatusCode::ACCEPTED } else { StatusCode::OK };
    if !done.gone || RETURNED.contains(&(view.served.info().group, view.served.info().plural)) {
        return Ok(view.object(code, &done.object));
    }
    let details = value!({
        "name": target.name.clone(), "group": target.gvr.group.clone(), "kind": target.gvr.resource.clone(),
        "uid": done.object.facts.uid.clone(),
    });
    let mut details = details;
    if target.gvr.group.is_empty() {
        details.remove("group");
    }
    let status =
        value!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Ok(negotiate::respond(Accept { shape: Shape::Plain, ..view.accept }, StatusCode::OK, &status))
}
