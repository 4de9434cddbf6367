//! Paths inside volumes and the modes of files.

use canopus_api::{Errors, Field};

pub fn is_absolute(path: &str) -> bool {
    path.starts_with('/')
}

/// No element is `..`.
pub fn no_backsteps(field: &Field, errors: &mut Errors) {
    if field.str().split('/').any(|part| part == "..") {
        errors.invalid(field, "must not contain '..'");
    }
}

/// Relative, and without `..`.
pub fn local_descending(field: &Field, errors: &mut Errors) {
    if is_absolute(field.str()) {
        errors.invalid(field, "must be a relative path");
    }
    no_backsteps(field, errors);
}

/// As [`local_descending`], and not in the `..data` family that the node uses itself.
pub fn local_non_reserved(field: &Field, errors: &mut Errors) {
    local_descending(field, errors);
    let path = field.str();
    // The check for `..` elements has spoken about the others.
    if path.starts_with("..") && !path.starts_with("../") {
        errors.invalid(field, "must not start with '..'");
    }
}

/// An optional file mode.
pub fn mode(field: &Field, errors: &mut Errors) {
    if field.is_set() && !(0..=0o777).contains(&field.int()) {
        errors.invalid(field, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}
