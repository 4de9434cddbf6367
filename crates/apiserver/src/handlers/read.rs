//! get, list and watch.

use crate::cache::{Cache, CacheEvent, Subscription, selected, too_large};
use crate::notes;
use crate::served::{Served, Strategy};
use crate::server::Server;
use crate::storage;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use canopus_api::api::ResourceVersionMatch;
use canopus_api::{List, ListOptions, Object, Result, Status, Target, WatchEvent, json, value};
use futures::stream::{BoxStream, StreamExt};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

impl Server {
    /// `resource_version`: None for linearizable, else "not older than" (0: whatever is at hand).
    pub async fn get(&self, target: &Target, resource_version: Option<u64>) -> Result<Arc<Object>> {
        let served = self.served(&target.gvr)?;
        if served.is_computed() {
            return self.component_status(&target.name).await;
        }
        let found = match resource_version {
            None => self.current(&served, &target.namespace, &target.name).await?,
            Some(revision) => {
                let cache = served.cache()?;
                self.wait_for(cache, revision).await?;
                match cache.by_key(&Cache::object_key(&target.namespace, &target.name)) {
                    Some(object) => Some(served.present(object).await?),
                    None => None,
                }
            }
        };
        found.ok_or_else(|| Status::not_found(&target.gvr, &target.name))
    }

    /// Waits, at most three seconds, for a revision that the client has seen elsewhere.
    pub(crate) async fn wait_for(&self, cache: &Cache, revision: u64) -> Result<()> {
        if revision == 0 || cache.current() >= revision {
            return Ok(());
        }
        let current = self.newest().await?;
        if revision > current {
            return Err(too_large(revision, current));
        }
        match tokio::time::timeout(Duration::from_secs(3), cache.reached(revision)).await {
            Ok(reached) => reached,
            Err(_) => Err(too_large(revision, cache.current())),
        }
    }

    pub async fn list(&self, target: &Target, options: &ListOptions) -> Result<List> {
        let served = self.served(&target.gvr)?;
        check_fields(&served, options)?;
        if served.is_computed() {
            return Ok(self.component_statuses(options).await);
        }
        let _part = notes::part("cacher.GetList", || of_type(&served));
        let mut list = self.list_stored(&served, target, &served.stored_options(options)).await?;
        list.items = served.present_all(list.items).await?;
        if served.asks_webhook() {
            list.items.retain(|object| selected(object, options));
            let plain = options.labels.is_everything() && options.fields.is_everything();
            list.remaining = list.remaining.filter(|_| plain);
        }
        Ok(list)
    }

    async fn list_stored(&self, served: &Served, target: &Target, options: &ListOptions) -> Result<List> {
        let cache = served.cache()?;
        if !options.continue_token.is_empty() {
            return self.list_more(served, cache, target, options).await;
        }
        match (options.resource_version_match, options.resource_version) {
            (Some(_), None) => {
                return Err(Status::bad_request(
                    "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            (Some(ResourceVersionMatch::Exact), Some(0)) => {
                return Err(Status::bad_request(
                    "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
            (Some(ResourceVersionMatch::Exact), Some(at)) => {
                return self.list_at(cache, target, options, "", at).await;
            }
            // From whatever is at hand upstream answers all there is.
            (None | Some(ResourceVersionMatch::NotOlderThan), Some(0)) => {
                let (items, revision) = cache.snapshot(&target.namespace, options);
                return Ok(List { items, revision, ..List::default() });
            }
            (None, Some(at)) if options.limit > 0 => {
                // Upstream's legacy rule: a limited list at a revision is exact.
                return self.list_at(cache, target, options, "", at).await;
            }
            (_, Some(at)) => self.wait_for(cache, at).await?,
            (_, None) => cache.reached(self.newest().await?).await?,
        }
        let (mut items, revision) = cache.snapshot(&target.namespace, options);
        let mut list = List { revision, ..List::default() };
        if options.limit > 0 && items.len() > options.limit {
            let left = items.len() - options.limit;
            items.truncate(options.limit);
            list.continue_token = token(revision, items.last());
            // With selectors the rest isn't known upstream either.
            list.remaining = (options.labels.is_everything() && options.fields.is_everything()).then_some(left as u64);
        }
        list.items = items;
        Ok(list)
    }

    async fn list_more(&self, served: &Served, cache: &Cache, target: &Target, options: &ListOptions) -> Result<List> {
        if options.resource_version.is_some_and(|rv| rv != 0) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let (revision, start) = read_token(&options.continue_token).ok_or_else(|| {
            Status::bad_request(
                "invalid continue token: continue key is not valid: encoded continue token is not readable",
            )
        })?;
        if served.info().namespaced
            && !target.namespace.is_empty()
            && !start.starts_with(&format!("{}/", target.namespace))
        {
            return Err(Status::bad_request(
                "invalid continue token: continue key is not valid: it is of another namespace",
            ));
        }
        let Some(revision) = revision else {
            // The client was told that the rest may not fit to what it has.
            return self.list_at(cache, target, options, &start, self.newest().await?).await;
        };
        let listed = self.list_at(cache, target, options, &start, revision).await;
        listed.map_err(|status| if status.is_expired() { expired_page(&start) } else { status })
    }

    /// A list exactly at a past revision, from behind the key `start`.
    async fn list_at(
        &self,
        cache: &Cache,
        target: &Target,
        options: &ListOptions,
        start: &str,
        at: u64,
    ) -> Result<List> {
        let scope = match target.namespace.as_str() {
            "" => cache.prefix().to_string(),
            namespace => format!("{}{namespace}/", cache.prefix()),
        };
        let end = canopus_store::prefix_end(&scope);
        let mut from = if start.is_empty() { scope } else { format!("{}{start}\0", cache.prefix()) };
        let mut list = List { revision: at, ..List::default() };
        loop {
            let page = match options.limit {
                0 => 0,
                limit => limit + 1 - list.items.len(),
            };
            let range = self.store.range(&from, &end, Some(at), page).await.map_err(|e| match e {
                canopus_store::Error::FutureRevision { current, .. } => too_large(at, current),
                other => storage::status(other),
            })?;
            for version in &range.items {
                if let Some(object) = cache.object(version).filter(|o| selected(o, options)) {
                    list.items.push(object);
                }
            }
            if options.limit > 0 && list.items.len() > options.limit {
                let found = list.items.len() - options.limit;
                list.items.truncate(options.limit);
                list.continue_token = token(at, list.items.last());
                let plain = options.labels.is_everything() && options.fields.is_everything();
                list.remaining = plain.then_some(range.remaining + found as u64);
                return Ok(list);
            }
            match range.items.last().filter(|_| range.more) {
                Some(last) => from = format!("{}\0", last.key),
                None => return Ok(list),
            }
        }
    }

    /// Starts a watch. The stream ends when the watcher is too slow or `timeout_seconds` are over.
    pub async fn watch(
        &self,
        target: &Target,
        options: &ListOptions,
    ) -> Result<BoxStream<'static, Result<WatchEvent>>> {
        let served = self.served(&target.gvr)?;
        check_fields(&served, options)?;
        if let Some(why) = bad_initial_events(options) {
            return Err(Status::bad_request(why));
        }
        let _part = notes::part("cacher.Watch", || of_type(&served));
        let (wanted, options) = (options, &*served.stored_options(options));
        let cache = served.cache()?;
        let from = match (options.send_initial_events, options.resource_version) {
            (Some(true), rv) => {
                let at_least = match rv {
                    Some(revision) => revision,
                    None => self.newest().await?,
                };
                self.wait_for(cache, at_least).await?;
                None
            }
            (Some(false), None) => Some(self.newest().await?),
            (_, None) => {
                cache.reached(self.newest().await?).await?;
                None
            }
            (None, Some(0)) => None,
            (_, Some(revision)) => Some(revision),
        };
        let subscription = match cache.subscribe(&target.namespace, options, from) {
            Ok(subscription) => subscription,
            // Upstream answers an expired start with a stream whose only event is the error.
            Err(expired) if expired.is_expired() => return Ok(futures::stream::iter([Err(expired)]).boxed()),
            Err(other) => return Err(other),
        };
        let mut watching = Watching::new(cache.clone(), subscription, &target.namespace, options, from);
        if served.asks_webhook() {
            watching.options = wanted.clone();
            return Ok(until(watching.converted(served.clone()), served.gone.clone()));
        }
        let events = watching.events();
        let events = match &served.resource {
            Strategy::BuiltIn(_) => events,
            Strategy::Custom(_) => until(events, served.gone.clone()),
        };
        if !served.converts() {
            return Ok(events);
        }
        let served = served.clone();
        let present = move |event| match event {
            WatchEvent::Added(o) => WatchEvent::Added(served.present_now(o)),
            WatchEvent::Modified(o) => WatchEvent::Modified(served.present_now(o)),
            WatchEvent::Deleted(o) => WatchEvent::Deleted(served.present_now(o)),
            bookmark => bookmark,
        };
        Ok(events.map(move |event| event.map(&present)).boxed())
    }
}

/// Ends a watch when its resource is gone, but not before everything that has happened is told.
fn until(
    events: BoxStream<'static, Result<WatchEvent>>,
    gone: CancellationToken,
) -> BoxStream<'static, Result<WatchEvent>> {
    let next = |(mut events, gone): (BoxStream<'static, Result<WatchEvent>>, CancellationToken)| async move {
        let event = tokio::select! {
            biased;
            event = events.next() => event,
            () = gone.cancelled() => None,
        };
        Some((event?, (events, gone)))
    };
    futures::stream::unfold((events, gone), next).boxed()
}

/// Why `sendInitialEvents` and what goes with it do not fit together (upstream `ValidateListOptions`).
fn bad_initial_events(options: &ListOptions) -> Option<&'static str> {
    match (options.send_initial_events, options.resource_version_match) {
        (Some(_), Some(ResourceVersionMatch::NotOlderThan)) | (None, None) => None,
        (Some(_), _) => Some(
            "sendInitialEvents: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (None, Some(_)) => Some(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
    }
}

fn check_fields(served: &Served, options: &ListOptions) -> Result<()> {
    let info = served.info();
    let own = info.selectable_fields;
    let custom = matches!(served.resource, Strategy::Custom(_));
    for (field, _, _) in &options.fields.terms {
        if ["metadata.name", "metadata.namespace"].contains(&field.as_str()) || own.contains(&field.as_str()) {
            continue;
        }
        return Err(Status::bad_request(match (info.group, info.plural) {
            ("batch", "jobs") => format!("field label {field:?} not supported for Job"),
            (group @ "resource.k8s.io", "resourceslices") => {
                let version = info.version;
                format!("field label not supported for {group}/{version}, Kind=ResourceSlice: {field}")
            }
            _ if own.is_empty() && !custom => {
                format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
            }
            _ => format!("field label not supported: {field}"),
        }));
    }
    Ok(())
}

/// Upstream's continue token: base64 of `{"v":"meta.k8s.io/v1","rv":5,"start":"ns/name\u0000"}`.
fn token(revision: u64, last: Option<&Arc<Object>>) -> String {
    let Some(last) = last else { return String::new() };
    write_token(i64::try_from(revision).unwrap_or(i64::MAX), &last.key())
}

/// The revision of a token that goes on with whatever is newest.
const NEWEST: i64 = -1;

fn write_token(revision: i64, behind: &str) -> String {
    let token = value!({"v": "meta.k8s.io/v1", "rv": revision, "start": format!("{behind}\0")});
    URL_SAFE_NO_PAD.encode(json::to_vec(&token))
}

/// The revision of the list is no longer there: the client may begin anew, or go on with a token for the newest one.
fn expired_page(behind: &str) -> Status {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    status.continue_token = write_token(NEWEST, behind).into();
    status
}

/// Where a token goes on, and at which revision; None is the newest.
fn read_token(text: &str) -> Option<(Option<u64>, String)> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let token = json::parse(&bytes).ok()?;
    let start = token["start"].as_str()?.trim_end_matches('\0').to_string();
    let revision = match token["rv"].as_i64()? {
        NEWEST => None,
        revision => Some(u64::try_from(revision).ok().filter(|rv| *rv > 0)?),
    };
    (token["v"].str() == "meta.k8s.io/v1" && !start.is_empty()).then_some((revision, start))
}

struct Watching {
    cache: Arc<Cache>,
    subscription: Subscription,
    namespace: String,
    options: ListOptions,
    ready: VecDeque<Step>,
    deadline: Option<Instant>,
    next_bookmark: Option<Instant>,
    /// Nothing up to this revision is told: it may lie in the future.
    start: u64,
    last: u64,
}

/// What comes next in a watch.
enum Step {
    /// What is there at the beginning.
    Initial(Arc<Object>),
    Changed(Arc<CacheEvent>),
    Bookmark(WatchEvent),
}

/// How often a watcher that wants bookmarks gets one.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// How long before the end of a watch the last one comes.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// How many changes are put to a conversion webhook at once.
const CONVERTED: usize = 500;

impl Watching {
    fn new(
        cache: Arc<Cache>,
        mut subscription: Subscription,
        namespace: &str,
        options: &ListOptions,
        from: Option<u64>,
    ) -> Watching {
        let mut ready: VecDeque<Step> = subscription.initial.drain(..).map(Step::Initial).collect();
        if options.send_initial_events == Some(true) && options.bookmarks {
            let end = WatchEvent::Bookmark { revision: subscription.revision, initial_events_end: true };
            ready.push_back(Step::Bookmark(end));
        }
        ready.extend(std::mem::take(&mut subscription.missed).into_iter().map(Step::Changed));
        let now = Instant::now();
        let deadline = options.timeout_seconds.filter(|s| *s > 0).map(|s| now + Duration::from_secs(s.into()));
        let next_bookmark = options.bookmarks.then(|| bookmark_after(now, deadline));
        let start = from.unwrap_or(0);
        let last = subscription.revision.max(start);
        let (namespace, options) = (namespace.to_string(), options.clone());
        Watching { cache, subscription, namespace, options, ready, deadline, next_bookmark, start, last }
    }

    fn events(self) -> BoxStream<'static, Result<WatchEvent>> {
        futures::stream::unfold(self, |mut watching| async move {
            loop {
                let event = match watching.next().await? {
                    Step::Initial(object) => Some(WatchEvent::Added(object)),
                    Step::Changed(event) => transform(&event, &watching.namespace, &watching.options),
                    Step::Bookmark(bookmark) => Some(bookmark),
                };
                if let Some(event) = event {
                    return Some((Ok(event), watching));
                }
            }
        })
        .boxed()
    }

    /// The events of a resource that a webhook converts, and what selectors make of them then. What has piled up is
    /// converted together. If that fails the watch ends with the reason: the client lists, and hears it, too.
    fn converted(self, served: Arc<Served>) -> BoxStream<'static, Result<WatchEvent>> {
        let watching = Some((self, served));
        let batches = futures::stream::unfold(watching, |watching| async move {
            let (mut watching, served) = watching?;
            let steps = watching.next_few().await?;
            match steps_as(&served, steps).await {
                Err(status) => Some((vec![Err(status)], None)),
                Ok(steps) => {
                    let event = |step| match step {
                        Step::Initial(object) if selected(&object, &watching.options) => {
                            Some(WatchEvent::Added(object))
                        }
                        Step::Initial(_) => None,
                        Step::Changed(event) => transform(&event, &watching.namespace, &watching.options),
                        Step::Bookmark(bookmark) => Some(bookmark),
                    };
                    let events = steps.into_iter().filter_map(event).map(Ok).collect();
                    Some((events, Some((watching, served))))
                }
            }
        });
        batches.map(futures::stream::iter).flatten().boxed()
    }

    async fn next_few(&mut self) -> Option<Vec<Step>> {
        let mut steps = vec![self.next().await?];
        while steps.len() < CONVERTED {
            match self.ready.pop_front() {
                Some(step) => steps.push(step),
                None => match self.subscription.events.try_recv().ok().and_then(|event| self.told(event)) {
                    Some(step) => steps.push(step),
                    None => break,
                },
            }
        }
        Some(steps)
    }

    /// An event, unless it is too early.
    fn told(&mut self, event: Arc<CacheEvent>) -> Option<Step> {
        if event.revision <= self.start {
            return None;
        }
        self.last = event.revision;
        Some(Step::Changed(event))
    }

    async fn next(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.ready.pop_front() {
                return Some(step);
            }
            tokio::select! {
                event = self.subscription.events.recv() => {
                    if let Some(step) = self.told(event?) {
                        return Some(step);
                    }
                }
                () = sleep_until(self.deadline) => return None,
                () = sleep_until(self.next_bookmark) => {
                    self.next_bookmark = Some(bookmark_after(Instant::now(), self.deadline));
                    // Events up to the cache's revision may still be on their way to us unless the channel is empty.
                    let revision = self.cache.current();
                    if self.subscription.events.is_empty() {
                        self.last = self.last.max(revision);
                    }
                    return Some(Step::Bookmark(WatchEvent::Bookmark { revision: self.last, initial_events_end: false }));
                }
            }
        }
    }
}

/// The same steps with objects as a resource has them, converted all at once.
async fn steps_as(served: &Served, mut steps: Vec<Step>) -> Result<Vec<Step>> {
    let objects = steps.iter().flat_map(|step| match step {
        Step::Initial(object) => [Some(object), None],
        Step::Changed(event) => [event.previous.as_ref(), event.object.as_ref()],
        Step::Bookmark(_) => [None, None],
    });
    let mut presented = served.present_all(objects.flatten().cloned().collect()).await?.into_iter();
    for step in &mut steps {
        match step {
            Step::Initial(object) => presented.next().into_iter().for_each(|to| *object = to),
            Step::Changed(event) => {
                let mut to = |object: &Option<Arc<Object>>| object.as_ref().and_then(|_| presented.next());
                let previous = to(&event.previous);
                *event = Arc::new(CacheEvent::new(event.revision, to(&event.object), previous));
            }
            Step::Bookmark(_) => {}
        }
    }
    Ok(steps)
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A bookmark comes every minute, and a moment before the watch ends so that the next one starts where it stopped.
fn bookmark_after(now: Instant, deadline: Option<Instant>) -> Instant {
    let usual = now + BOOKMARK_PERIOD;
    let last = deadline.and_then(|d| d.checked_sub(BOOKMARK_BEFORE_END)).filter(|last| *last > now);
    last.map_or(usual, |last| last.min(usual))
}

/// What an event means to a watcher with selectors: an object may enter or leave its sight.
fn transform(event: &CacheEvent, namespace: &str, options: &ListOptions) -> Option<WatchEvent> {
    let wants = |o: &Option<Arc<Object>>| {
        o.as_ref().is_some_and(|o| (namespace.is_empty() || o.namespace() == namespace) && selected(o, options))
    };
    match (wants(&event.previous), wants(&event.object)) {
        (false, true) => event.object.clone().map(WatchEvent::Added),
        (true, true) => event.object.clone().map(WatchEvent::Modified),
        // Gone from the store, or changed out of sight: the last state that was seen.
        (true, false) => event.gone().map(WatchEvent::Deleted),
        (false, false) => None,
    }
}

/// What a trace says about a list or watch.
fn of_type(served: &Served) -> crate::traces::Attributes {
    let info = served.info();
    let of_group = if info.group.is_empty() { String::new() } else { format!(".{}", info.group) };
    vec![("type", format!("{}{of_group}", info.plural).as_str().into())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookmarks_come_in_time() {
        let now = Instant::now();
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        for (deadline, expected) in [(None, 60), (Some(600), 60), (Some(30), 28), (Some(62), 60), (Some(2), 60)] {
            assert_eq!(bookmark_after(now, deadline.map(at)), at(expected), "{deadline:?}");
        }
    }

    #[test]
    fn continue_tokens() {
        let object = Arc::new(Object::from_value(value!({"metadata": {"name": "n", "namespace": "a"}}), &[], 1));
        assert_eq!(read_token(&token(7, Some(&object))), Some((Some(7), "a/n".into())));
        let expired = expired_page("a/n");
        assert_eq!((expired.code, read_token(&expired.continue_token)), (410, Some((None, "a/n".into()))));
        for bad in ["", "x", "eyJ9", "bm90anNvbg"] {
            assert_eq!(read_token(bad), None);
        }
    }
}
