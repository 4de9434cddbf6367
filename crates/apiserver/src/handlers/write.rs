//! create, update and patch: decode → default → prepare → admit → own fields → validate → commit.

use super::Written;
use super::decode::{apart, decode_as, decode_patched, same_name, same_namespace, same_spec};
use super::owners;
use super::reset::reset_fields;
use super::versions::Across;
use crate::admission::{Operation, Options, Request};
use crate::authz::Attributes;
use crate::fresh::Fresh;
use crate::served::Served;
use crate::server::{EVENT_TTL, Server};
use crate::surroundings::{name_suffix, uuid};
use crate::user::User;
use canopus_api::managed::{FieldManager, OneVersion, Versions, keep_times_if_unchanged};
use canopus_api::{
    Errors, Field, Gvk, Object, Patch, Result, Status, Target, Value, WriteOptions, names, patch, schema,
};
use canopus_resources::{Context, metadata};
use canopus_store::{Change, Expect};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How often a write that raced is tried again before the client is told.
const RETRIES: usize = 5;
/// How many generated names are tried.
const NAMES: usize = 8;

/// The patches that custom resources understand.
pub(crate) fn custom_patches(cbor: bool) -> &'static str {
    if cbor {
        "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, \
         application/apply-patch+cbor"
    } else {
        "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    }
}

impl Server {
    pub async fn create(
        &self,
        user: &User,
        target: &Target,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<Written> {
        let served = self.served(&target.gvr)?.clone();
        if served.terminating.load(Ordering::Acquire) {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Status::new(405, "MethodNotAllowed", why));
        }
        let mut warnings = self.decode(&served, &mut body, options)?;
        self.place(&served, target, &mut body)?;
        if !body["metadata"]["name"].str().is_empty() {
            return self.create_once(user, &served, target, body, options, &mut warnings, Ownership::Update).await;
        }
        for attempt in 1.. {
            match self.create_once(user, &served, target, body.clone(), options, &mut warnings, Ownership::Update).await
            {
                // A generated name was taken: roll the dice again.
                Err(taken) if taken.is_already_exists() && attempt < NAMES => {}
                done => return done,
            }
        }
        unreachable!("the loop only ends by returning")
    }

    /// What to say about a name that is taken.
    async fn taken(&self, served: &Served, target: &Target, object: (&str, bool), mut taken: Status) -> Status {
        let (name, generated) = object;
        if generated {
            let resource = served.info().gvr().group_resource();
            taken.message = format!(
                "{resource} {name:?} already exists, the server was not able to generate a unique name for the object"
            );
            taken = taken.with_retry_after(1);
        }
        let there = self.current(served, &target.namespace, name).await;
        if there.is_ok_and(|object| object.is_some_and(|o| o.facts.deleting)) {
            taken.message = format!("object is being deleted: {}", taken.message);
        }
        taken
    }

    #[expect(clippy::too_many_arguments, reason = "one step of a pipeline whose parts are independent")]
    async fn create_once(
        &self,
        user: &User,
        served: &Arc<Served>,
        target: &Target,
        body: Value,
        options: &WriteOptions,
        warnings: &mut Vec<String>,
        ownership: Ownership,
    ) -> Result<Written> {
        let now = self.surroundings.now();
        let info = served.info();
        let given = body["metadata"]["name"].str().to_string();
        let generated = !body["metadata"]["generateName"].is_empty();
        let mut request = Request {
            operation: Operation::Create,
            resource: info,
            subresource: "",
            namespace: &target.namespace,
            name: &given,
            object: body,
            old: &Value::Null,
            user,
            dry_run: options.dry_run,
            options: Options::Write(options),
            reinvocation: Default::default(),
        };
        if ownership == Ownership::Update {
            // Nobody owns what the server adds of its own accord, or an admission plugin: addresses, finalizers,
            // generated selectors, volumes of tokens.
            schema::complete(served.schema(), &mut request.object);
            self.own(served, None, &mut request.object, "", options).await?;
        }
        let gates = self.gates.get()?;
        gates.admission.admit(&mut request).await?;
        self.stamp(served, &mut request.object)?;
        let name = request.object["metadata"]["name"].str().to_string();
        request.name = &name;
        served.resource.default(&mut request.object);
        let cx = Context { now, subresource: "", user: &user.name, requester: user.requester() };
        served.disabled.drop(&mut request.object, &Value::Null);
        served.resource.prepare_create(&mut request.object, &cx);
        let reserved = self.reserve(served, &mut request.object, None, options.dry_run).await?;
        let finish = async {
            schema::complete(served.schema(), &mut request.object);
            validate_new(served, &request.object)?;
            gates.admission.validate(&request).await?;
            warnings.extend(served.resource.warnings(&request.object, None));
            let value = std::mem::take(&mut request.object);
            self.put(served, value, None, Expect::Absent, options.dry_run).await
        };
        let object = match finish.await {
            Ok(object) => object,
            Err(error) => {
                self.release(reserved).await;
                if error.is_already_exists() {
                    return Err(self.taken(served, target, (&name, generated), error).await);
                }
                return Err(error);
            }
        };
        Ok(Written { object, created: true, warnings: std::mem::take(warnings) })
    }

    /// Checks the body against the schema, drops what is unknown and fills in defaults. Answers warnings.
    pub(crate) fn decode(&self, served: &Served, body: &mut Value, options: &WriteOptions) -> Result<Vec<String>> {
        let mut warnings = decode_as(&served.info().gvk(), served.schema(), body, options)?;
        warnings.extend(owners::dedup(body, false));
        default(served, None, body);
        Ok(warnings)
    }

    /// Puts the object where the URL says; refuses one that says otherwise.
    fn place(&self, served: &Served, target: &Target, body: &mut Value) -> Result<()> {
        let meta = body.obj_mut("metadata");
        let said = meta.get("namespace").map(Value::str).unwrap_or("").to_string();
        if served.info().namespaced {
            if target.namespace.is_empty() {
                return Err(Status::bad_request("an empty namespace may not be set during creation"));
            }
            if !said.is_empty() && said != target.namespace {
                let message = "the namespace of the provided object does not match the namespace sent on the request";
                return Err(Status::bad_request(message));
            }
            meta.insert("namespace", &target.namespace);
        } else {
            meta.remove("namespace");
        }
        let name = meta.get("name").map(Value::str).unwrap_or("");
        if !target.name.is_empty() && !name.is_empty() && name != target.name {
            let message =
                format!("the name of the object ({name}) does not match the name on the URL ({})", target.name);
            return Err(Status::bad_request(message));
        }
        if name.is_empty() && !target.name.is_empty() {
            meta.insert("name", &target.name);
        }
        let given = |key: &str| meta.get(key).is_some_and(|v| !v.str().is_empty());
        if given("resourceVersion") && meta.get("resourceVersion").is_some_and(|v| v.str() != "0") {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        Ok(())
    }

    /// What the server alone says about a new object.
    fn stamp(&self, served: &Served, body: &mut Value) -> Result<()> {
        let random = self.surroundings.random();
        let meta = body.obj_mut("metadata");
        let generated = meta.get("generateName").map(Value::str).unwrap_or("").to_string();
        if !generated.is_empty() && meta.get("name").is_none_or(|n| n.str().is_empty()) {
            let cut = generated.len().min(names::MAX_GENERATE_NAME);
            let base = generated.get(..cut).unwrap_or("");
            meta.insert("name", format!("{base}{}", name_suffix(random >> 64)));
        }
        for server_owned in
            ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion", "generation"]
        {
            meta.remove(server_owned);
        }
        meta.insert("uid", uuid(random));
        meta.insert("creationTimestamp", self.surroundings.now());
        if served.info().generation {
            meta.insert("generation", 1);
        }
        Ok(())
    }

    /// Works out who owns which field.
    pub(crate) async fn own(
        &self,
        served: &Served,
        old: Option<&Value>,
        new: &mut Value,
        subresource: &str,
        options: &WriteOptions,
    ) -> Result<()> {
        let api_version = served.info().gvk().api_version();
        let update = |versions: &dyn Versions, new: &mut Value| {
            self.field_manager(served, &api_version, subresource, options, versions).update(old, new);
        };
        match old {
            // Nobody owns anything yet.
            None => update(&OneVersion, new),
            Some(_) if !served.asks_webhook() => update(&Across::from(self, served), new),
            Some(_) => {
                let trial = |versions: &Across| {
                    let mut trial = new.clone();
                    update(versions, &mut trial);
                    trial
                };
                *new = Across::from(self, served).settle(trial).await?;
            }
        }
        Ok(())
    }

    fn field_manager<'a>(
        &self,
        served: &'a Served,
        api_version: &'a str,
        subresource: &'a str,
        options: &'a WriteOptions,
        versions: &'a dyn Versions,
    ) -> FieldManager<'a> {
        FieldManager {
            ty: served.schema(),
            api_version,
            manager: &options.field_manager,
            subresource,
            reset: reset_fields(served.info(), served.schema().table().is_none(), subresource),
            versions,
            now: self.surroundings.now(),
        }
    }

    pub async fn update(
        &self,
        user: &User,
        target: &Target,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<Written> {
        let served = self.served(&target.gvr)?.clone();
        let warnings = self.decode(&served, &mut body, options)?;
        if served.info().namespaced {
            same_namespace(&target.namespace, &body)?;
        }
        same_name(&target.name, &body)?;
        let conditional = body["metadata"]["resourceVersion"].str().to_string();
        for attempt in 0.. {
            let Some(old) = self.current(&served, &target.namespace, &target.name).await? else {
                if served.info().create_on_update && target.subresource.is_empty() && conditional.is_empty() {
                    self.authorize(&Attributes::target(user, "create", target)).await?;
                    return self.create(user, target, body, options).await;
                }
                return Err(Status::not_found(&target.gvr, &target.name));
            };
            // Only what will not be tried again can be given away.
            let last = !conditional.is_empty() || attempt == RETRIES;
            let body = if last { std::mem::take(&mut body) } else { body.clone() };
            let done = self.replace(user, &served, target, &old, body, options, Ownership::Update).await;
            match done {
                Err(raced) if raced.is_conflict() && conditional.is_empty() && attempt < RETRIES => {}
                Err(error) => return Err(error),
                Ok(mut written) => {
                    written.warnings.splice(0..0, warnings);
                    return Ok(written);
                }
            }
        }
        unreachable!("the loop only ends by returning")
    }

    pub async fn patch(&self, user: &User, target: &Target, patch: Patch, options: &WriteOptions) -> Result<Written> {
        let served = self.served(&target.gvr)?.clone();
        for attempt in 0.. {
            let old = self.current(&served, &target.namespace, &target.name).await?;
            let Some(old) = old else {
                return match patch {
                    Patch::Apply(applied) if target.subresource.is_empty() => {
                        self.apply_new(user, &served, target, applied, options).await
                    }
                    _ => Err(Status::not_found(&target.gvr, &target.name)),
                };
            };
            let (body, warnings, ownership) = self.patched(&served, target, &old, &patch, options).await?;
            let conditional = body["metadata"]["resourceVersion"].str() != old.revision.to_string();
            if served.info().namespaced {
                same_namespace(&target.namespace, &body)?;
            }
            same_name(&target.name, &body)?;
            match self.replace(user, &served, target, &old, body, options, ownership).await {
                Err(raced) if raced.is_conflict() && !conditional && attempt < RETRIES => {}
                Err(error) => return Err(error),
                Ok(mut written) => {
                    written.warnings.splice(0..0, warnings);
                    return Ok(written);
                }
            }
        }
        unreachable!("the loop only ends by returning")
    }

    /// The object a patch makes of `old`, decoded and defaulted.
    async fn patched(
        &self,
        served: &Served,
        target: &Target,
        old: &Object,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<(Value, Vec<String>, Ownership)> {
        let before = old.value();
        let mut problems = Vec::new();
        let mut ownership = Ownership::Update;
        let mut body = match patch {
            Patch::Json(ops) => {
                problems = patch::json::unknown_fields(ops);
                patch::json_patch(&before, ops)?
            }
            Patch::Merge(change) => patch::merge_patch(&before, change)?,
            Patch::Strategic(change) => {
                let Some(ty) = served.schema().table() else {
                    return Err(Status::unsupported_media_type(custom_patches(self.cbor)));
                };
                patch::strategic_merge(&before, change, ty)?
            }
            Patch::Apply(applied) => {
                check_applied(served, target, applied, options)?;
                ownership = Ownership::Applied;
                self.apply(served, Some(&before), applied, &target.subresource, options).await?
            }
        };
        // Upstream's strictness looks at the whole patched object.
        let warnings = decode_patched(&served.info().gvk(), served.schema(), &before, &mut body, problems, options)?;
        default(served, Some(&before), &mut body);
        Ok((body, warnings, ownership))
    }

    async fn apply(
        &self,
        served: &Served,
        live: Option<&Value>,
        applied: &Value,
        subresource: &str,
        options: &WriteOptions,
    ) -> Result<Value> {
        let gvk = served.info().gvk();
        let api_version = gvk.api_version();
        let apply = |versions: &Across| {
            let manager = self.field_manager(served, &api_version, subresource, options, versions);
            manager.apply(&gvk, live, applied, options.force)
        };
        let versions = Across::from(self, served);
        if served.asks_webhook() { versions.settle(apply).await? } else { apply(&versions) }
    }

    async fn apply_new(
        &self,
        user: &User,
        served: &Arc<Served>,
        target: &Target,
        mut applied: Value,
        options: &WriteOptions,
    ) -> Result<Written> {
        check_applied(served, target, &applied, options)?;
        self.authorize(&Attributes::target(user, "create", target)).await?;
        let uid = applied["metadata"]["uid"].str();
        if !uid.is_empty() {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Status::conflict(&target.gvr, &target.name, &why));
        }
        if served.info().namespaced {
            same_namespace(&target.namespace, &applied)?;
            applied.set_path(&["metadata", "namespace"], &target.namespace);
        }
        applied.set_path(&["metadata", "name"], &target.name);
        let mut body = self.apply(served, None, &applied, "", options).await?;
        let managed_fields = body["metadata"]["managedFields"].clone();
        let mut warnings = self.decode(served, &mut body, options)?;
        self.place(served, target, &mut body)?;
        body.set_path(&["metadata", "managedFields"], managed_fields);
        self.create_once(user, served, target, body, options, &mut warnings, Ownership::Applied).await
    }

    /// Replaces `old` by `body` through the whole chain.
    #[expect(clippy::too_many_arguments, reason = "one step of a pipeline whose parts are independent")]
    pub(crate) async fn replace(
        &self,
        user: &User,
        served: &Arc<Served>,
        target: &Target,
        old: &Arc<Object>,
        mut body: Value,
        options: &WriteOptions,
        ownership: Ownership,
    ) -> Result<Written> {
        let before = old.value();
        self.check_preconditions(served, target, &before, &body)?;
        let now = self.surroundings.now();
        if ownership == Ownership::Update {
            // As on creation: what the server and admission plugins make of it is nobody's.
            apart(&mut body, &before, |object| schema::complete(served.schema(), object));
            self.own(served, Some(&before), &mut body, &target.subresource, options).await?;
        }
        keep_server_metadata(&mut body, &before);
        let mut request = Request {
            operation: Operation::Update,
            resource: served.info(),
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            object: body,
            old: &before,
            user,
            dry_run: options.dry_run,
            options: Options::Write(options),
            reinvocation: Default::default(),
        };
        let gates = self.gates.get()?;
        gates.admission.admit(&mut request).await?;
        if let Some(warning) = owners::dedup(&mut request.object, true) {
            crate::notes::warn(&warning);
        }
        default(served, Some(&before), &mut request.object);
        let cx = Context { now, subresource: &target.subresource, user: &user.name, requester: user.requester() };
        served.disabled.drop(&mut request.object, &before);
        served.resource.prepare_update(&mut request.object, &before, &cx);
        let raises = served.info().generation && target.subresource != "status";
        if raises && served.resource.raises_generation(&request.object, &before) {
            request.object.obj_mut("metadata").insert("generation", old.facts.generation + 1);
        }
        let reserved = self.reserve(served, &mut request.object, Some(&before), options.dry_run).await?;
        let finish = async {
            apart(&mut request.object, &before, |object| schema::complete(served.schema(), object));
            validate_changed(served, &request.object, &before, &cx)?;
            gates.admission.validate(&request).await?;
            let warnings = served.resource.warnings(&request.object, Some(&before));
            let value = std::mem::take(&mut request.object);
            Ok((self.put_changed(served, old, value, options.dry_run).await?, warnings))
        };
        match finish.await {
            Ok((object, warnings)) => {
                self.release_replaced(served, &before, &object, options.dry_run).await;
                Ok(Written { object, created: false, warnings })
            }
            Err(error) => {
                self.release(reserved).await;
                Err(error)
            }
        }
    }

    fn check_preconditions(&self, served: &Served, target: &Target, before: &Value, body: &Value) -> Result<()> {
        let (old, new) = (&before["metadata"], &body["metadata"]);
        let uid = new["uid"].str();
        if !uid.is_empty() && uid != old["uid"].str() {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", old["uid"].str());
            return Err(Status::conflict(&target.gvr, &target.name, &why));
        }
        let revision = new["resourceVersion"].str();
        if !revision.is_empty() && revision.parse::<u64>().is_err() {
            let why = format!("strconv.ParseUint: parsing {revision:?}: invalid syntax");
            return Err(Status::new(500, "", why));
        }
        if !revision.is_empty() && revision != "0" && revision != old["resourceVersion"].str() {
            return Err(Status::modified(&target.gvr, &target.name));
        }
        if revision.is_empty() && !served.info().unconditional_update {
            let mut errors = Errors::new();
            errors.invalid(
                &Field::root(before).at("metadata").at("resourceVersion").with(&Value::Int(0)),
                "must be specified for an update",
            );
            // Upstream says the resource where a kind belongs.
            let about = Gvk::new(served.info().group, served.info().version, served.info().plural);
            return Err(Status::invalid(&about, &target.name, errors));
        }
        Ok(())
    }

    /// Writes the new state, unless nothing changed. An object that was only waiting for its finalizers goes.
    pub(crate) async fn put_changed(
        &self,
        served: &Arc<Served>,
        old: &Arc<Object>,
        mut value: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>> {
        let expect = Expect::Revision(old.revision);
        let before = old.value();
        if released(&before, &value) && !served.resource.finalizing(&value) {
            value.obj_mut("metadata").remove("resourceVersion");
            let mut object = Object::from_value(value, served.info().selectable_fields, old.revision);
            if !dry_run {
                let revision = self.commit(served, old.namespace(), old.name(), expect, Change::Delete).await?;
                object = object.at_revision(revision);
            }
            return Ok(Arc::new(object));
        }
        keep_times_if_unchanged(&before, &mut value);
        if value == *before && !self.is_outdated(served, old).await? {
            return Ok(old.clone());
        }
        self.put(served, value, Some((old, &before)), expect, dry_run).await
    }

    /// Encodes and commits; the answer shares the tree with whoever reads the object next.
    /// `old` is what it was made of.
    async fn put(
        &self,
        served: &Arc<Served>,
        mut value: Value,
        old: Option<(&Object, &Value)>,
        expect: Expect,
        dry_run: bool,
    ) -> Result<Arc<Object>> {
        served.to_storage(&mut value).await?;
        let mut facts = served.facts(&value);
        let bytes = Object::encode_with(&mut value, &mut facts, old);
        let facts = Arc::new(facts);
        let revision = match (dry_run, expect) {
            (false, _) => {
                let ttl = (served.prefix == "/registry/events/").then_some(EVENT_TTL);
                let fresh = Fresh::new(facts.clone(), value);
                let change = Change::Put { value: bytes.clone(), facts: Some(fresh), ttl };
                self.commit(served, &facts.namespace, &facts.name, expect, change).await?
            }
            (true, Expect::Absent) => {
                if self.current(served, &facts.namespace, &facts.name).await?.is_some() {
                    return Err(Status::already_exists(&served.info().gvr(), &facts.name));
                }
                0
            }
            (true, Expect::Revision(revision)) => revision,
            (true, Expect::Anything) => 0,
        };
        let object = Object::from_bytes(bytes, facts, revision).map(Arc::new);
        let object = object.ok_or_else(|| Status::internal("encoded object has no metadata"))?;
        served.present(object).await
    }
}

/// Whether an apply patch is about this object. Its fields are checked when it is merged.
fn check_applied(served: &Served, target: &Target, applied: &Value, options: &WriteOptions) -> Result<()> {
    if options.field_manager.is_empty() {
        let message =
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
        return Err(Status::new(422, "Invalid", message));
    }
    let gvk = served.info().gvk();
    let sent = Gvk::of(applied);
    if sent.kind.is_empty() || sent.version.is_empty() {
        return Err(Status::bad_request(format!("invalid object type: {sent}")));
    }
    if sent != gvk {
        let message = format!("the apply patch is of {sent}, but the resource is {gvk}");
        return Err(Status::bad_request(message));
    }
    let name = applied["metadata"]["name"].str();
    if !name.is_empty() && name != target.name {
        let message = format!("the name of the object ({name}) does not match the name on the URL ({})", target.name);
        return Err(Status::bad_request(message));
    }
    if !applied["metadata"]["managedFields"].is_null() && !applied["metadata"]["managedFields"].is_empty() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

/// Whether the fields' owners are still to be worked out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    Update,
    Applied,
}

fn default(served: &Served, before: Option<&Value>, body: &mut Value) {
    let settled = before.is_some_and(|before| served.resource.defaults_spec_only() && same_spec(body, before));
    if !settled {
        served.resource.default(body);
    }
}

fn validate_new(served: &Served, object: &Value) -> Result<()> {
    let mut errors = Errors::new();
    let root = Field::root(object);
    metadata::validate(&root.at("metadata"), served.info(), &mut errors);
    served.resource.validate(&root, &mut errors);
    finish_validation(served, object, errors)
}

pub(super) fn validate_changed(served: &Served, new: &Value, old: &Value, cx: &Context) -> Result<()> {
    let mut errors = Errors::new();
    let root = Field::root(new);
    let meta = root.at("metadata");
    metadata::validate_update(&meta, &old["metadata"], &mut errors);
    metadata::finalizers(&meta, served.info(), &mut errors);
    served.resource.validate_update(&root, old, cx, &mut errors);
    finish_validation(served, new, errors)
}

fn finish_validation(served: &Served, object: &Value, errors: Errors) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    let meta = &object["metadata"];
    let name = if meta["name"].str().is_empty() { meta["generateName"].str() } else { meta["name"].str() };
    Err(Status::invalid(&served.info().gvk(), name, errors))
}

/// Clients cannot change what the server says about an object; what they leave out stays.
pub(super) fn keep_server_metadata(body: &mut Value, old: &Value) {
    let old = &old["metadata"];
    let meta = body.obj_mut("metadata");
    for name in ["creationTimestamp", "uid", "namespace", "generation", "resourceVersion"] {
        match old.get(name) {
            Some(value) => meta.insert(name, value),
            None => meta.remove(name),
        };
    }
    // Upstream lets these be left out, but not changed.
    for name in ["deletionTimestamp", "deletionGracePeriodSeconds", "generateName"] {
        if let Some(value) = old.get(name)
            && meta.get(name).is_none_or(Value::is_null)
        {
            meta.insert(name, value);
        }
    }
    if meta.get("selfLink").is_some() {
        meta.remove("selfLink");
    }
}

/// Deleted, its grace over, and in its new state nothing holds it any more.
fn released(before: &Value, value: &Value) -> bool {
    let old = &before["metadata"];
    !old["deletionTimestamp"].is_null()
        && value["metadata"]["finalizers"].items().is_empty()
        && old["deletionGracePeriodSeconds"].int() == 0
}
