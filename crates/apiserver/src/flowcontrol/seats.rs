//! How many seats a request is thought to take (KEP-1040, "Request width").

use super::queues::Work;
use crate::cache::Cache;
use crate::http::query::Query;
use crate::request_info::RequestInfo;
use canopus_api::{ListOptions, api::ResourceVersionMatch};

const BYTES_PER_SEAT: u64 = 100_000;
/// What a list out of the cache is held in memory for, at most: it is streamed.
const STREAMED: u64 = 1_000_000;
const LIST_MOST: u32 = 100;
const WRITE_MOST: u32 = 10;
const WATCHES_PER_SEAT: usize = 10;
/// What an event costs each seat.
const EVENT: f64 = 0.005;

/// The estimate, and how many watchers a write has, if that was counted. `widest` is the level's bound.
pub(super) fn estimate(
    info: &RequestInfo,
    query: &Query,
    cache: Option<&Cache>,
    widest: Option<u32>,
) -> (Work, Option<usize>) {
    let bound = |most: u32| widest.map_or(most, |widest| widest.min(most));
    match info.verb.as_str() {
        "list" | "watch" if info.is_resource => {
            let Ok(options) = query.list_options() else {
                return (Work { first: bound(LIST_MOST), ..Work::ONE }, None);
            };
            let initial =
                options.send_initial_events == Some(true) || options.resource_version.is_none_or(|rv| rv == 0);
            let Some(cache) = cache.filter(|_| info.verb == "list" || initial) else { return (Work::ONE, None) };
            let (count, size) = cache.size();
            (Work { first: list(info, &options, count, size).clamp(1, bound(LIST_MOST)), ..Work::ONE }, None)
        }
        "create" | "update" | "patch" | "delete" if info.is_resource => {
            if info.target.subresource == "token" {
                return (Work::ONE, None);
            }
            let watchers = cache.map_or(0, |cache| cache.watchers_of(&info.target.namespace, &info.target.name));
            (write(watchers, bound(WRITE_MOST)), Some(watchers))
        }
        _ => (Work::ONE, None),
    }
}

fn list(info: &RequestInfo, options: &ListOptions, count: usize, size: usize) -> u32 {
    let (count, size) = (count as u64, size as u64);
    let limited = if options.limit > 0 { count.min(options.limit as u64) } else { count };
    let exact = options.resource_version_match == Some(ResourceVersionMatch::Exact)
        || options.limit > 0 && options.resource_version.is_some_and(|rv| rv > 0);
    let stored = info.verb == "list" && (exact || !options.continue_token.is_empty());
    let selective = !(options.labels.is_everything() && options.fields.is_everything());
    let objects = match () {
        () if !info.target.name.is_empty() => 1,
        () if stored && selective => limited.max(count / 2),
        () => limited,
    };
    let bytes = if stored { objects * size } else { (objects * size).min(STREAMED) };
    u32::try_from(bytes.div_ceil(BYTES_PER_SEAT)).unwrap_or(u32::MAX)
}

/// What a write does to its watchers comes after the answer.
fn write(watchers: usize, most: u32) -> Work {
    if watchers < WATCHES_PER_SEAT {
        return Work::ONE;
    }
    let wanted = u32::try_from(watchers.div_ceil(WATCHES_PER_SEAT)).unwrap_or(u32::MAX);
    let after = wanted.min(most);
    Work { first: 1, after, linger: f64::from(wanted) * EVENT / f64::from(after) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_info::parse;

    fn listed(path: &str, query: &str, count: usize, size: usize) -> u32 {
        let (mut info, query) = (parse("GET", path, query), Query::parse(query));
        info.select(query.field_selector().unwrap_or_default(), query.label_selector().unwrap_or_default());
        list(&info, &query.list_options().unwrap(), count, size)
    }

    #[test]
    fn lists_take_what_they_hold_in_memory() {
        let pods = "/api/v1/pods";
        for (path, query, count, size, seats) in [
            (pods, "", 0, 0, 0),
            (pods, "", 100, 3000, 3),
            (pods, "", 100_000, 3000, 10),
            (pods, "limit=500", 100_000, 3000, 10),
            (pods, "limit=10", 100_000, 3000, 1),
            (pods, "resourceVersion=5&resourceVersionMatch=Exact", 10_000, 3000, 300),
            (pods, "limit=10&resourceVersion=5&labelSelector=a", 10_000, 3000, 150),
            (pods, "fieldSelector=metadata.name=x", 100_000, 3000, 1),
        ] {
            assert_eq!(listed(path, query, count, size), seats, "{query} of {count}");
        }
    }

    #[test]
    fn writes_take_what_their_watchers_cost() {
        assert_eq!(write(9, 10), Work::ONE);
        assert_eq!(write(45, 10), Work { first: 1, after: 5, linger: 0.005 });
        assert_eq!(write(1000, 10), Work { first: 1, after: 10, linger: 0.05 });
    }
}
