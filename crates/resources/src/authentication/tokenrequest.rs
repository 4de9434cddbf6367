//! TokenRequest: the body of `serviceaccounts/token`. No resource of its own.

use canopus_api::{Errors, Field, Value};

const HOUR: i64 = 60 * 60;
const SHORTEST: i64 = 10 * 60;
const LONGEST: i64 = 1 << 32;

/// Fills in upstream's defaults: a token lives an hour.
pub fn default(request: &mut Value) {
    let spec = request.obj_mut("spec").entry("expirationSeconds", || Value::Null);
    if spec.is_null() {
        *spec = HOUR.into();
    }
}

/// All that is wrong with a request.
pub fn validate(request: &Field, errors: &mut Errors) {
    let spec = request.at("spec");
    let seconds = spec.at("expirationSeconds");
    if seconds.int() < SHORTEST {
        errors.invalid(&seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds.int() > LONGEST {
        errors.invalid(&seconds, "may not specify a duration larger than 2^32 seconds");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn durations() {
        let cases = [
            (value!({}), ""),
            (value!({"expirationSeconds": 600}), ""),
            (value!({"expirationSeconds": 599}), "may not specify a duration less than 10 minutes"),
            (value!({"expirationSeconds": 4_294_967_297_i64}), "may not specify a duration larger than 2^32 seconds"),
        ];
        for (spec, expected) in cases {
            let mut request = value!({"spec": spec});
            default(&mut request);
            let mut errors = Errors::new();
            validate(&Field::root(&request), &mut errors);
            assert_eq!(errors.iter().map(|e| e.detail.as_str()).collect::<String>(), expected);
        }
    }
}
