//! One resource as it is served, whether it is built in or comes from a CustomResourceDefinition.

use crate::cache::Cache;
use canopus_api::gates::Gates;
use canopus_api::schema::{Schema, Structural};
use canopus_api::{ListOptions, Object, Result, Status, Value};
use canopus_resources::gated::Disabled;
use canopus_resources::{InfoOf, Resource};
use canopus_schema::TypeId;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio_util::sync::CancellationToken;

/// A strategy: that of a built-in resource, which is always there, or of a custom one, which comes and goes.
#[derive(Clone)]
pub enum Strategy {
    BuiltIn(&'static dyn Resource),
    Custom(Arc<dyn Resource>),
}

impl Deref for Strategy {
    type Target = dyn Resource;
    fn deref(&self) -> &(dyn Resource + 'static) {
        match self {
            Strategy::BuiltIn(resource) => *resource,
            Strategy::Custom(resource) => &**resource,
        }
    }
}

impl From<&'static dyn Resource> for Strategy {
    fn from(resource: &'static dyn Resource) -> Self {
        Strategy::BuiltIn(resource)
    }
}

/// A resource as served: its strategy, its schema, where it is stored, its cache.
pub struct Served {
    pub resource: Strategy,
    /// The resource in whose form objects are stored: itself, but for a few.
    pub stored_as: Strategy,
    /// The type of a built-in kind.
    table: Option<TypeId>,
    pub prefix: String,
    /// None for resources that are never stored.
    pub cache: Option<Arc<Cache>>,
    /// Cancelled when the resource is served no more: its watches end.
    pub gone: CancellationToken,
    /// Set while its definition is being deleted: nothing is created any more.
    pub terminating: AtomicBool,
    /// Tells definitions of the same name apart; "" for what only changes with the program.
    pub fingerprint: String,
    /// Its fields whose features are off.
    pub disabled: Disabled,
    presented: Presented,
}

/// How many presented objects are remembered: those that many watchers are about to be sent.
const PRESENTED: usize = 1024;

/// Objects of a resource that is stored in another version, as they were last presented, by revision and stored bytes.
#[derive(Default)]
struct Presented(Mutex<HashMap<(u64, usize), Pair>>);

/// The stored object, which keeps its bytes where they are, and the presented one.
type Pair = (Arc<Object>, Arc<Object>);

impl Presented {
    fn get(&self, stored: Arc<Object>, convert: impl FnOnce(&Object) -> Object) -> Arc<Object> {
        let key = (stored.revision, stored.body().as_ptr() as usize);
        let mut known = self.0.lock();
        if let Some((_, presented)) = known.get(&key) {
            return presented.clone();
        }
        let presented = Arc::new(convert(&stored));
        if known.len() >= PRESENTED {
            known.clear();
        }
        known.insert(key, (stored, presented.clone()));
        presented
    }
}

impl Served {
    /// A resource of the program's own.
    pub fn built_in(
        resource: &'static dyn Resource,
        stored_as: &'static dyn Resource,
        prefix: String,
        cache: Option<Arc<Cache>>,
        features: &Gates,
    ) -> Result<Served> {
        let info = resource.info();
        let table = canopus_schema::kind(info.group, info.version, info.kind);
        let table = table.ok_or_else(|| Status::internal(format!("no schema for {}", info.kind)))?;
        Ok(Served {
            resource: resource.into(),
            stored_as: stored_as.into(),
            table: Some(table),
            prefix,
            cache,
            gone: CancellationToken::new(),
            terminating: AtomicBool::new(false),
            fingerprint: String::new(),
            disabled: Disabled::of(info.group, info.version, info.plural, |gate| features.enabled(gate)),
            presented: Presented::default(),
        })
    }

    /// One version of a custom resource; `stored_as` is the one that is stored.
    pub fn custom(
        resource: Arc<dyn Resource>,
        stored_as: Arc<dyn Resource>,
        prefix: String,
        cache: Arc<Cache>,
        fingerprint: String,
    ) -> Served {
        Served {
            resource: Strategy::Custom(resource),
            stored_as: Strategy::Custom(stored_as),
            table: None,
            prefix,
            cache: Some(cache),
            gone: CancellationToken::new(),
            terminating: AtomicBool::new(false),
            fingerprint,
            disabled: Disabled::default(),
            presented: Presented::default(),
        }
    }

    pub fn info(&self) -> &InfoOf<'_> {
        self.resource.info()
    }

    pub fn schema(&self) -> Schema<'_> {
        static NOTHING: std::sync::LazyLock<Structural> = std::sync::LazyLock::new(|| Structural::root(&Value::Null));
        match (self.table, self.resource.structural()) {
            (Some(table), _) => table.get().into(),
            (None, Some(structural)) => Schema::Custom(structural),
            (None, None) => Schema::Custom(&NOTHING),
        }
    }

    pub fn key(&self, namespace: &str, name: &str) -> String {
        if namespace.is_empty() {
            format!("{}{name}", self.prefix)
        } else {
            format!("{}{namespace}/{name}", self.prefix)
        }
    }

    /// The facts of an object about to be stored, in its stored form.
    pub fn facts(&self, object: &Value) -> canopus_api::Facts {
        self.stored_as.facts(object)
    }

    /// Whether this resource has objects in another form than they are stored in.
    pub fn converts(&self) -> bool {
        // Custom resources may have been stored when their schema was another.
        matches!(self.resource, Strategy::Custom(_)) || self.info().storage.is_some()
    }

    /// A stored object as this resource has it: the same one unless it is stored in another version.
    pub fn present(&self, object: Arc<Object>) -> Arc<Object> {
        if !self.converts() {
            return object;
        }
        self.presented.get(object, |stored| {
            let before = stored.value();
            let mut value = (*before).clone();
            self.resource.convert_from_storage(&mut value);
            if value == *before {
                return stored.at_revision(stored.revision);
            }
            Object::from_value(value, self.info().selectable_fields, stored.revision)
        })
    }

    /// Selectors on this resource's fields as the stored resource knows them.
    pub fn stored_options<'a>(&self, options: &'a ListOptions) -> Cow<'a, ListOptions> {
        if !self.converts() {
            return Cow::Borrowed(options);
        }
        let mut options = options.clone();
        for (field, _, _) in &mut options.fields.terms {
            *field = self.resource.field_in_storage(field).into();
        }
        Cow::Owned(options)
    }

    /// Whether objects are made when they are asked for: ComponentStatus.
    pub fn is_computed(&self) -> bool {
        self.info().group.is_empty() && self.info().plural == "componentstatuses"
    }

    pub fn cache(&self) -> Result<&Arc<Cache>> {
        self.cache.as_ref().ok_or_else(Status::no_such_resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_converted_once() {
        let object =
            |name: &str| Arc::new(Object::from_value(canopus_api::value!({"metadata": {"name": name}}), &[], 7));
        let presented = Presented::default();
        let (a, b) = (object("a"), object("b"));
        let first = presented.get(a.clone(), |o| o.at_revision(o.revision));
        // Watchers of a deletion each have an object of their own, with the same bytes.
        let again = presented.get(Arc::new(a.at_revision(7)), |_| unreachable!("it is known"));
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(presented.get(b, |o| o.at_revision(o.revision)).name(), "b");
    }
}
