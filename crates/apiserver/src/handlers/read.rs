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
                cache.by_key(&Cache::object_key(&target.namespace, &target.name)).map(|object| served.present(object))
            }
        };
        found.ok_or_else(|| Status::not_found(&target.gvr, &target.name))
    }

    /// Waits, at most three seconds, for a revision that the client has seen elsewhere.
    async fn wait_for(&self, cache: &Cache, revision: u64) -> Result<()> {
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
        if served.converts() {
            list.items = list.items.into_iter().map(|object| served.present(object)).collect();
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
        let options = &*served.stored_options(options);
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
        let events = stream(cache.clone(), subscription, target.namespace.to_string(), options.clone(), from);
        let events = match &served.resource {
            Strategy::BuiltIn(_) => events,
            Strategy::Custom(_) => until(events, served.gone.clone()),
        };
        if !served.converts() {
            return Ok(events);
        }
        let served = served.clone();
        let present = move |event| match event {
            WatchEvent::Added(o) => WatchEvent::Added(served.present(o)),
            WatchEvent::Modified(o) => WatchEvent::Modified(served.present(o)),
            WatchEvent::Deleted(o) => WatchEvent::Deleted(served.present(o)),
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
    ready: VecDeque<WatchEvent>,
    deadline: Option<Instant>,
    next_bookmark: Option<Instant>,
    /// Nothing up to this revision is told: it may lie in the future.
    start: u64,
    last: u64,
}

/// How often a watcher that wants bookmarks gets one.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// How long before the end of a watch the last one comes.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

fn stream(
    cache: Arc<Cache>,
    mut subscription: Subscription,
    namespace: String,
    options: ListOptions,
    from: Option<u64>,
) -> BoxStream<'static, Result<WatchEvent>> {
    let mut ready: VecDeque<WatchEvent> = subscription.initial.drain(..).map(WatchEvent::Added).collect();
    if options.send_initial_events == Some(true) && options.bookmarks {
        ready.push_back(WatchEvent::Bookmark { revision: subscription.revision, initial_events_end: true });
    }
    let missed = std::mem::take(&mut subscription.missed);
    ready.extend(missed.iter().filter_map(|e| transform(e, &namespace, &options)));
    let now = Instant::now();
    let deadline = options.timeout_seconds.filter(|s| *s > 0).map(|s| now + Duration::from_secs(s.into()));
    let next_bookmark = options.bookmarks.then(|| bookmark_after(now, deadline));
    let start = from.unwrap_or(0);
    let last = subscription.revision.max(start);
    let watching = Watching { cache, subscription, namespace, options, ready, deadline, next_bookmark, start, last };
    futures::stream::unfold(watching, |mut watching| async move {
        let event = watching.next().await?;
        Some((Ok(event), watching))
    })
    .boxed()
}

impl Watching {
    async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            tokio::select! {
                event = self.subscription.events.recv() => {
                    let event = event?;
                    if event.revision <= self.start {
                        continue;
                    }
                    self.last = event.revision;
                    self.ready.extend(transform(&event, &self.namespace, &self.options));
                }
                () = sleep_until(self.deadline) => return None,
                () = sleep_until(self.next_bookmark) => {
                    self.next_bookmark = Some(bookmark_after(Instant::now(), self.deadline));
                    // Events up to the cache's revision may still be on their way to us unless the channel is empty.
                    let revision = self.cache.current();
                    if self.subscription.events.is_empty() {
                        self.last = self.last.max(revision);
                    }
                    return Some(WatchEvent::Bookmark { revision: self.last, initial_events_end: false });
                }
            }
        }
    }
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
