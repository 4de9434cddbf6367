//! Decoding by the tables: types are checked, unknown fields dropped and reported, scalars brought to the form in which
//! upstream's decoder would write them back.

use super::check::check;
use super::place::Schema;
use super::prune::prune;
use crate::value::Value;

/// Decodes `value` as `ty` in place. Answers the unknown fields that were dropped, as `unknown field "spec.x"`.
///
/// # Errors
/// What does not fit its type, in the words of Go's decoder: `json: cannot unmarshal string into Go struct field
/// DeploymentSpec.spec.replicas of type int32`.
pub fn decode(schema: Schema<'_>, value: &mut Value) -> Result<Vec<String>, String> {
    let unknown = match schema {
        Schema::Table(ty) => {
            check(ty, value).map_err(|problem| problem.0)?;
            prune(ty, value)
        }
        Schema::Custom(root) => super::custom::decode(root, value)?,
    };
    Ok(unknown.into_iter().map(|path| format!("unknown field {path:?}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    fn run(kind: &str, group: &str, mut value: Value) -> (Result<Vec<String>, String>, Value) {
        let ty = canopus_schema::kind(group, "v1", kind).unwrap().get();
        let done = decode(ty.into(), &mut value);
        (done, value)
    }

    #[test]
    fn upstreams_types_decode() {
        let (done, left) = run(
            "Pod",
            "",
            value!({
                "metadata": {"creationTimestamp": null, "labels": {"any": "x"}, "finalizers": []},
                "spec": {"containers": [{"name": "a", "imagee": "x", "resources": {"limits": {"cpu": "0.1", "memory": 1024}}}],
                    "foo": 1, "securityContext": {}},
                "status": {"startTime": "2026-01-01T01:00:00+01:00"}, "bar": {},
            }),
        );
        assert_eq!(
            done.unwrap(),
            [r#"unknown field "bar""#, r#"unknown field "spec.containers[0].imagee""#, r#"unknown field "spec.foo""#]
        );
        assert_eq!(
            left,
            value!({
                "metadata": {"labels": {"any": "x"}},
                "spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "100m", "memory": "1024"}}}],
                    "securityContext": {}},
                "status": {"startTime": "2026-01-01T00:00:00Z"},
            })
        );
        let (done, _) = run("Pod", "", value!({"spec": {"nodeName": true}}));
        assert_eq!(
            done.unwrap_err(),
            "json: cannot unmarshal bool into Go struct field PodSpec.spec.nodeName of type string"
        );
    }
}
