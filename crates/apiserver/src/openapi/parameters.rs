//! The parameters of operations.

pub struct Parameter {
    pub name: &'static str,
    /// boolean, integer or string.
    pub kind: &'static str,
    pub in_path: bool,
    pub description: &'static str,
}

const fn query(name: &'static str, kind: &'static str, description: &'static str) -> Parameter {
    Parameter { name, kind, in_path: false, description }
}

/// All there are, by name.
const ALL: &[Parameter] = &[
    query(
        "allowWatchBookmarks",
        "boolean",
        "Asks for events of type BOOKMARK in a watch. They tell up to which resourceVersion nothing was missed, and come when the server sees fit.",
    ),
    query("command", "string", "The command to run, a parameter for each argument. It is not run within a shell."),
    query(
        "container",
        "string",
        "Which container of the pod is meant. Defaults to its only one, or to the one that an annotation of the pod names.",
    ),
    query(
        "continue",
        "string",
        "From the metadata of a previous list that had a limit: asks for what comes after it, with the same other parameters. A token that is too old is answered with 410 and, where possible, with a token to go on with at another resourceVersion.",
    ),
    query("dryRun", "string", "When present, nothing is persisted. Valid values are: - All: all stages are processed."),
    query(
        "fieldManager",
        "string",
        "The name of who is making these changes, less than 128 printable characters. Required for applying, else it is taken from the user agent.",
    ),
    query("fieldSelector", "string", "Restricts the objects by their fields. Defaults to everything."),
    query(
        "fieldValidation",
        "string",
        "What to do about unknown and duplicate fields of a body: - Ignore: drop them. - Warn: drop them and answer with a warning for each. This is the default. - Strict: refuse the request.",
    ),
    query("follow", "boolean", "Whether to go on with what is logged from now on. Defaults to false."),
    query("force", "boolean", "Takes over fields that other managers own. Only for applying."),
    query(
        "gracePeriodSeconds",
        "integer",
        "How long the object has until it is deleted. Zero deletes at once. Defaults to what its kind or the object itself says.",
    ),
    query(
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Deletes an object that cannot be read from storage, without its finalizers and preconditions. WARNING: this may break what depends on the object.",
    ),
    query(
        "insecureSkipTLSVerifyBackend",
        "boolean",
        "Reads logs from a node whose certificate is not checked: they may come from somebody else.",
    ),
    query("labelSelector", "string", "Restricts the objects by their labels. Defaults to everything."),
    query(
        "limit",
        "integer",
        "How many objects a list answers at most. When there are more, its metadata has a token for `continue`.",
    ),
    query("limitBytes", "integer", "How many bytes of log are answered at most."),
    Parameter { name: "name", kind: "string", in_path: true, description: "name of the object" },
    Parameter {
        name: "namespace",
        kind: "string",
        in_path: true,
        description: "object name and auth scope, such as for teams and projects",
    },
    query(
        "orphanDependents",
        "boolean",
        "Deprecated: use propagationPolicy. Whether dependent objects are to be left alone.",
    ),
    query(
        "pretty",
        "string",
        "If 'true', the answer is indented. Defaults to 'false', unless the user agent is a browser or a command-line HTTP tool.",
    ),
    query(
        "previous",
        "boolean",
        "Whether to answer the logs of the container before it was last restarted. Defaults to false.",
    ),
    query(
        "propagationPolicy",
        "string",
        "What happens to dependent objects: 'Orphan' leaves them, 'Background' lets the garbage collector delete them, 'Foreground' deletes them before the object itself.",
    ),
    query(
        "resourceVersion",
        "string",
        "What state an answer may be from. Unset means the newest. See https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions.",
    ),
    query("resourceVersionMatch", "string", "How resourceVersion is meant in a list: Exact or NotOlderThan."),
    query(
        "sendInitialEvents",
        "boolean",
        "A watch begins with an event for each existing object, and with allowWatchBookmarks a bookmark annotated \"k8s.io/initial-events-end\": \"true\" behind them. Requires resourceVersionMatch=NotOlderThan.",
    ),
    query("shardSelector", "string", "Restricts the objects to a range of hashes of a field."),
    query("sinceSeconds", "integer", "How many seconds of log before now are answered."),
    query("stream", "string", "Which stream of the container's is answered: \"All\", \"Stdout\" or \"Stderr\"."),
    query("tailLines", "integer", "How many lines from the end of the log are answered."),
    query("timeoutSeconds", "integer", "Limits how long a list or watch may take, whatever becomes of it."),
    query("timestamps", "boolean", "Whether each line of log begins with when it was written. Defaults to false."),
    query("watch", "boolean", "Answers changes as a stream of events instead of a list. Specify resourceVersion."),
];

pub const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
pub const WATCH: &[&str] = LIST;
pub const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
pub const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
pub const DELETE: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];
pub const DELETE_MANY: &[&str] = &[
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "labelSelector",
    "limit",
    "orphanDependents",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
];
pub const LOG: &[&str] = &[
    "container",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "stream",
    "tailLines",
    "timestamps",
];

/// The parameters of these names.
pub fn named(names: &[&str]) -> Vec<&'static Parameter> {
    ALL.iter().filter(|parameter| names.contains(&parameter.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_known() {
        for names in [LIST, WRITE, PATCH, DELETE, DELETE_MANY, LOG] {
            assert_eq!(named(names).len(), names.len(), "{names:?}");
        }
    }
}
