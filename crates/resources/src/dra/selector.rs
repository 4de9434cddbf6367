//! Expressions that select devices (KEP-4381, upstream `dynamic-resource-allocation/cel`): what they see, what they yield
//! and what they may cost.

use canopus_cel::{Env, Program, Type, TypeProvider, issues_text};
use std::sync::Arc;

const DEVICE: &str = "kubernetes.DRADevice";
pub const MAX_LENGTH: usize = 10 * 1024;
/// For an estimate and for an evaluation.
pub const MAX_COST: u64 = 1_000_000;

/// Attributes and capacities of a device, and domains of them.
const ENTRIES: u64 = 32;
const DOMAIN: u64 = 63;
const IDENTIFIER: u64 = 32;
const ATTRIBUTE: u64 = 64;

/// The fields of `device`, and how large what they hold can be.
struct Device;

fn by_domain(of: Type) -> Type {
    Type::map(Type::String, Type::map(Type::String, of))
}

impl TypeProvider for Device {
    fn field(&self, object: &str, field: &str) -> Option<Type> {
        match (object, field) {
            (DEVICE, "driver") => Some(Type::String),
            (DEVICE, "allowMultipleAllocations") => Some(Type::Bool),
            (DEVICE, "attributes") => Some(by_domain(Type::Dyn)),
            (DEVICE, "capacity") => Some(by_domain(Type::object("kubernetes.Quantity"))),
            _ => None,
        }
    }

    fn is_object(&self, name: &str) -> bool {
        name == DEVICE
    }

    fn size(&self, path: &[&str]) -> Option<u64> {
        match path {
            ["device", "driver"] => Some(DOMAIN),
            ["device", "allowMultipleAllocations"] => Some(1),
            ["device", "attributes" | "capacity"] => Some(ENTRIES),
            ["device", "attributes" | "capacity", "@keys"] => Some(DOMAIN),
            ["device", "attributes" | "capacity", "@values"] => Some(ENTRIES),
            ["device", "attributes" | "capacity", "@values", "@keys"] => Some(IDENTIFIER),
            // All attributes have one limit, by whatever name they are asked for.
            ["device", "attributes", "@values", _] => Some(ATTRIBUTE),
            ["device", "capacity", "@values", "@values"] => Some(0),
            _ => None,
        }
    }
}

/// Compiles a selector; the error is upstream's.
pub fn compile(expression: &str) -> Result<Program, String> {
    let env = Env::new().bindings().variable("device", Type::object(DEVICE)).types(Arc::new(Device));
    let program = env.compile(expression).map_err(|i| format!("compilation failed: {}", issues_text(&i)))?;
    match program.result() {
        Type::Bool | Type::Dyn => Ok(program),
        other => Err(format!("must evaluate to bool or the unknown type, not {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        let right = [
            "device.driver == 'gpu.example.com'",
            "device.attributes['gpu.example.com'].model == 'LATEST-GPU-MODEL'",
            "device.capacity['gpu.example.com'].memory.compareTo(quantity('16Gi')) >= 0",
            "cel.bind(a, device.attributes['gpu.example.com'], a.big && a.fast)",
            "device.attributes['gpu.example.com'].big",
            "device.attributes['x'].driverVersion.isGreaterThan(semver('1.0.0'))",
            "device.allowMultipleAllocations",
            "'x' in device.attributes && device.attributes.all(d, d != '')",
        ];
        for expression in right {
            let compiled = compile(expression);
            assert!(
                compiled.as_ref().is_ok_and(|p| p.estimated_cost().max < MAX_COST),
                "{expression}: {:?}",
                compiled.err()
            );
        }
        let wrong = [
            ("device.drivers == ''", "undefined field 'drivers'"),
            ("device.driver", "must evaluate to bool or the unknown type, not string"),
            ("device.driver == 1", "found no matching overload for '_==_' applied to '(string, int)'"),
            ("object.x", "undeclared reference to 'object'"),
            ("device.capacity['x'].memory > 1", "found no matching overload for '_>_'"),
        ];
        for (expression, why) in wrong {
            let error = compile(expression).err().unwrap_or_default();
            assert!(error.contains(why), "{expression}: {error}");
        }
        let dear = "device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, device.attributes.all(d, device.attributes.all(e, a == b && c == d && e == a)))))";
        assert!(compile(dear).is_ok_and(|p| p.estimated_cost().max > MAX_COST));
    }
}
