//! One resource as it is served, whether it is built in or comes from a CustomResourceDefinition.

use crate::cache::Cache;
use crate::conversion::{Conversion, Known};
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
    /// Between the versions of a custom resource.
    conversion: Option<Arc<Conversion>>,
    presented: Presented,
    /// What a webhook has converted.
    known: Known,
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
            conversion: None,
            presented: Presented::default(),
            known: Known::default(),
        })
    }

    /// One version of a custom resource; `stored_as` is the one that is stored.
    pub fn custom(
        resource: Arc<dyn Resource>,
        stored_as: Arc<dyn Resource>,
        prefix: String,
        cache: Arc<Cache>,
        fingerprint: String,
        conversion: Arc<Conversion>,
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
            conversion: Some(conversion),
            presented: Presented::default(),
            known: Known::default(),
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

    /// Whether somebody else has to be asked what an object is in another version.
    pub fn asks_webhook(&self) -> bool {
        self.conversion.as_ref().is_some_and(|conversion| conversion.webhook().is_some())
    }

    /// A stored object as this resource has it: the same one unless it is stored in another version.
    ///
    /// # Errors
    /// 500 when a webhook converts, and does not.
    pub async fn present(&self, object: Arc<Object>) -> Result<Arc<Object>> {
        if !self.asks_webhook() {
            return Ok(self.present_now(object));
        }
        let presented = self.present_all(vec![object]).await?;
        presented.into_iter().next().ok_or_else(|| Status::internal("nothing was converted"))
    }

    /// The same for a list: one question to the webhook.
    pub async fn present_all(&self, objects: Vec<Arc<Object>>) -> Result<Vec<Arc<Object>>> {
        match &self.conversion {
            Some(conversion) if conversion.webhook().is_some() => Box::pin(self.ask(conversion, objects)).await,
            _ if self.converts() => Ok(objects.into_iter().map(|object| self.present_now(object)).collect()),
            _ => Ok(objects),
        }
    }

    async fn ask(&self, conversion: &Conversion, objects: Vec<Arc<Object>>) -> Result<Vec<Arc<Object>>> {
        let cache = self.cache()?;
        let is_current = |o: &Object| cache.by_key(&o.key()).is_some_and(|now| now.revision == o.revision);
        let api_version = self.info().gvk().api_version();
        let convert = |stored: Vec<Arc<Object>>| {
            let api_version = &api_version;
            async move {
                let values = stored.iter().map(|object| (*object.value()).clone()).collect();
                let converted = conversion.read_all(values, api_version).await?;
                let fields = self.info().selectable_fields;
                let object = |(value, stored): (Value, &Arc<Object>)| match value == *stored.value() {
                    true => stored.at_revision(stored.revision),
                    false => Object::from_value(value, fields, stored.revision),
                };
                Ok(converted.into_iter().zip(&stored).map(object).collect())
            }
        };
        self.known.get(&objects, (is_current, cache.len()), convert).await
    }

    /// An object of this resource in the version that is stored.
    pub async fn to_storage(&self, value: &mut Value) -> Result<()> {
        match &self.conversion {
            Some(conversion) if self.info().storage.is_some() => {
                let api_version = self.stored_as.info().gvk().api_version();
                Box::pin(conversion.convert(value, &api_version)).await?;
            }
            Some(_) => {}
            None => self.resource.convert_to_storage(value),
        }
        Ok(())
    }

    /// An object of any version of this custom resource in another one.
    pub async fn convert(&self, api_version: &str, value: &mut Value) -> Result<()> {
        match &self.conversion {
            Some(conversion) => Box::pin(conversion.convert(value, api_version)).await,
            None => Err(Status::internal("not a custom resource")),
        }
    }

    /// An object of this resource as `to`, another version of it, has it, where no webhook has to be asked.
    pub fn convert_now(&self, to: &Served, value: &mut Value) {
        match &self.conversion {
            Some(conversion) => conversion.rename(value, &to.info().gvk().api_version()),
            None => {
                self.resource.convert_to_storage(value);
                to.resource.convert_from_storage(value);
            }
        }
    }

    /// The same where no webhook has to be asked.
    pub(crate) fn present_now(&self, object: Arc<Object>) -> Arc<Object> {
        if !self.converts() {
            return object;
        }
        self.presented.get(object, |stored| {
            let before = stored.value();
            let mut value = (*before).clone();
            match &self.conversion {
                Some(conversion) => conversion.read_as(&mut value, &self.info().gvk().api_version()),
                None => self.resource.convert_from_storage(&mut value),
            }
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
        if self.asks_webhook() {
            // What else selectors ask for may be another thing in the version that is stored.
            options.labels = Default::default();
            options
                .fields
                .terms
                .retain(|(field, _, _)| ["metadata.name", "metadata.namespace"].contains(&field.as_str()));
        }
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
