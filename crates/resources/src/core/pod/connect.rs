//! Which container of a pod `exec`, `attach` and `log` mean.

use super::each_container;
use canopus_api::{Result, Status, Value};

/// The container named, or the only one when none is.
///
/// # Errors
/// `BadRequest`, as upstream, when there is no such container, or several to choose from.
pub fn container<'a>(pod: &'a Value, named: &str) -> Result<&'a str> {
    let (name, spec) = (pod["metadata"]["name"].str(), &pod["spec"]);
    let mut all = each_container(spec).map(|c| c["name"].str());
    if !named.is_empty() {
        let found = all.find(|container| *container == named);
        return found.ok_or_else(|| Status::bad_request(format!("container {named} is not valid for pod {name}")));
    }
    let must = format!("a container name must be specified for pod {name}");
    match spec["containers"].items() {
        [only] => Ok(only["name"].str()),
        [] => Err(Status::bad_request(must)),
        _ => {
            let names: Vec<&str> = all.collect();
            Err(Status::bad_request(format!("{must}, choose one of: [{}]", names.join(" "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn choices() {
        let pod = value!({"metadata": {"name": "p"}, "spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(container(&pod, "i").unwrap(), "i");
        assert_eq!(container(&pod, "x").unwrap_err().message, "container x is not valid for pod p");
        let why = "a container name must be specified for pod p, choose one of: [i a b]";
        assert_eq!(container(&pod, "").unwrap_err().message, why);
        assert_eq!(container(&value!({"spec": {"containers": [{"name": "a"}]}}), "").unwrap(), "a");
    }
}
