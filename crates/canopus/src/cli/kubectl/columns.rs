//! `-o custom-columns=HEADER:PATH,…`.

use crate::cli::output;
use canopus_api::Value;
use canopus_api::jsonpath::{Template, text};

#[derive(Clone, Debug, PartialEq)]
pub struct Columns(Vec<(String, Template)>);

impl Columns {
    pub fn parse(spec: &str) -> Result<Columns, String> {
        if spec.is_empty() {
            return Err("custom-columns format specified but no custom columns given".into());
        }
        let column = |part: &str| match part.split_once(':') {
            Some((header, path)) => Ok((header.to_string(), Template::relaxed(path)?)),
            None => Err(format!("unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>")),
        };
        spec.split(',').map(column).collect::<Result<_, String>>().map(Columns)
    }

    pub fn text(&self, objects: &[Value], headers: bool) -> String {
        let mut rows: Vec<Vec<String>> = Vec::new();
        if headers {
            rows.push(self.0.iter().map(|(header, _)| header.clone()).collect());
        }
        rows.extend(objects.iter().map(|object| self.0.iter().map(|(_, path)| cell(path, object)).collect()));
        output::columns(&rows)
    }
}

fn cell(path: &Template, object: &Value) -> String {
    match path.find(object) {
        Ok(found) if !found.is_empty() => found.into_iter().map(text).collect::<Vec<_>>().join(","),
        _ => "<none>".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn columns_are_paths() {
        let columns = Columns::parse("NAME:.metadata.name,ALL:.l[*].n,NONE:.x.y").unwrap();
        let object = value!({"metadata": {"name": "a"}, "l": [{"n": 1}, {"n": "z"}]});
        let objects = [object];
        assert_eq!(columns.text(&objects, true), "NAME   ALL   NONE\na      1,z   <none>\n");
        assert_eq!(columns.text(&objects, false), "a   1,z   <none>\n");
        assert!(Columns::parse("").is_err() && Columns::parse("NAME").is_err());
    }
}
