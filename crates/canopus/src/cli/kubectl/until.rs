//! Waiting until something holds of an object.

use super::session::Session;
use anyhow::{Result, bail};
use canopus_api::{Api, FieldSelector, ListOptions, Target, Value, WatchEvent};
use futures::StreamExt;
use std::time::Duration;

/// Rest between attempts when the server ends a watch at once.
const REST: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ended {
    Met,
    TimedOut,
}

/// Follows the named object of `target` until `met` says so; `met` gets None when there is no such object. With a
/// patience of zero it looks once.
pub async fn until(
    session: &Session,
    target: &Target,
    patience: Duration,
    mut met: impl FnMut(Option<&Value>) -> Result<bool>,
) -> Result<Ended> {
    if patience.is_zero() {
        let object = match session.api.get(target).await {
            Ok(object) => Some(object.value()),
            Err(status) if status.is_not_found() => None,
            Err(status) => return Err(status.into()),
        };
        return Ok(if met(object.as_deref())? { Ended::Met } else { Ended::TimedOut });
    }
    match tokio::time::timeout(patience, follow(session, target, &mut met)).await {
        Ok(result) => result.map(|()| Ended::Met),
        Err(_) => Ok(Ended::TimedOut),
    }
}

async fn follow(
    session: &Session,
    target: &Target,
    met: &mut impl FnMut(Option<&Value>) -> Result<bool>,
) -> Result<()> {
    let collection = Target { name: "".into(), ..target.clone() };
    let fields = FieldSelector::equal("metadata.name", &target.name);
    loop {
        let options = ListOptions { fields: fields.clone(), ..ListOptions::default() };
        let list = session.api.list(&collection, &options).await?;
        if met(list.items.first().map(|object| object.value()).as_deref())? {
            return Ok(());
        }
        let options = ListOptions { resource_version: Some(list.revision), ..options };
        let mut watch = session.api.watch(&collection, &options).await?;
        // A watch that breaks or expires is begun anew.
        while let Some(Ok(event)) = watch.next().await {
            let met = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => met(Some(&object.value()))?,
                WatchEvent::Deleted(_) => met(None)?,
                WatchEvent::Bookmark { .. } => false,
            };
            if met {
                return Ok(());
            }
        }
        tokio::time::sleep(REST).await;
    }
}

/// A duration as Go writes it: `90s`, `1m30s`, `1.5h`, `250ms`, `0`. Negative ones are None.
pub fn duration(text: &str) -> Result<Option<Duration>> {
    let bad = || anyhow::anyhow!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(bad());
    }
    if rest != "0" {
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
            let number: f64 = rest[..end].parse().map_err(|_| bad())?;
            let units = [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
            let Some((unit, scale)) = units.iter().find(|(unit, _)| rest[end..].starts_with(unit)) else {
                bail!(bad())
            };
            seconds += number * scale;
            rest = &rest[end + unit.len()..];
        }
    }
    let whole = Duration::try_from_secs_f64(seconds).map_err(|_| bad())?;
    Ok((!negative).then_some(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, millis) in
            [("30s", 30_000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("250ms", 250), ("0", 0), ("0s", 0)]
        {
            assert_eq!(duration(text).unwrap(), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration("-1s").unwrap(), None);
        for text in ["", "-", "5", "s", "1x", "1s2"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
