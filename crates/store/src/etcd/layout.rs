//! Where our keys lie in etcd.

use super::messages::KeyValue;
use crate::{Facts, Version};
use std::borrow::Cow;
use std::sync::Arc;

/// What keys start with here, whatever the prefix in etcd.
const ROOT: &str = "/registry";

/// `--etcd-prefix`: what stands in place of `/registry`.
#[derive(Debug, Clone)]
pub(super) struct Layout(Option<Box<str>>);

impl Layout {
    pub(super) fn new(prefix: &str) -> Layout {
        let prefix = format!("/{}", prefix.trim_matches('/'));
        Layout((prefix != ROOT && prefix != "/").then(|| prefix.into()))
    }

    /// A key, or the bound of a range, as etcd has it.
    pub(super) fn outward<'a>(&self, key: &'a str) -> Cow<'a, str> {
        match (&self.0, key.strip_prefix(ROOT)) {
            (Some(prefix), Some(rest)) => Cow::Owned(format!("{prefix}{rest}")),
            _ => Cow::Borrowed(key),
        }
    }

    /// One of etcd's keys as we have it.
    pub(super) fn inward(&self, key: String) -> Arc<str> {
        match self.0.as_ref().and_then(|prefix| key.strip_prefix(&**prefix)) {
            Some(rest) if rest.starts_with('/') => format!("{ROOT}{rest}").into(),
            _ => key.into(),
        }
    }

    pub(super) fn version(&self, kv: KeyValue) -> Version {
        Version {
            key: self.inward(kv.key),
            value: kv.value,
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            expires_at: None,
            facts: None,
        }
    }
}

impl Version {
    /// The same with what its writer knows.
    pub(super) fn of_writer(self, own: Option<(bytes::Bytes, Facts)>) -> Version {
        match own {
            Some((value, facts)) => Version { value, facts: Some(facts), ..self },
            None => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        for (prefix, ours, etcds) in [
            ("/registry", "/registry/pods/a", "/registry/pods/a"),
            ("registry/", "/registry/pods/a", "/registry/pods/a"),
            ("/cluster-2", "/registry/pods/a", "/cluster-2/pods/a"),
            ("a/b", "/registry/pods0", "/a/b/pods0"),
            ("/cluster-2", "compact_rev_key", "compact_rev_key"),
        ] {
            let layout = Layout::new(prefix);
            assert_eq!(layout.outward(ours), etcds);
            assert_eq!(&*layout.inward(etcds.to_owned()), ours);
        }
        // Another cluster's key isn't taken for ours.
        assert_eq!(&*Layout::new("/cluster").inward("/cluster-2/pods/a".to_owned()), "/cluster-2/pods/a");
    }
}
